"""Every way to a workload that this machine offers is refused where a policy refuses it, for each kind of policy."""
import base64, concurrent.futures, http.server, json, subprocess, threading, time

import grpc

import matrix
from client import Client, ask
from mesh import NETWORKING, SECURITY, XDS, resource, service, until

HTTP, TCP = 7080, 7090
# Who is asked: by HTTP, by gRPC; and where nobody answers.
ASKED, ASKED_GRPC, NOBODY, NOBODY_GRPC = 7000, 7001, 7002, 7003
WEB, DB = 8080, 9000


class Held:
    """A connection that stays, and is used from time to time."""

    def __init__(self, mesh, client, place):
        self.conn = client.connect(place, mesh.dir)
        if not self.works():
            raise RuntimeError("a connection that should be let in was not")

    def works(self):
        try:
            self.conn.sendall(b"still there\n")
            return b"still there" in self.conn.recv(65536)
        except OSError:
            return False


class Authorizer(http.server.BaseHTTPRequestHandler):
    """Lets through what says the word."""

    def do_GET(self):
        self.send_response(200 if self.headers.get("x-word") == "please" else 403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class GrpcAuthorizer(grpc.GenericRpcHandler):
    """The same of requests; of connections it lets through the caller's. What it reads and writes are protobuf messages, as they are on the wire."""

    WORD, CALLER = b"\n\x06x-word\x12\x06please", b"spiffe://cluster.local/ns/test/sa/caller"
    HTTP = b"\n\x05:path"
    ALLOWED, DENIED = b"\n\x00", b"\n\x02\x08\x07"       # CheckResponse.status.code: OK, PERMISSION_DENIED

    def service(self, call):
        if call.method == "/envoy.service.auth.v3.Authorization/Check":
            return grpc.unary_unary_rpc_method_handler(self.check)

    def check(self, request, _):
        lets = self.WORD in request if self.HTTP in request else self.CALLER in request
        return self.ALLOWED if lets else self.DENIED


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Tokens of an issuer of its own."""

    def __init__(self, folder):
        self.key = folder / "jwt.key"
        subprocess.run(["openssl", "genrsa", "-out", str(self.key), "2048"], check=True, capture_output=True)
        out = subprocess.run(["openssl", "rsa", "-in", str(self.key), "-noout", "-modulus"], check=True, capture_output=True).stdout
        self.jwks = json.dumps({"keys": [{"kty": "RSA", "kid": "k", "alg": "RS256", "e": "AQAB", "n": b64(bytes.fromhex(out.decode().split("=")[1].strip()))}]})

    def token(self, **claims):
        text = f"{b64(json.dumps({'alg': 'RS256', 'kid': 'k'}).encode())}.{b64(json.dumps({'iss': 'issuer', 'sub': 'me', 'exp': int(time.time()) + 600, **claims}).encode())}"
        return f"{text}.{b64(subprocess.run(['openssl', 'dgst', '-sha256', '-sign', str(self.key)], input=text.encode(), check=True, capture_output=True).stdout)}"


def resources():
    yield service("web", [("http", 80)]) | {"spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": WEB}]}}
    yield service("db", [("tcp", DB)])
    yield resource(NETWORKING, "ServiceEntry", "authorizer", "test", {"hosts": ["authorizer.test.internal"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
                   "ports": [{"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol} for port, protocol in
                             ((ASKED, "HTTP"), (NOBODY, "HTTP"), (ASKED_GRPC, "GRPC"), (NOBODY_GRPC, "GRPC"))], "endpoints": [{"address": "127.0.0.1"}]})
    by_http = lambda name, port, **more: {"name": name, "envoyExtAuthzHttp": {"service": "authorizer.test.internal", "port": port, "includeRequestHeadersInCheck": ["x-word"], **more}}
    by_grpc = lambda name, port, **more: {"name": name, "envoyExtAuthzGrpc": {"service": "authorizer.test.internal", "port": port, **more}}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": json.dumps({"extensionProviders": [
        by_http("asker", ASKED), by_http("nobody", NOBODY), by_http("nobody-but-open", NOBODY, failOpen=True),
        by_grpc("grpc-asker", ASKED_GRPC), by_grpc("grpc-nobody", NOBODY_GRPC), by_grpc("grpc-nobody-but-open", NOBODY_GRPC, failOpen=True)]})}}
    servers = [{"port": {"number": HTTP, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}, {"port": {"number": TCP, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}]
    yield resource(NETWORKING, "Gateway", "edge", "test", {"selector": {"istio": "ingressgateway"}, "servers": servers})
    yield resource(NETWORKING, "VirtualService", "edge", "test", {"hosts": ["*"], "gateways": ["edge"], "http": [{"route": [{"destination": {"host": "web", "port": {"number": 80}}}]}],
                   "tcp": [{"match": [{"port": TCP}], "route": [{"destination": {"host": "db", "port": {"number": DB}}}]}]})


def policy(action, rules, app, **more):
    return resource(SECURITY, "AuthorizationPolicy", "policy", "test", {"selector": {"matchLabels": {"app": app}}, "action": action, "rules": rules, **more})


CALLER = {"from": [{"source": {"principals": ["cluster.local/ns/test/sa/caller"]}}]}
STRICT = resource(SECURITY, "PeerAuthentication", "default", "test", {"mtls": {"mode": "STRICT"}})


class Ways:
    """Every way to the two workloads: what is asked by it, and what came back: a status, `bytes` for an echo, or `-`."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.web, self.db, self.out = mesh.place("web"), mesh.place("db"), (mesh.place("caller"), 15080)
        # The same address under a name that says nothing of a sidecar there.
        alias = {"hosts": ["alias.test.internal"], "resolution": "STATIC", "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": WEB}], "endpoints": [{"address": self.web}]}
        mesh.write("alias", [resource(NETWORKING, "ServiceEntry", "alias", "test", alias)])
        mtls, tcp = matrix.mtls, lambda **more: matrix.mtls("istio", says="bytes", **more)
        self.http = {
            "service's name, through the caller's sidecar": (Client(), self.out, "http://web.test{path}"),
            "endpoint's address, through the caller's sidecar": (Client(), self.out, "http://alias.test.internal{path}"),
            "sidecar's port, plain HTTP/1": (Client(), (self.web, WEB), None),
            "sidecar's port, plain HTTP/2": (Client("http2"), (self.web, WEB), None),
            "sidecar's port, mTLS as the caller": (mtls("istio-http/1.1"), (self.web, WEB), None),
            "sidecar's port, mTLS as the caller, HTTP/2": (mtls("istio-h2", says="http2"), (self.web, WEB), None),
            "sidecar's port, mTLS as the caller, ALPN istio": (mtls("istio"), (self.web, WEB), None),
            "sidecar's port, mTLS as another": (mtls("istio-http/1.1", certificate="other"), (self.web, WEB), None),
            "sidecar's port, TLS without a certificate": (Client(tls={}), (self.web, WEB), None),
            "gateway": (Client(), ("127.0.0.1", HTTP), None),
            "gateway, HTTP/2": (Client("http2"), ("127.0.0.1", HTTP), None),
        }
        self.tcp = {
            "sidecar's port, plain": (Client("bytes"), (self.db, DB)),
            "sidecar's port, mTLS as the caller": (tcp(), (self.db, DB)),
            "sidecar's port, mTLS as another": (tcp(certificate="other"), (self.db, DB)),
            "sidecar's port, mTLS as the caller, no ALPN": (matrix.mtls(says="bytes"), (self.db, DB)),
            "gateway": (Client("bytes"), ("127.0.0.1", TCP)),
        }

    def open(self, way, path="/", headers=()):
        """Whether a request reaches the application by this way."""
        client, place, target = self.http[way]
        word, answer = reach(self.mesh, client, place, target.format(path=path) if target else path, "web.test" if target is None else target.split("/")[2], headers)
        return word

    def passes(self, way):
        client, place = self.tcp[way]
        word, _, _ = ask(client, place, self.mesh.dir)
        return word != "-"


def reach(mesh, client, place, target, host, headers):
    """Whether the application, and nobody else, answered."""
    from client import exchange
    import ssl, h2.exceptions
    try:
        with client.connect(place, mesh.dir) as conn:
            answer = exchange(conn, client.says, target, host, headers)
    except (OSError, ssl.SSLError, h2.exceptions.ProtocolError):
        answer = None
    return answer is not None and answer.get("app") == "web", answer


PLAIN = ("endpoint's address", "plain", "without a certificate")


def run(mesh, problems):
    http.server.ThreadingHTTPServer.daemon_threads = True
    authorizer = http.server.ThreadingHTTPServer(("127.0.0.1", ASKED), Authorizer)
    threading.Thread(target=authorizer.serve_forever, daemon=True).start()
    grpc_authorizer = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[GrpcAuthorizer()])
    grpc_authorizer.add_insecure_port(f"127.0.0.1:{ASKED_GRPC}")
    grpc_authorizer.start()
    issuer = Issuer(mesh.dir)
    ways, asked = Ways(mesh), 0

    def phase(title, policies, allowed, refused):
        """`allowed` and `refused` are questions with their names."""
        nonlocal asked
        mesh.write("policy", policies)
        questions = [(want, what, question) for want, listed in ((True, allowed), (False, refused)) for what, question in listed]

        def wrong(questions):
            return [(want, what, question) for want, what, question in questions if question() != want]
        # A connection that others keep open may serve one more request by the policy it began with, so what is wrong at first is asked
        # again for a while; then everything must hold at once.
        left = wrong(questions)
        end = time.time() + 15
        while left and time.time() < end:
            time.sleep(0.2)
            left = wrong(left)
        left = left or wrong(questions)
        asked += len(questions)
        problems.extend(f"{title}: {what}: {'refused' if want else 'let through'}" for want, what, _ in left)
        mesh.alive()

    def web(select, path="/", headers=()):
        return [(f"{way}, {path}", lambda way=way: ways.open(way, path, headers)) for way in ways.http if select(way)]

    def db(select):
        return [(way, lambda way=way: ways.passes(way)) for way in ways.tcp if select(way)]

    everything = lambda way: "without a certificate" not in way
    plain = lambda way: any(word in way for word in PLAIN)
    of_caller = lambda way: "as the caller" in way or "service's name" in way

    def judge():                                           # in each phase: what is let through, what is refused
        phase("no policy", [], web(everything) + db(everything), [])
        phase("PeerAuthentication STRICT", [STRICT], web(lambda w: not plain(w)) + db(lambda w: "plain" not in w), web(plain) + db(lambda w: "plain" in w))
        spellings = ["/admin", "/admin/x", "/x/../admin", "/./admin", "/%61dmin", "/admin?x=1", "/ok/%2e%2e/admin"]
        phase("DENY by path", [policy("DENY", [{"to": [{"operation": {"paths": ["/admin*"]}}]}], "web")], web(everything, "/ok"),
              [q for path in spellings for q in web(everything, path)])
        phase("DENY of everything", [policy("DENY", [{}], "web")], db(everything), web(lambda w: True))
        phase("ALLOW of one caller", [policy("ALLOW", [CALLER], "web")], web(of_caller) + db(everything), web(lambda w: not of_caller(w)))
        phase("ALLOW of nothing", [policy("ALLOW", [], "web")], db(everything), web(lambda w: True))
        word, port = [("x-word", "please")], [{"to": [{"operation": {"ports": [str(DB)]}}]}]
        as_caller = lambda way: "as the caller" in way and "no ALPN" not in way
        for kind in ("", "grpc-"):
            custom = lambda who: policy("CUSTOM", [{"to": [{"operation": {"paths": ["/ask*"]}}]}], "web", provider={"name": kind + who})
            phase(f"CUSTOM, {kind}asker", [custom("asker")], web(everything, "/ok") + web(everything, "/ask", word), web(everything, "/ask"))
            phase(f"CUSTOM, {kind}nobody", [custom("nobody")], web(everything, "/ok"), web(everything, "/ask", word))
            phase(f"CUSTOM, {kind}nobody-but-open", [custom("nobody-but-open")], web(everything, "/ask"), [])
        custom = lambda who: policy("CUSTOM", port, "db", provider={"name": who})
        phase("TCP CUSTOM, grpc-asker", [custom("grpc-asker")], web(everything) + db(as_caller), db(lambda w: not as_caller(w)))
        phase("TCP CUSTOM, grpc-nobody", [custom("grpc-nobody")], [], db(everything))
        phase("TCP CUSTOM, grpc-nobody-but-open", [custom("grpc-nobody-but-open")], db(everything), [])
        tokens = resource(SECURITY, "RequestAuthentication", "tokens", "test", {"selector": {"matchLabels": {"app": "web"}}, "jwtRules": [{"issuer": "issuer", "jwks": issuer.jwks}]})
        must = policy("DENY", [{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}], "web")
        bearer = lambda token: [("authorization", f"Bearer {token}")]
        good, other, old = issuer.token(), issuer.token(iss="other"), issuer.token(exp=int(time.time()) - 600)
        phase("RequestAuthentication, and a token required", [tokens, must], web(everything, "/", bearer(good)),
              web(everything) + web(everything, "/", bearer(old)) + web(everything, "/", bearer(other)) + web(everything, "/", bearer(good[:-6] + "AAAAAA")))
        phase("TCP DENY by port", [policy("DENY", port, "db")], web(everything), db(everything))
        phase("TCP ALLOW of one caller", [policy("ALLOW", [CALLER], "db")], db(as_caller), db(lambda w: not as_caller(w)))
        phase("TCP DENY of one caller", [policy("DENY", [CALLER], "db")], db(lambda w: "as the caller" not in w), db(as_caller))

    try:
        judge()
    finally:
        authorizer.shutdown()
        authorizer.server_close()
        grpc_authorizer.stop(None)
    return asked


def run_standing(mesh, problems):
    """Connections that are there when a policy comes."""
    places = Ways(mesh).tcp
    until(lambda: all(ask(client, place, mesh.dir)[0] != "-" for client, place in places.values()), "way to the application")
    held = {way: Held(mesh, client, place) for way, (client, place) in places.items()}

    def phase(title, policies, gone):
        mesh.write("policy", policies)
        end = time.time() + 15
        while any(held[way].works() for way in gone) and time.time() < end:
            time.sleep(0.2)
        # What Envoy replaces it drains, whoever is connected; maille ends what is refused.
        kept = [way for way in held if way not in gone] if mesh.proxy == "maille" else []
        problems.extend(f"{title}: {way}: still there" for way in gone if held[way].works())
        problems.extend(f"{title}: {way}: ended" for way in kept if not held[way].works())
        for way in gone:
            del held[way]

    unlike = policy("DENY", [{"from": [{"source": {"principals": ["cluster.local/ns/test/sa/nobody"]}}]}], "db")
    phase("a policy about somebody else", [unlike], [])
    time.sleep(2)
    phase("DENY of one caller", [policy("DENY", [CALLER], "db")], ["sidecar's port, mTLS as the caller"])
    if mesh.proxy == "maille":
        phase("ALLOW of what has a name", [policy("ALLOW", [{"from": [{"source": {"principals": ["*"]}}]}], "db")], ["sidecar's port, plain", "sidecar's port, mTLS as the caller, no ALPN"])
    phase("DENY of everything", [policy("DENY", [{}], "db")], list(held))
