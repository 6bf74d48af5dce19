"""PeerAuthentication × protocol of the port × client: what becomes of each connection to a sidecar, as Istio's table of inbound filter
chains has it. TABLE is that table, one row for each client; a cell is a word of client.py."""
import concurrent.futures, ssl

from client import Client, ask
from mesh import SECURITY, resource, service, until

PORTS = {"http": 8080, "tcp": 8081, "sniffed": 8082}
COLUMNS = [(mode, port) for mode in ("STRICT", "PERMISSIVE", "DISABLE") for port in PORTS]


def mtls(*alpn, says="http1", certificate="caller", **more):
    return Client(says, {"certificate": certificate, "alpn": list(alpn), **more})


CLIENTS = {
    "plain HTTP/1": Client("http1"),
    "plain HTTP/2": Client("http2"),
    "plain bytes": Client("bytes"),
    "mTLS istio-http/1.1": mtls("istio-http/1.1"),
    "mTLS istio-http/1.0": mtls("istio-http/1.0"),
    "mTLS istio-h2": mtls("istio-h2", says="http2"),
    "mTLS istio, HTTP/1": mtls("istio"),
    "mTLS istio, bytes": mtls("istio", says="bytes"),
    "mTLS istio-peer-exchange": mtls("istio-peer-exchange", "istio", says="bytes"),
    "mTLS 1.2 istio-http/1.1": mtls("istio-http/1.1", version=ssl.TLSVersion.TLSv1_2),
    "mTLS no ALPN, HTTP/1": mtls(),
    "mTLS no ALPN, bytes": mtls(says="bytes"),
    "mTLS http/1.1": mtls("http/1.1"),
    "mTLS h2": mtls("h2", says="http2"),
    "TLS, no certificate": Client("http1", {}),
    "TLS http/1.1, no certificate": Client("http1", {"alpn": ["http/1.1"]}),
    "no certificate": mtls("istio-http/1.1", certificate=None),
    "no certificate, TLS 1.2": mtls("istio-http/1.1", certificate=None, version=ssl.TLSVersion.TLSv1_2),
    "no certificate, istio": mtls("istio", says="bytes", certificate=None),
    **{name: mtls("istio-http/1.1", certificate=name) for name in (
        "wrong-trust-domain", "trust-domain-begins-alike", "expired", "not-yet", "not-spiffe", "spiffe-as-dns", "no-name", "server-only", "foreign", "self-signed")},
    **{f"{name}, istio": mtls("istio", says="bytes", certificate=name) for name in ("wrong-trust-domain", "expired", "not-spiffe", "foreign")},
}

BAD = "-     -     -      -     -     -      -     pass  pass"

#                                   STRICT             PERMISSIVE         DISABLE
#                                   http  tcp   sniff  http  tcp   sniff  http  tcp   sniff
TABLE = {
    "plain HTTP/1":                 "-     -     -      http  tcp   http   http  tcp   http",
    "plain HTTP/2":                 "-     -     -      http  tcp   http   http  tcp   http",
    "plain bytes":                  "-     -     -      -     tcp   tcp    -     tcp   tcp",
    "mTLS istio-http/1.1":          "http+ tcp+  http+  http+ tcp+  http+  -     pass  pass",
    "mTLS istio-http/1.0":          "http+ tcp+  http+  http+ tcp+  http+  -     pass  pass",
    "mTLS istio-h2":                "http+ tcp+  http+  http+ tcp+  http+  -     pass  pass",
    "mTLS istio, HTTP/1":           "http+ tcp+  tcp+   http+ tcp+  tcp+   -     pass  pass",
    "mTLS istio, bytes":            "-     tcp+  tcp+   -     tcp+  tcp+   -     pass  pass",
    "mTLS istio-peer-exchange":     "-     tcp+  tcp+   -     tcp+  tcp+   -     pass  pass",
    "mTLS 1.2 istio-http/1.1":      "http+ tcp+  http+  http+ tcp+  http+  -     pass  pass",
    "mTLS no ALPN, HTTP/1":         "http+ tcp+  tcp+   -     pass  pass   -     pass  pass",
    "mTLS no ALPN, bytes":          "-     tcp+  tcp+   -     pass  pass   -     pass  pass",
    "mTLS http/1.1":                "http+ tcp+  tcp+   -     pass  pass   -     pass  pass",
    "mTLS h2":                      "http+ tcp+  tcp+   -     pass  pass   -     pass  pass",
    "TLS, no certificate":          "-     -     -      -     pass  pass   -     pass  pass",
    "TLS http/1.1, no certificate": "-     -     -      -     pass  pass   -     pass  pass",
}


def expected(client, mode, port):
    return TABLE.get(client, BAD).split()[COLUMNS.index((mode, port))]


# What is written, and what it comes to. Each differs from the one before it, so that it can be waited for.
NAMESPACES = ("istio-system", "test")


def peer(namespace, mode, ports=None, selects=False):
    spec = {"mtls": {"mode": mode}} if mode else {}
    if selects or ports:
        spec["selector"] = {"matchLabels": {"version": "matrix"}}
    if ports:
        spec["portLevelMtls"] = {str(port): {"mode": ports} for port in (*PORTS.values(), UNKNOWN)}
    return resource(SECURITY, "PeerAuthentication", f"{'workload' if selects or ports else 'default'}", namespace, spec)


UNKNOWN = 8083                                             # a port that no service has
PHASES = [
    ("nothing", "PERMISSIVE", []),
    ("mesh STRICT, namespace UNSET", "STRICT", [peer("istio-system", "STRICT"), peer("test", "UNSET")]),
    ("namespace PERMISSIVE over mesh STRICT", "PERMISSIVE", [peer("istio-system", "STRICT"), peer("test", "PERMISSIVE")]),
    ("namespace DISABLE over mesh STRICT", "DISABLE", [peer("istio-system", "STRICT"), peer("test", "DISABLE")]),
    ("workload STRICT over namespace DISABLE", "STRICT", [peer("test", "DISABLE"), peer("test", "STRICT", selects=True)]),
    ("port DISABLE over workload STRICT", "DISABLE", [peer("test", "STRICT", ports="DISABLE")]),
    ("port UNSET, workload STRICT", "STRICT", [peer("test", "DISABLE"), peer("test", "STRICT", ports="UNSET")]),
    ("everything UNSET over mesh PERMISSIVE", "PERMISSIVE", [peer("istio-system", "PERMISSIVE"), peer("test", "UNSET"), peer("test", None, ports="UNSET")]),
]
# Which of them a short run takes: each mode once.
SHORT = PHASES[:2] + PHASES[5:6]

# Two clients by whom a mode is known.
KNOWN_BY = ("plain HTTP/1", "mTLS istio-http/1.1")


def resources():
    yield from (service(name, [(f"{name}-x" if name != "sniffed" else "any", port)]) for name, port in PORTS.items())


def run(mesh, places, phases, problems, source=None):
    """`places` gives, for each protocol, where to connect to and who has the application there."""
    cells = 0
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for title, mode, policies in phases:
            mesh.write("peers", policies)

            def wrong(clients):
                asked = {(name, port): pool.submit(ask, CLIENTS[name], place, mesh.dir, source=source) for name in clients for port, (place, _) in places.items()}
                for (name, port), answer in asked.items():
                    word, tag, _ = answer.result()
                    column = "sniffed" if port == "unknown" else port
                    want = expected(name, mode, column)
                    if word != want:
                        yield f"{title}: {port} port, {name}: {word!r}, expected {want!r}"
                    if want == "-" and tag in mesh.seen(places[port][1]):
                        yield f"{title}: {port} port, {name}: it reached the application"
            late = []

            def settled():
                late[:] = wrong(KNOWN_BY)
                return not late
            until(settled, lambda: f"sign of the new mode ({'; '.join(late)})", 20, 0.2)
            problems += wrong(CLIENTS)
            cells += len(CLIENTS) * len(places)
            mesh.alive()
    return cells
