"""What clients nobody here wrote get from each way to serve TLS."""
import pathlib, re, socket, ssl, subprocess, tempfile, threading, time

from mesh import ID

TLS12, TLS13 = ("--tls-max", "1.2"), ("--tlsv1.3",)
VERSIONS = {"1.2": (TLS12, "-tls1_2"), "1.3": (TLS13, "-tls1_3")}
REQUEST = "GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n"


def is_(got, wanted, of=""):
    assert got == wanted, f"{got!r}, not {wanted!r} {of}"


def serves(mesh, port, host, *more, openssl=(), ca="ca", xfcc=None, versions=VERSIONS):
    """curl and openssl get an answer, in each version of TLS, from a server whose certificate leads to `ca`."""
    for version, (curl, s_client) in versions.items():
        code, out, said = mesh.curl(port, host, *curl, *more, ca=ca)
        assert code == 0 and out.endswith("200 0"), f"curl, TLS {version}: {code} {out} {said}"
        if xfcc is not None:
            assert xfcc in out, f"curl, TLS {version}: {out}"
        out = mesh.openssl(port, host, s_client, *openssl, "-ign_eof", say=REQUEST.format(f"{host}.test"), ca=ca)
        assert "200 OK" in out and "Verify return code: 0" in out, f"openssl, TLS {version}:\n{out[-1500:]}"
        assert f"TLSv{version}" in out, f"openssl, TLS {version}:\n{out[-1500:]}"


def refuses(mesh, port, host, *more, openssl=(), versions=VERSIONS, saying=""):
    """Neither gets an answer: the handshake fails, or what comes after it."""
    for version, (curl, s_client) in versions.items():
        code, out, said = mesh.curl(port, host, *curl, *more)
        assert code in (16, 35, 52, 55, 56, 98) and "200" not in out, f"curl, TLS {version}: {code} {out} {said}"
        out = mesh.openssl(port, host, s_client, *openssl, "-ign_eof", say=REQUEST.format(f"{host}.test"))
        assert "200 OK" not in out and ("alert" in out or "errno" in out or "unexpected eof" in out), f"openssl, TLS {version}:\n{out[-1500:]}"
        assert saying in out, f"openssl, TLS {version}, wanted {saying}:\n{out[-1500:]}"


def simple(mesh):
    for host in ("a", "b"):
        serves(mesh, "simple", host)
        out = mesh.openssl("simple", host)
        assert f"subject=CN = {host}" in out, out
    is_(mesh.curl("simple", "a", "--http2", "-o", "/dev/null", "-w", "%{http_version} ")[1].split()[0], "2")


def nobody_is_served_under_a_name_that_no_server_has(mesh):
    refuses(mesh, "simple", "c")


def a_pair_of_keys(mesh):
    """credentialNames: each client gets the certificate that it can check."""
    for sigalgs, kind in (("ECDSA+SHA256", "ecdsa"), ("RSA-PSS+SHA256:RSA+SHA256", "rsa"), ("ECDSA+SHA256:RSA-PSS+SHA256", "ecdsa")):
        for s_client in ("-tls1_2", "-tls1_3"):
            out = mesh.openssl("pair", "both", s_client, "-sigalgs", sigalgs)
            assert f"subject=CN = {kind}" in out and "Verify return code: 0" in out, f"{sigalgs} {s_client}:\n{out}"
    serves(mesh, "pair", "rsa")


def client(mesh, name):
    curl = ("--cert", mesh.crt(name), "--key", mesh.key(name))
    return curl, ("-cert", mesh.crt(name), "-key", mesh.key(name))


def mutual(mesh):
    curl, s_client = client(mesh, "client")
    for host in ("a", "b"):                                # the generic form of the Secret, and one with a companion
        serves(mesh, "mutual", host, *curl, openssl=s_client)
        refuses(mesh, "mutual", host)
        strange_curl, strange = client(mesh, "stranger")
        refuses(mesh, "mutual", host, *strange_curl, openssl=strange)


def optional_mutual(mesh):
    serves(mesh, "optional", "a")
    curl, s_client = client(mesh, "client")
    serves(mesh, "optional", "a", *curl, openssl=s_client)
    curl, s_client = client(mesh, "stranger")
    refuses(mesh, "optional", "a", *curl, openssl=s_client)


def istio_mutual(mesh):
    """The mesh's own certificates on both sides; what the gateway shows says who it is, and no DNS name."""
    for version, (curl_version, s_version) in VERSIONS.items():
        curl, s_client = client(mesh, "workload")
        code, out, said = mesh.curl("istio", "any", *curl_version, *curl, "-k", ca="mesh")
        assert code == 0 and "200 " in out, f"TLS {version}: {code} {out} {said}"
        out = mesh.openssl("istio", "any", s_version, *s_client, "-ign_eof", say=REQUEST.format("any.test"), ca="mesh")
        assert "200 OK" in out and "Verify return code: 0" in out, out[-1500:]
    shown = subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], input=out, capture_output=True, text=True).stdout
    assert "URI:spiffe://cluster.local/ns/istio-system/sa/" in shown, shown
    for name in ("client", "foreign"):
        curl, s_client = client(mesh, name)
        refuses(mesh, "istio", "any", *curl, "-k", openssl=s_client)
    refuses(mesh, "istio", "any", "-k")


def passthrough(mesh):
    serves(mesh, "pass", "inner")
    assert "subject=CN = inner" in mesh.openssl("pass", "inner")
    refuses(mesh, "pass", "a")


def auto_passthrough(mesh):
    """By the names, and with the protocols, that sidecars offer to one another, to endpoints that take mutual TLS: nobody else gets through, so curl does not."""
    sni = "outbound_.443_._.member.test"
    for s_client in ("-tls1_2", "-tls1_3"):
        out = mesh.openssl("auto", sni, s_client, "-alpn", "istio", "-ign_eof", say=REQUEST.format("inner.test"))
        assert "200 OK" in out and "subject=CN = inner" in out and "Verify return code: 0" in out, out[-1500:]
    for name, alpn in (("outbound_.444_._.member.test", "istio"), ("outbound_.443_._.nobody.test", "istio"), ("outbound_.443_._.inner.test", "istio"), (sni, "http/1.1"), ("inner", "istio")):
        out = mesh.openssl("auto", name, "-alpn", alpn, "-ign_eof", say=REQUEST.format("inner.test"))
        assert "no peer certificate available" in out, f"{name} with {alpn}:\n{out}"
    refuses(mesh, "auto", "inner")


def versions(mesh):
    new, old = {"1.3": VERSIONS["1.3"]}, {"1.2": VERSIONS["1.2"]}
    serves(mesh, "newest", "a", versions=new)
    refuses(mesh, "newest", "a", versions=old, saying="alert protocol version")
    serves(mesh, "older", "a", versions=old)
    refuses(mesh, "older", "a", versions=new, saying="alert protocol version")
    for s_client in ("-tls1", "-tls1_1"):
        for port in ("simple", "newest", "older"):
            out = mesh.openssl(port, "a", s_client, "-cipher", "ALL:@SECLEVEL=0")
            assert "alert protocol version" in out or "alert handshake failure" in out, out


def cipher_suites(mesh):
    only = "ECDHE-RSA-AES256-GCM-SHA384"
    out = mesh.openssl("suite", "a", "-tls1_2")
    assert f"Cipher is {only}" in out, out
    for other in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305", "AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA"):
        out = mesh.openssl("suite", "a", "-tls1_2", "-cipher", f"{other}:@SECLEVEL=0")
        assert "handshake failure" in out, f"{other}:\n{out}"


def https_redirect(mesh):
    code, out, said = mesh.curl("plain", "a", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url} ", scheme="http")
    assert code == 0 and out.startswith("301 https://a.test"), f"{code} {out} {said}"


def what_tls_has_withdrawn_is_refused_by_name(mesh):
    """On maille; Envoy speaks what it is told to."""
    for tls, named in (({"minProtocolVersion": "TLSV1_0"}, "tls_minimum_protocol_version"), ({"maxProtocolVersion": "TLSV1_1"}, "tls_maximum_protocol_version"),
                       ({"maxProtocolVersion": "TLSV1_2", "cipherSuites": ["ECDHE-ECDSA-AES128-SHA"]}, "cipher_suites")):
        if mesh.proxy != "maille":
            return
        before = len(mesh.said())
        mesh.write("ancient", mesh.ancient(**tls))
        try:
            end = time.time() + 15
            while named not in mesh.said()[before:]:
                assert time.time() < end, f"{tls}: nothing says {named}:\n{mesh.said()[before:]}"
                time.sleep(0.2)
            is_(mesh.curl("simple", "a")[1].split()[-2], "200", "from the servers beside it")
        finally:
            (mesh.config / "ancient.yaml").unlink()
            time.sleep(1)


def tickets(mesh):
    """A session is taken up where it began, by either version, and nowhere else: not by another host, certificate or mode."""
    for s_client in ("-tls1_2", "-tls1_3"):
        with tempfile.TemporaryDirectory() as kept:
            session = f"{kept}/session"
            mesh.openssl("simple", "a", s_client, "-ign_eof", "-sess_out", session, say=REQUEST.format("a.test"))
            assert pathlib.Path(session).exists(), f"{s_client}: no ticket came"
            out = mesh.openssl("simple", "a", s_client, "-sess_in", session)
            assert "Reused, TLS" in out, f"{s_client}: not taken up where it began:\n{out[:1500]}"
            for port, host in (("simple", "b"), ("pair", "both"), ("newest", "a"), ("older", "a"), ("mutual", "a"), ("optional", "a"), ("files", "a"), ("istio", "any"), ("pass", "inner")):
                out = mesh.openssl(port, host, s_client, "-sess_in", session)
                assert "Reused, TLS" not in out, f"{s_client}: taken up by {host} on {port}:\n{out[:1500]}"


class Lasting(threading.Thread):
    """One connection that asks again and again while certificates change, and must not end."""

    def __init__(self, mesh, port, host):
        super().__init__(daemon=True)
        context = ssl.create_default_context(cafile=mesh.crt("ca"))
        self.stream = context.wrap_socket(socket.create_connection(("127.0.0.1", mesh.ports[port])), server_hostname=f"{host}.test")
        self.stream.settimeout(10)
        self.reader = self.stream.makefile("rb")
        self.host, self.going, self.answers, self.problem = host, True, 0, None
        self.start()

    def run(self):
        try:
            while self.going:
                self.stream.sendall(f"GET / HTTP/1.1\r\nhost: {self.host}.test\r\n\r\n".encode())
                head = b"".join(iter(self.reader.readline, b"\r\n"))
                assert head.startswith(b"HTTP/1.1 200") and b"connection: close" not in head.lower(), f"{head}"
                self.reader.read(int(re.search(rb"content-length: (\d+)", head.lower()).group(1)))
                self.answers += 1
                time.sleep(0.01)
        except Exception as e:
            self.problem = f"{type(e).__name__}: {e}"

    def end(self):
        self.going = False
        self.join(15)
        assert self.problem is None and self.answers > 10, f"the connection that was open: {self.problem} after {self.answers} answers"


def serial(mesh, port, host):
    out = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=mesh.openssl(port, host), capture_output=True, text=True)
    return out.stdout.strip()


def serial_of(path):
    return subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", path], capture_output=True, text=True, check=True).stdout.strip()


def certificates_change_live(mesh):
    """By Secret and by file: whoever comes sees the new one, whoever is there stays, nobody is refused in between."""
    for port, change in (("simple", lambda name: mesh.write("secrets", mesh.secrets(a=name))), ("files", mesh.live)):
        lasting, refused = Lasting(mesh, port, "a"), []
        try:
            for name in ("a2", "a", "a2"):
                change(name)
                end = time.time() + 20
                while serial(mesh, port, "a") != serial_of(mesh.crt(name)):
                    assert time.time() < end, f"{port}: still another certificate than {name} after 20 s"
                    code, out, said = mesh.curl(port, "a")
                    refused += [f"{code} {said}"] if code else []
            code, out, said = mesh.curl(port, "a")
            is_((code, refused), (0, []), said)
            time.sleep(0.5)
            lasting.end()
        finally:
            lasting.going = False
            change("a")
            end = time.time() + 20
            while serial(mesh, port, "a") != serial_of(mesh.crt("a")) and time.time() < end:
                time.sleep(0.2)


def what_the_ca_says_is_shown(mesh):
    """A Secret's tls.ocsp-staple goes to whoever asks for it, as long as it counts; one of another certificate changes nothing."""
    def shown(s_client):
        out = mesh.openssl("simple", "a", s_client, "-status")
        assert "Verify return code: 0" in out, out
        return "OCSP Response Status: successful" in out

    def until(wanted):
        end = time.time() + 20
        while [shown(v) for v in ("-tls1_2", "-tls1_3")] != [wanted] * 2:
            assert time.time() < end, f"after 20 s a staple is {'not ' * wanted}shown"
            time.sleep(0.2)

    try:
        assert not shown("-tls1_3")
        mesh.write("secrets", mesh.secrets(staple=mesh.staple("a", 1)))
        until(True)
        assert "OCSP response" not in mesh.openssl("simple", "a"), "nobody asked for it"
        mesh.write("secrets", mesh.secrets(a="b", staple=mesh.staple("a", 1)))
        time.sleep(2)
        until(True)
        is_(serial(mesh, "simple", "a"), serial_of(mesh.crt("a")), "the certificate before")
        mesh.write("secrets", mesh.secrets(staple=mesh.staple("a", -1)))
        until(False)
    finally:
        mesh.write("secrets", mesh.secrets())
        until(False)


CASES = {f.__name__.replace("_", " "): f for f in (simple, nobody_is_served_under_a_name_that_no_server_has, a_pair_of_keys, mutual, optional_mutual, istio_mutual, passthrough, auto_passthrough,
                                                  versions, cipher_suites, https_redirect, what_tls_has_withdrawn_is_refused_by_name, tickets, certificates_change_live,
                                                  what_the_ca_says_is_shown)}
