"""A gateway with a port for each way to serve TLS, its certificates made by openssl, and a TLS server of its own behind what it passes through."""
import base64, json, os, pathlib, signal, socket, ssl, subprocess, threading, time

API = "networking.istio.io/v1"
MODES = ("simple", "mutual", "optional", "istio", "newest", "older", "suite", "files", "pass", "auto", "plain", "ancient", "pair")
ID = "spiffe://cluster.local/ns/test/sa/client"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Mesh:
    """`ports` has a port of the gateway for each of MODES. Hosts are NAME.test; `crt(NAME)` and `key(NAME)` are what they should show."""

    def __init__(self, work, proxy):
        self.work, self.proxy, self.up, self.log = work, proxy, None, work / "up.log"
        self.ports = {m: free_port() for m in MODES}
        self.config, self.cacerts, self.xds = work / "config", work / "cacerts", free_port()

    def path(self, name):
        return str(self.work / name)

    def crt(self, name):
        return self.path(f"{name}.crt")

    def key(self, name):
        return self.path(f"{name}.key")

    def start(self):
        self.config.mkdir(); self.cacerts.mkdir()
        self.certificates()
        self.backend, self.inner = serve_http(), serve_tls(self.crt("inner"), self.key("inner"))
        self.write("secrets", self.secrets())
        self.write("gateway", self.gateway(), *self.routes())
        argv = [os.environ.get("MAILLE", "target/release/maille"), "up", "-f", str(self.config), "--xds-port", str(self.xds), "--proxy", self.proxy,
                "--cacerts", str(self.cacerts)]
        self.up = subprocess.Popen(argv, stdout=open(self.log, "wb"), stderr=subprocess.STDOUT, start_new_session=True)
        end = time.time() + 60
        while self.curl("simple", "a")[0]:
            if time.time() > end or not self.alive():
                raise RuntimeError(f"the gateway does not answer:\n{self.said()[-3000:]}")
            time.sleep(0.2)
        time.sleep(1)

    def curl(self, port, host, *more, scheme="https", ca="ca"):
        """(exit code, what came, what was said); the answer's body ends with its status."""
        port = self.ports[port]
        argv = ["curl", "-sS", "-m", "10", "--resolve", f"{host}.test:{port}:127.0.0.1", "--cacert", self.crt(ca), "-w", "%{http_code} %{ssl_verify_result}", *more, f"{scheme}://{host}.test:{port}/"]
        done = subprocess.run(argv, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def openssl(self, port, host, *more, say="", ca="ca", wait=0):
        """What openssl s_client prints; it says `say` inside, if anything, and stays for `wait` seconds."""
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.ports[port]}", "-servername", f"{host}.test" if "_" not in host else host, "-CAfile", self.crt(ca), *more]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if say or wait:
            try:
                child.stdin.write(say.encode()); child.stdin.flush()
            except BrokenPipeError:
                pass                                       # refused already: what was printed says so
            time.sleep(wait or 1)
        out, _ = child.communicate(timeout=20)
        return out.decode(errors="replace")

    # what is served

    def write(self, name, *resources):
        draft = self.config / f".{name}"
        draft.write_text("\n---\n".join(json.dumps(r) for r in resources))
        draft.rename(self.config / f"{name}.yaml")

    def secret(self, name, **files):
        data = {k: base64.b64encode(pathlib.Path(self.path(f)).read_bytes()).decode() for k, f in files.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "istio-system"}, "type": "Opaque", "data": data}

    def secrets(self, a="a", staple=None):
        pair = lambda n: {"tls.crt": f"{n}.crt", "tls.key": f"{n}.key"}
        items = [self.secret("a", **pair(a), **({"tls.ocsp-staple": staple} if staple else {})), self.secret("b", **pair("b")), self.secret("rsa", **pair("rsa")), self.secret("ecdsa", **pair("ecdsa")),
                 self.secret("generic", cert="a.crt", key="a.key", cacert="ca.crt"), self.secret("both", **pair("b")), self.secret("both-cacert", **{"ca.crt": "ca.crt"})]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def gateway(self):
        def server(port, hosts, protocol="HTTPS", **tls):
            name = f"{port}-{hosts[0]}"
            entry = {"port": {"number": self.ports[port], "name": name, "protocol": protocol}, "hosts": [f"{h}.test" if h != "*" else h for h in hosts]}
            return {**entry, "tls": tls} if tls else entry
        servers = [server("simple", ["a"], mode="SIMPLE", credentialName="a"), server("simple", ["b"], mode="SIMPLE", credentialName="b"),
                   server("pair", ["both", "rsa"], mode="SIMPLE", credentialNames=["rsa", "ecdsa"]),
                   server("mutual", ["a"], mode="MUTUAL", credentialName="generic"), server("mutual", ["b"], mode="MUTUAL", credentialName="both"),
                   server("optional", ["a"], mode="OPTIONAL_MUTUAL", credentialName="generic"),
                   server("istio", ["*"], mode="ISTIO_MUTUAL"),
                   server("newest", ["a"], mode="SIMPLE", credentialName="a", minProtocolVersion="TLSV1_3"),
                   server("older", ["a"], mode="SIMPLE", credentialName="a", maxProtocolVersion="TLSV1_2"),
                   server("suite", ["a"], mode="SIMPLE", credentialName="rsa", maxProtocolVersion="TLSV1_2", cipherSuites=["ECDHE-RSA-AES256-GCM-SHA384"]),
                   server("files", ["a"], mode="SIMPLE", serverCertificate=self.path("live/tls.crt"), privateKey=self.path("live/tls.key")),
                   server("pass", ["inner"], "TLS", mode="PASSTHROUGH"), server("auto", ["*"], "TLS", mode="AUTO_PASSTHROUGH"),
                   server("plain", ["*"], "HTTP", httpsRedirect=True)]
        return {"apiVersion": API, "kind": "Gateway", "metadata": {"name": "edge", "namespace": "istio-system"}, "spec": {"selector": {"istio": "ingressgateway"}, "servers": servers}}

    def ancient(self, **tls):
        """One more server, which wants what has been withdrawn; on a gateway of its own."""
        server = {"port": {"number": self.ports["ancient"], "name": "ancient", "protocol": "HTTPS"}, "hosts": ["*"], "tls": {"mode": "SIMPLE", "credentialName": "a", **tls}}
        return {"apiVersion": API, "kind": "Gateway", "metadata": {"name": "ancient", "namespace": "istio-system"}, "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]}}

    def routes(self):
        def entry(host, port, protocol, **labels):
            return {"apiVersion": API, "kind": "ServiceEntry", "metadata": {"name": host.split(".")[0], "namespace": "istio-system"},
                    "spec": {"hosts": [host], "location": "MESH_INTERNAL", "resolution": "STATIC", "ports": [{"number": 443 if protocol == "TLS" else 80, "name": protocol.lower(), "protocol": protocol}],
                             "endpoints": [{"address": "127.0.0.1", "ports": {protocol.lower(): port}, "labels": labels}]}}
        def virtual(name, **routes):
            return {"apiVersion": API, "kind": "VirtualService", "metadata": {"name": name, "namespace": "istio-system"}, "spec": {"gateways": ["edge"], **routes}}
        yield entry("plain.service", self.backend, "HTTP")
        yield entry("inner.test", self.inner, "TLS")
        yield entry("member.test", self.inner, "TLS", **{"security.istio.io/tlsMode": "istio"})
        yield virtual("web", hosts=["*"], http=[{"route": [{"destination": {"host": "plain.service"}}]}])
        yield virtual("inner", hosts=["inner.test"], tls=[{"match": [{"sniHosts": ["inner.test"]}], "route": [{"destination": {"host": "inner.test"}}]}])

    def live(self, name):
        """Puts a certificate where the server with files has its own."""
        (self.work / "live").mkdir(exist_ok=True)
        for end in ("key", "crt"):
            draft = self.work / f"live/.{end}"
            draft.write_bytes(pathlib.Path(self.path(f"{name}.{end}")).read_bytes())
            draft.rename(self.work / f"live/tls.{end}")

    def certificates(self):
        def openssl(*args):
            subprocess.run(["openssl", *args], cwd=self.work, check=True, capture_output=True)
        ec, rsa = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"), ("-newkey", "rsa:2048", "-nodes")
        def authority(name):
            openssl("req", "-x509", *ec, "-days", "300", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        def leaf(name, sans, ca="ca", kind=ec):
            openssl("req", *kind, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "csr")
            (self.work / "ext").write_text(f"subjectAltName={sans}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=CA:FALSE\n")
            openssl("x509", "-req", "-in", "csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "200", "-extfile", "ext", "-out", f"{name}.crt")
        for name in ("ca", "other", "mesh"):
            authority(name)
        leaf("a", "DNS:a.test"); leaf("a2", "DNS:a.test"); leaf("b", "DNS:b.test"); leaf("inner", "DNS:inner.test"); leaf("client", "DNS:client.test")
        leaf("rsa", "DNS:both.test,DNS:rsa.test,DNS:a.test", kind=rsa); leaf("ecdsa", "DNS:both.test,DNS:rsa.test")
        leaf("stranger", "DNS:client.test", ca="other"); leaf("workload", f"URI:{ID}", ca="mesh"); leaf("foreign", f"URI:{ID}", ca="other")
        for name, source in (("ca-cert.pem", "mesh.crt"), ("ca-key.pem", "mesh.key"), ("cert-chain.pem", "mesh.crt"), ("root-cert.pem", "mesh.crt")):
            (self.cacerts / name).write_bytes((self.work / source).read_bytes())
        self.live("a")

    def staple(self, name, days):
        """What its CA says of a certificate, good for so many days (below zero: no longer); the file it is in."""
        def openssl(*args):
            subprocess.run(["openssl", *args], cwd=self.work, check=True, capture_output=True)
        serial = subprocess.run(["openssl", "x509", "-in", f"{name}.crt", "-noout", "-serial"], cwd=self.work, check=True, capture_output=True, text=True).stdout.strip().split("=")[1]
        (self.work / "index").write_text(f"V\t400101000000Z\t\t{serial}\tunknown\t/CN={name}\n")
        openssl("ocsp", "-issuer", "ca.crt", "-cert", f"{name}.crt", "-no_nonce", "-reqout", "ocsp.req")
        openssl("ocsp", "-index", "index", "-CA", "ca.crt", "-rsigner", "ca.crt", "-rkey", "ca.key", "-reqin", "ocsp.req", "-respout", f"{name}.ocsp", "-ndays", str(abs(days)), "-resp_no_certs")
        if days < 0:                                      # no responder says what is over: its last time is nextUpdate
            der = (self.work / f"{name}.ocsp").read_bytes()
            at = der.rindex(b"\x18\x0f") + 2
            (self.work / f"{name}.ocsp").write_bytes(der[:at] + b"20200101000000Z" + der[at + 15:])
        return f"{name}.ocsp"

    def alive(self):
        return self.up is not None and self.up.poll() is None

    def said(self):
        return self.log.read_text() if self.log.exists() else ""

    def stop(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            if self.alive():
                os.killpg(self.up.pid, sig)
                try:
                    self.up.wait(15)
                except subprocess.TimeoutExpired:
                    print("maille up did not end on SIGTERM")


def serve_http():
    """Says back who the proxy says the client is; gives its port."""
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = f"xfcc={self.headers.get('x-forwarded-client-cert', '')} ".encode()
            self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def serve_tls(crt, key):
    """Ends TLS itself, and answers whatever comes as HTTP/1.1; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def one(raw):
        try:
            with context.wrap_socket(raw, server_side=True) as s:
                s.recv(65536)
                s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\ninner ")
        except OSError:
            pass

    def serve():
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]
