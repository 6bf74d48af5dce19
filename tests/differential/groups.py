"""What is asked: each group makes configurations from a seed, and the requests that each of them gets."""
import base64, dataclasses, json

API = "networking.istio.io/v1"


@dataclasses.dataclass
class Pair:
    """One (configuration, request): what is sent, and what the upstreams do when it reaches them."""

    name: str
    send: dict
    script: list
    upstream: str                                         # the upstream service's protocol, as configured


class Book:
    """Configurations and pairs as they come. Every configuration owns its host, service and upstream subset."""

    def __init__(self, rng, ports, dead):
        self.rng, self.ports, self.dead = rng, ports, dead
        self.docs, self.pairs, self.group, self.count, self.gates, self.providers = [], [], "", 0, [], []
        self.upstream = ""

    def doc(self, kind, name, spec, namespace="diff", **more):
        self.docs.append({"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec, **more})

    def service(self, servers, protocol="HTTP", host=None):
        """A service of its own on some of the upstreams (`dead` is a port where nobody listens)."""
        host = host or f"s{self.count}-{self.group}.example"
        self.upstream = protocol
        name = {"HTTP": "http", "HTTP2": "http2", "GRPC": "grpc", "TCP": "tcp", "TLS": "tls"}[protocol]
        endpoints = [{"address": "127.0.0.1", "ports": {name: self.dead if s == "dead" else self.ports[s]}} for s in servers]
        self.doc("ServiceEntry", host.replace(".", "-"), {"hosts": [host], "location": "MESH_INTERNAL", "resolution": "STATIC",
                                                          "ports": [{"number": 80, "name": name, "protocol": protocol}], "endpoints": endpoints})
        return host

    def config(self, *, servers=("a",), protocol="HTTP", policy=None, route=None, routes=None, mesh=False):
        """A host on the HTTP gateway with a route to a service of its own; its name. `mesh`: the service itself, as sidecars see it."""
        self.count += 1
        service = self.service(servers, protocol)
        host = service if mesh else f"{self.group}{self.count}.example"
        if policy:
            self.upstream = "chosen" if {"h2UpgradePolicy", "useClientProtocol"} & policy.get("connectionPool", {}).get("http", {}).keys() else protocol
            self.doc("DestinationRule", f"{self.group}-{self.count}", {"host": service, "trafficPolicy": policy})
        to = [{"destination": {"host": service}}]
        http = [{**r, "route": to} if not {"route", "redirect", "directResponse"} & r.keys() else r for r in routes or [route or {}]]
        http = json.loads(json.dumps(http).replace("@service@", service))
        self.doc("VirtualService", f"{self.group}-{self.count}", {"hosts": [host], "gateways": ["mesh" if mesh else "edge"], "http": http})
        return host

    def ask(self, host, script=None, **send):
        n = sum(p.name.startswith(f"{self.group}-{self.count}.") for p in self.pairs)
        self.pairs.append(Pair(f"{self.group}-{self.count}.{n}", {"host": host, **send}, script or [{}], self.upstream))

    def pick(self, *choices):
        return self.rng.choice(choices)


# -- the groups -----------------------------------------------------------------------------------------------------

RETRY_ON = ["5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes", "503,418",
            "envoy-ratelimited", "5xx,retriable-4xx", "gateway-error,connect-failure,refused-stream", "reset,404", "cancelled", "unavailable",
            "retriable-headers", "deadline-exceeded,internal", "resource-exhausted,503"]
FAILURES = [{"status": 503}, {"status": 500}, {"status": 502}, {"status": 504}, {"status": 409}, {"status": 418}, {"status": 404}, {"status": 429},
            {"break": "before"}, {"break": "before", "code": "FIN"}, {"break": "after-headers"}, {"status": 503, "headers": [("x-envoy-ratelimited", "true")]},
            {"status": 429, "headers": [("x-envoy-ratelimited", "true")]}, {"delay": 1.2}, {"status": 503, "body": 70000, "chunked": True}, {"break": "mid-body"}]
RESETS = ["REFUSED_STREAM", "CANCEL", "INTERNAL_ERROR", "NO_ERROR", "PROTOCOL_ERROR", "ENHANCE_YOUR_CALM", "GOAWAY"]


def retries(b):
    for on in [None, *RETRY_ON]:
        retry = {"attempts": b.pick(1, 2, 3), "backoff": "2ms"}
        if on:
            retry["retryOn"] = on
        timed = b.rng.random() < 0.4
        if timed:
            retry["perTryTimeout"] = "0.3s"
        protocol = b.pick("HTTP", "HTTP", "HTTP2")
        route = {"retries": retry} if on or b.rng.random() < 0.7 else {}
        host = b.config(protocol=protocol, route=route)
        for _ in range(5):
            failure = dict(b.rng.choice([f for f in FAILURES if timed or "delay" not in f]))
            if protocol == "HTTP2" and failure.get("break"):
                failure["code"] = b.rng.choice(RESETS)
            script = [failure] * b.pick(1, 1, 2, 4) + [{}]
            b.ask(host, script, method=b.pick("GET", "POST", "PUT"), body=b.pick(0, 0, 10, 20000), chunked=b.rng.random() < 0.3)
    for attempts, servers in ((0, ["a"]), (2, ["dead"]), (0, ["dead"]), (3, ["dead", "dead"])):
        host = b.config(servers=servers, route={"retries": {"attempts": attempts, **({"retryOn": "connect-failure,5xx"} if attempts else {})}})
        b.ask(host, [{"status": 503}, {}])
        b.ask(host, [{"break": "before"}, {}], method="POST", body=100)
    for _ in range(3):                                   # headers by which clients steer retries; an edge does not take them
        host = b.config(route={"retries": {"attempts": 1, "retryOn": "gateway-error"}})
        b.ask(host, [b.pick({"status": 500}, {"status": 409}), {}], headers=[("x-envoy-retry-on", "5xx,retriable-4xx"), ("x-envoy-max-retries", "3")])
        b.ask(host, [{"status": 503}] * 3 + [{}], headers=[("x-envoy-max-retries", "3")])
        b.ask(host, [{"status": 401}, {}], headers=[("x-envoy-retry-on", "retriable-status-codes"), ("x-envoy-retriable-status-codes", "401")])


def timeouts(b):
    for protocol in ("HTTP", "HTTP2"):
        host = b.config(protocol=protocol, route={"timeout": "0.4s", "retries": {"attempts": 0}})
        b.ask(host, [{"delay": 1.5}])
        b.ask(host, [{"delay": 1.5}], protocol="h2", method="POST", body=1000)
        b.ask(host, [{"break": "mid-body", "body": 5000}])
        b.ask(host, [{"delay": 0.05}], method="POST", body=5)
        host = b.config(protocol=protocol, route={"timeout": "0.75s", "retries": {"attempts": 4, "perTryTimeout": "0.3s", "retryOn": "5xx", "backoff": "2ms"}})
        b.ask(host, [{"delay": 1.5}, {}])
        b.ask(host, [{"delay": 1.5}])
        b.ask(host, [{"delay": 1.5}], headers=[("x-envoy-upstream-rq-timeout-ms", "200")])
        host = b.config(protocol=protocol, route={"retries": {"attempts": 0}})
        b.ask(host, [{"delay": 1.0}], headers=[("x-envoy-upstream-rq-timeout-ms", "200"), ("x-envoy-expected-rq-timeout-ms", "100")])
        b.ask(host, [{"delay": 0.6}])
        b.ask(host, [{"delay": 1.0}], headers=[("x-envoy-upstream-stream-duration-ms", "300")])
        b.ask(host, [{}], headers=[("x-envoy-upstream-stream-duration-ms", b.pick("bad", "0", "-1", "5000")), ("x-envoy-upstream-alt-stat-name", "a")])


def hashing(b):
    names = ["a", "b", "c", "d", "e"]
    keys = [f"user-{b.rng.randrange(10**6)}" for _ in range(6)]
    for kind in ("ringHash", "maglev", None):
        hows = {"header": {"httpHeaderName": "x-user"}, "cookie": {"httpCookie": {"name": "who", "ttl": "0s"}}, "source": {"useSourceIp": True},
                "query": {"httpQueryParameterName": "user"}}
        for how, key in hows.items():
            policy = dict(key)
            if kind == "ringHash":
                policy["ringHash"] = {"minimumRingSize": b.pick(64, 1024, 2000)}
            elif kind:
                policy["maglev"] = {"tableSize": b.pick(101, 1009, 65537)}
            servers = b.rng.sample(names, b.pick(3, 4, 5))
            host = b.config(servers=servers, protocol=b.pick("HTTP", "HTTP", "HTTP2"), policy={"loadBalancer": {"consistentHash": policy}})
            for k in keys[:4]:
                send = {"header": {"headers": [("X-User", k)]}, "cookie": {"headers": [("Cookie", f"a=b; who={k}; z=1")]},
                        "source": {"source": f"127.0.0.{b.rng.randrange(2, 250)}"}, "query": {"path": f"/?a=1&user={k}&b=2"}}[how]
                b.ask(host, **send)
            if how == "header":
                b.ask(host, headers=[("X-User", keys[0]), ("x-user", keys[1])])
    for cookie in ({"name": "made", "ttl": "60s"}, {"name": "made", "ttl": "0s", "path": "/p"}, {"name": "made", "ttl": "3600s", "path": "/x"}):
        host = b.config(servers=["a"], policy={"loadBalancer": {"consistentHash": {"httpCookie": cookie}}})
        b.ask(host)
        b.ask(host, protocol="h2", headers=[("cookie", "made=mine")])


def protocols(b):
    """HTTP/1 and HTTP/2, from clients and to upstreams, in each of the four pairs."""
    upstreams = [("HTTP", None), ("HTTP2", None), ("HTTP", {"connectionPool": {"http": {"h2UpgradePolicy": "UPGRADE"}}}),
                 ("HTTP", {"connectionPool": {"http": {"useClientProtocol": True}}})]
    for protocol, policy in upstreams:
        b_host = b.config(protocol=protocol, policy=policy, route={"retries": {"attempts": 0}})
        for client in ("h1", "h2"):
            def ask(script=None, **send):
                b.ask(b_host, [script or {}], protocol=client, **send)
            ask()
            ask({"headers": [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-many", "1"), ("x-many", "2"), ("server", "mine"), ("X-UPPER" if protocol == "HTTP" and not policy else "x-upper", "Case")]},
                headers=[("cookie", "a=1"), ("cookie", "b=2"), ("x-twice", "1"), ("x-twice", "2"), ("accept", "*/*"), ("user-agent", "diff")])
            ask(method="POST", body=b.pick(1, 100, 16384))
            ask({"body": b.pick(65535, 65536, 200000)}, method="POST", body=b.pick(65535, 65536, 300000), length=True)
            ask({"body": 1000000}, method="PUT", body=1200000, chunked=True)
            ask({"status": 204}); ask({"status": 304, "headers": [("etag", '"x"')]})
            ask({"headers": [("x-a", "b")], "body": 100}, method="HEAD")
            ask(method="OPTIONS", path="/a/b?c=d%20e"); ask(method="DELETE", path="/%7Euser/../x//y?z")
            ask({"status": b.pick(400, 401, 403, 404, 405, 413, 429, 500, 501, 599), "body": "no"}, method="PATCH", body="x")
            ask({"body": "with trailers", "trailers": [("x-sum", "1"), ("grpc-status", "0")]}, headers=[("te", "trailers")])
            ask(method="POST", body=5000, trailers=[("X-Check", "sum")], headers=[("trailer", "x-check")])
            ask({"chunked": True, "body": 30000}); ask({"body": 0})
            ask({"interim": [b.pick(102, 103, 104)]}); ask({"interim": [100, 103]}, method="POST", body="abc")
            ask({"interim": [103], "break": "after-interim"})
            ask({"early": True, "status": 200}, method="POST", body=b.pick(100, 40000))
            ask({"early": True, "status": 200}, method="POST", body=b.pick(100, 40000), unfinished=True)
            for how in ("before", "after-headers", "mid-body"):
                ask({"break": how, "body": 4000, "code": b.rng.choice(RESETS[:6])}, method=b.pick("GET", "POST"))
            ask({"delay": 1}, cancel="whole", method="POST", body=100)
            ask({}, cancel="mid-body", method="POST", body=60000)
            ask(headers=[("x-big", "v" * b.pick(4000, 16000))])
            ask(headers=[("connection", "keep-alive, x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5"), ("proxy-connection", "keep-alive")] if client == "h1" else [("te", "trailers")])
            ask(headers=[("expect", "100-continue")], method="POST", body="later")
            ask({"headers": [("content-length", "3")], "status": 200, "body": "abc"} if protocol == "HTTP2" else {"close": "until", "body": "until the end"})
            ask(headers=[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-request-id", "mine"), ("x-envoy-internal", "true"), ("forwarded", "for=1.1.1.1")])
            ask(headers=[("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"), ("x-b3-spanid", "a2fb4a1d1a96d312"), ("x-b3-sampled", "1"), ("grpc-timeout", "1S")])


def message(text):
    return b"\0" + len(text).to_bytes(4, "big") + text.encode()


def grpc(b):
    def call(host, script=None, **send):
        more = send.pop("headers", [])
        headers = [*([] if "content-type" in dict(more) else [("content-type", "application/grpc")]), ("te", "trailers"), *more]
        b.ask(host, script, **{"protocol": "h2", "method": "POST", "path": "/pkg.Service/Method", "headers": headers, "body": message("hello"), **send})

    def said(status, note=None, body=None, only=False):
        end = [("grpc-status", str(status)), *([("grpc-message", note)] if note else [])]
        head = [("content-type", "application/grpc")]
        return {"trailers-only": True, "headers": head + end} if only else {"headers": head, "body": message(body or "world").decode("latin1"), "trailers": end}

    host = b.config(protocol="GRPC", route={"retries": {"attempts": 0}})
    for status in (0, 1, 2, 3, 4, 5, 7, 8, 13, 14, 16):
        call(host, [said(status, b.pick(None, "a note", "%E4 x"), only=status and b.rng.random() < 0.6)])
    for status in (200, 400, 401, 403, 404, 429, 500, 502, 503, 504):
        call(host, [{"status": status, "body": "plain"}])
    for how in ("before", "after-headers", "mid-body"):
        for reset in b.rng.sample(RESETS[:6], 2):
            call(host, [{**said(0, body="x" * 500), "break": how, "code": reset}])
    call(host, [{"delay": 1.5}], headers=[("grpc-timeout", "200m")])
    call(host, [{"delay": 0.3}], headers=[("grpc-timeout", "5S")])
    call(host, [{"delay": 1.5}], headers=[("grpc-timeout", "bad")], cancel="whole")
    call(host, [said(0)], body=message("x" * 200000))
    call(host, [said(0, body="y" * 300000)])
    for on in ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable", "unavailable,cancelled", None):
        host = b.config(protocol="GRPC", route={"retries": {"attempts": 2, "retryOn": on, "backoff": "2ms"}} if on else {})
        for status in b.rng.sample([1, 4, 8, 13, 14], 3):
            call(host, [said(status, only=b.rng.random() < 0.7), said(0)])
        call(host, [{"status": b.pick(503, 500)}, said(0)])
    host = b.config(protocol="GRPC", route={"timeout": "0.3s", "retries": {"attempts": 0}})
    call(host, [{"delay": 1.5}])
    call(host, [{"delay": 1.5}], headers=[("grpc-timeout", "100m")])
    call(host, [{"delay": 1.5}], headers=[("content-type", "application/grpc+proto")])
    call(b.config(servers=["dead"], protocol="GRPC", route={"retries": {"attempts": 0}}))
    call(b.config(servers=[], protocol="GRPC"))
    call("nobody.example")
    for fault in ({"abort": {"httpStatus": b.pick(400, 403, 503, 418), "percentage": {"value": 100}}}, {"abort": {"grpcStatus": b.pick("UNAVAILABLE", "NOT_FOUND"), "percentage": {"value": 100}}}):
        call(b.config(protocol="GRPC", route={"fault": fault}))
    call(b.config(protocol="GRPC", route={"directResponse": {"status": 403, "body": {"string": "denied"}}}))
    call(b.config(protocol="GRPC", route={"redirect": {"uri": "/other"}}))
    call(b.config(protocol="HTTP", route={"retries": {"attempts": 0}}), [{"status": 200, "body": "as http/1"}])


def faults(b):
    always = {"percentage": {"value": 100}}
    for fault in ({"abort": {"httpStatus": b.pick(400, 429, 500, 555), **always}}, {"delay": {"fixedDelay": "0.1s", **always}}, {"abort": {"grpcStatus": "UNAVAILABLE", **always}},
                  {"abort": {"httpStatus": 503, **always}, "delay": {"fixedDelay": "0.05s", **always}}, {"abort": {"httpStatus": 503, "percentage": {"value": 0}}}):
        host = b.config(routes=[{"match": [{"headers": {"x-fault": {"exact": "yes"}}}], "fault": fault, "headers": {"response": {"add": {"x-fault": "1"}}}}, {}])
        for client in ("h1", "h2"):
            b.ask(host, protocol=client, headers=[("x-fault", "yes")], method=b.pick("GET", "POST"), body=b.pick(0, 50))
            b.ask(host, protocol=client, headers=[("x-fault", "yes")], method="POST", body=b.pick(50, 30000), chunked=b.pick(True, False), unfinished=b.pick(True, False))
        b.ask(host, headers=[("x-fault", "no"), ("x-envoy-fault-abort-request", "418"), ("x-envoy-fault-delay-request", "100")])
        b.ask(host, method="HEAD", headers=[("x-fault", "yes")])


def mirrors(b):
    for percentage, protocol in ((100, "HTTP"), (100, "HTTP2"), (0, "HTTP"), (None, "HTTP")):
        b.count += 1
        shadow = b.service([b.pick("b", "c")], b.pick("HTTP", "HTTP2"), host=f"shadow{b.count}.example")
        route = {"mirror": {"host": shadow}, "retries": {"attempts": 1, "retryOn": "5xx", "backoff": "2ms"}}
        if percentage is not None:
            route["mirrorPercentage"] = {"value": percentage}
        host = b.config(protocol=protocol, route=route)
        for client in ("h1", "h2"):
            b.ask(host, protocol=client, path="/m?x=1")
            b.ask(host, protocol=client, method="POST", body=b.pick(10, 30000), headers=[("x-y", "z")], chunked=True)
        b.ask(host, [{"status": 503}, {}])
        b.ask(host, method=b.pick("GET", "PUT"), chunked=True)
        b.ask(host, method="PUT", body=b.pick(0, 100000))
    b.count += 1
    first, second = b.service(["b"], host=f"shadow{b.count}b.example"), b.service(["dead"], host=f"shadow{b.count}d.example")
    host = b.config(route={"mirrors": [{"destination": {"host": first}, "percentage": {"value": 100}}, {"destination": {"host": second}, "percentage": {"value": 100}}]})
    b.ask(host); b.ask(host, method="POST", body="copied")


def cors(b):
    policies = [{"allowOrigins": [{"exact": "https://a.test"}], "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-one", "x-two"], "exposeHeaders": ["x-seen"], "maxAge": "90s", "allowCredentials": True},
                {"allowOrigins": [{"prefix": "https://a."}, {"regex": "https://[bc]\\.test"}]}, {"allowOrigins": [{"exact": "*"}], "allowMethods": ["*"]},
                {"allowOrigins": [{"exact": "https://a.test"}], "unmatchedPreflights": "IGNORE"}, {"allowOrigins": [{"exact": "https://a.test"}], "unmatchedPreflights": "FORWARD"}]
    for policy in policies:
        host = b.config(route={"corsPolicy": policy})
        for origin in ("https://a.test", b.pick("https://b.test", "https://a.test.evil", "null", "HTTPS://A.TEST")):
            b.ask(host, protocol=b.pick("h1", "h2"), headers=[("origin", origin)])
            b.ask(host, protocol=b.pick("h1", "h2"), method="OPTIONS", headers=[("origin", origin), ("access-control-request-method", b.pick("PUT", "TRACE")), ("access-control-request-headers", "x-one")])
        b.ask(host, [{"headers": [("access-control-allow-origin", "https://theirs.test")]}], headers=[("origin", "https://a.test")])
        b.ask(host, method="OPTIONS", headers=[("access-control-request-method", "GET")])
        b.ask(host, method="OPTIONS", headers=[("origin", "https://a.test")])


def headers(b):
    formats = ["%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%REQ(x-in)%", "%PROTOCOL%", "plain %% sign", "%REQ(:path)%-%REQ(:method)%", "%REQ(missing?x-in)%", "%RESPONSE_CODE%",
               "%UPSTREAM_CLUSTER%", "%ROUTE_NAME%", "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%RESP(x-server)%", "%RESPONSE_FLAGS%"]
    names = ["x-in", "X-Set", "x-out", "user-agent", "accept"]
    for _ in range(8):
        def ops(side):
            return {"set": {b.rng.choice(names): b.rng.choice(formats)}, "add": {b.rng.choice(names): b.rng.choice(formats), "x-added": b.pick("1", "a,b", "")},
                    "remove": b.rng.sample(["x-in", "x-gone", "x-server", "accept"], 2)}
        route = {"headers": {"request": ops(0), "response": ops(1)}, "route": [{"destination": {"host": "@service@"}, "headers": {"request": ops(0), "response": ops(1)}}]}
        host = b.config(route=route, protocol=b.pick("HTTP", "HTTP2"))
        for client in ("h1", "h2"):
            b.ask(host, [{"headers": [("x-gone", "1"), ("x-in", "from server"), ("x-out", "o")]}], protocol=client, path="/p/q?r=s", headers=[("x-in", "abcdef"), ("x-gone", "here"), ("accept", "a"), ("accept", "b")])
        b.ask(host, [{"status": b.pick(404, 503, 204)}])
    host = b.config()
    for client in ("h1", "h2"):                           # headers of which Envoy keeps one, sent twice
        for name in ("content-type", "accept", "user-agent", "x-forwarded-for", "x-forwarded-proto", "via", "authorization", "cache-control", "x-own"):
            b.ask(host, protocol=client, headers=[(name, "one"), (name, "two")])
    rewrites = [{"uri": "/new"}, {"authority": "else.example"}, {"uri": "/new/", "authority": "x.example:81"}, {"uriRegexRewrite": {"match": "^/a/([^/]+)/(.*)$", "rewrite": "/\\2/of/\\1"}}]
    for rewrite in rewrites:
        host = b.config(routes=[{"match": [{"uri": {"prefix": "/a"}}], "rewrite": rewrite}, {}])
        for path in ("/a/b/c?q=1", b.pick("/a", "/abc", "/a//b")):
            b.ask(host, path=path, protocol=b.pick("h1", "h2"))
    for redirect in ({"uri": "/moved", "redirectCode": 308}, {"authority": "other.example"}, {"scheme": "https"}, {"scheme": "https", "port": 8443}, {"derivePort": "FROM_REQUEST_PORT", "authority": "x.example"}):
        host = b.config(routes=[{"match": [{"uri": {"prefix": "/r"}}], "redirect": redirect}, {}])
        b.ask(host, path="/r/a?b=c", protocol=b.pick("h1", "h2"))
    for body in ("hello", ""):
        host = b.config(route={"directResponse": {"status": b.pick(200, 404, 503), "body": {"string": body}}, "headers": {"response": {"set": {"x-direct": "1"}}}})
        b.ask(host); b.ask(host, method="HEAD"); b.ask(host, protocol="h2", method="POST", body=70000)
        for client in ("h1", "h2"):
            b.ask(host, protocol=client, method="POST", body=b.pick(10, 70000), unfinished=True)
    host = b.config(route={"headers": {"request": {"set": {":authority": "set.example", "x-proto": "%REQ(X-FORWARDED-PROTO)%"}}}})
    b.ask(host); b.ask(host, protocol="h2")


def websocket(b):
    for protocol, policy in (("HTTP", None), ("HTTP2", None), ("HTTP", {"connectionPool": {"http": {"useClientProtocol": True}}})):
        host = b.config(protocol=protocol, policy=policy, route={"timeout": "1s", "retries": {"attempts": 1, "retryOn": "5xx,reset"}, "headers": {"response": {"add": {"x-way": "1"}}}})
        if protocol == "HTTP":
            for spelled in ("upgrade", "UPGRADE"):
                b.ask(host, [{"upgrade": [("upgrade", "WebSocket"), ("connection", b.pick("upgrade", "UpGrade"))]}], protocol="upgrade", connection=spelled)
            b.ask(host, protocol="upgrade")
            b.ask(host, protocol="upgrade", lines=["x" * 30000, "two", "bye"], path="/chat?room=1", headers=[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13")])
            b.ask(host, protocol="upgrade", early=["first"])
            b.ask(host, protocol="upgrade", lines=["one", "EOF"])                # the client leaves first
        for status in (200, b.pick(204, 302), 403, b.pick(426, 503)):
            b.ask(host, [{"status": status, "body": "no upgrade", "headers": [("content-type", "text/x")]}], protocol="upgrade")
        b.ask(host, [{"status": b.pick(200, 400, 426), "body": "no upgrade", "headers": [("upgrade", "websocket"), ("connection", "upgrade")]}], protocol="upgrade")
        b.ask(host, [{"status": 426, "headers": [("upgrade", "websocket"), ("connection", "upgrade")]}])
        b.ask(host, [{"status": 404}], protocol="upgrade", upgrade=b.pick("foo", "h2c", "websocket2"))
        b.ask(host, [{"break": "before", "status": 1}], protocol="upgrade")
        b.ask(host, [{"status": 404}], protocol="upgrade", upgrade="websocket", headers=[("content-length", "0")])


def gate(b, protocol, tls=None, hosts=("*",)):
    """A port of its own on the gateway; its name."""
    b.count += 1
    name = f"{b.group}{b.count}"
    b.gates.append(name)
    server = {"port": {"number": f"@port:{name}@", "name": name, "protocol": protocol}, "hosts": list(hosts), **({"tls": tls} if tls else {})}
    b.doc("Gateway", name, {"selector": {"istio": "ingressgateway"}, "servers": [server]})
    return name


def tcp(b):
    for servers, policy in ((["t"], None), (["t", "u", "v"], {"loadBalancer": {"consistentHash": {"useSourceIp": True}}}), (["dead"], None), ([], None)):
        name = gate(b, "TCP")
        service = b.service(servers, "TCP")
        if policy:
            b.doc("DestinationRule", name, {"host": service, "trafficPolicy": policy})
        b.doc("VirtualService", name, {"hosts": ["*"], "gateways": [name], "tcp": [{"route": [{"destination": {"host": service}}]}]})
        sources = [f"127.0.0.{b.rng.randrange(2, 250)}" for _ in range(6)] if policy else ["127.0.0.1"]
        for source in sources:
            b.ask("", protocol="tcp", to=name, source=source, lines=["one", "x" * b.pick(10, 50000), "bye"])
        b.ask("", protocol="tcp", to=name, lines=["one", "EOF"], **{"half-close": True})
    name, one, two = gate(b, "TCP"), b.service(["t"], "TCP", host="tone.example"), b.service(["u"], "TCP", host="ttwo.example")
    b.doc("VirtualService", name, {"hosts": ["*"], "gateways": [name], "tcp": [{"route": [{"destination": {"host": one}, "weight": 100}, {"destination": {"host": two}, "weight": 0}]}]})
    for _ in range(3):
        b.ask("", protocol="tcp", to=name)


def sni(b):
    name = gate(b, "TLS", {"mode": "PASSTHROUGH"})
    rows = [(["one.test"], "x"), (["*.wild.test"], "y"), (["exact.wild.test"], "x")]
    for n, (hosts, server) in enumerate(rows):
        service = b.service([server], "TLS", host=f"sni{n}.example")
        b.doc("VirtualService", f"{name}-{n}", {"hosts": hosts, "gateways": [name], "tls": [{"match": [{"port": 443, "sniHosts": hosts}, {"sniHosts": hosts}], "route": [{"destination": {"host": service}}]}]})
    for server_name in ("one.test", "ONE.test", "a.wild.test", "a.b.wild.test", "exact.wild.test", "wild.test", "other.test", "xone.test"):
        for client in ("h1", "h2"):
            b.ask(server_name, protocol=client, to=name, sni=server_name)
    b.ask("one.test", to=name)                            # no TLS at all


def tls(b):
    """The gateway ends TLS: HTTP/1 or HTTP/2 by ALPN; and begins it towards upstreams."""
    certificate = {"tls.crt": "@file:server.crt@", "tls.key": "@file:server.key@"}
    b.docs.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "server-cert", "namespace": "istio-system"}, "type": "kubernetes.io/tls", "data": certificate})
    name = gate(b, "HTTPS", {"mode": "SIMPLE", "credentialName": "server-cert"}, hosts=["tls.test", "*.more.test"])
    plain = gate(b, "HTTP")
    service = b.service(["a"])
    for gateway in (name, plain):
        b.doc("VirtualService", f"on-{gateway}", {"hosts": ["tls.test", "x.more.test"], "gateways": [gateway], "http": [{"route": [{"destination": {"host": service}}]}]})
    for server_name, host in (("tls.test", "tls.test"), ("x.more.test", "x.more.test"), ("tls.test", "x.more.test"), ("y.more.test", "y.more.test"), ("other.test", "tls.test"), ("TLS.test", "tls.test")):
        for client in ("h1", "h2"):
            b.ask(host, protocol=client, to=name, sni=server_name, method=b.pick("GET", "POST"), body=b.pick(0, 10, 70000))
    for alpn in (["h2", "http/1.1"], ["http/1.1"], ["http/1.0"], ["istio", "h2"]):
        b.ask("tls.test", protocol="h2" if "h2" in alpn else "h1", to=name, sni="tls.test", alpn=alpn)
    b.ask("tls.test", to=name)                            # plain HTTP at a TLS port
    b.ask("tls.test", to=plain)
    redirect = gate(b, "HTTP")
    b.docs[-1]["spec"]["servers"][0]["tls"] = {"httpsRedirect": True}
    b.doc("VirtualService", f"on-{redirect}", {"hosts": ["tls.test"], "gateways": [redirect], "http": [{"route": [{"destination": {"host": service}}]}]})
    b.ask("tls.test", to=redirect, path="/x?y=z")
    for policy, protocol in (({"mode": "SIMPLE", "insecureSkipVerify": True, "sni": "up.test"}, "HTTP"), ({"mode": "SIMPLE", "caCertificates": "@path:ca.crt@", "sni": "server.test", "subjectAltNames": ["server.test"]}, "HTTP2"),
                             ({"mode": "SIMPLE", "caCertificates": "@path:ca.crt@", "sni": "server.test", "subjectAltNames": ["wrong.test"]}, "HTTP")):
        host = b.config(servers=["x"], protocol=protocol, policy={"tls": policy}, route={"retries": {"attempts": 0}})
        for client in ("h1", "h2"):
            b.ask(host, protocol=client, method="POST", body=1000)


def sidecar(b):
    """Through a workload's sidecar, which takes the headers by which the application steers it."""
    def ask(host, script=None, **send):
        path = send.pop("path", "/")
        b.ask(host, script, to="sidecar", path=f"http://{host}{path}" if send.get("protocol", "h1") == "h1" else path, **send)

    for protocol in ("HTTP", "HTTP2"):
        host = b.config(protocol=protocol, mesh=True, route={"retries": {"attempts": 1, "retryOn": "gateway-error", "backoff": "2ms"}})
        ask(host); ask(host, method="POST", body=20000, path="/a?b=c")
        for on, failure in (("5xx", {"status": 500}), ("retriable-4xx", {"status": 409}), ("reset", {"break": "before"}), ("gateway-error", {"status": 500})):
            ask(host, [failure] * b.pick(1, 3) + [{}], headers=[("x-envoy-retry-on", on), ("x-envoy-max-retries", b.pick("0", "2", "3"))])
        ask(host, [{"status": 418}, {}], headers=[("x-envoy-retry-on", "retriable-status-codes"), ("x-envoy-retriable-status-codes", "404,418")])
        ask(host, [{"status": 404, "headers": [("x-again", "1")]}, {}], headers=[("x-envoy-retry-on", "retriable-headers"), ("x-envoy-retriable-header-names", "x-again")])
        ask(host, [{"status": 200, "headers": [("grpc-status", "14")]}, {}], headers=[("x-envoy-retry-grpc-on", "unavailable")])
        ask(host, [{"delay": 1.2}], headers=[("x-envoy-upstream-rq-timeout-ms", "300")])
        ask(host, [{"delay": 1.2}, {}], headers=[("x-envoy-upstream-rq-timeout-ms", "900"), ("x-envoy-upstream-rq-per-try-timeout-ms", "300"), ("x-envoy-retry-on", "5xx")])
        ask(host, [{"delay": 1.2}], headers=[("x-envoy-upstream-stream-duration-ms", "300")])
        ask(host, headers=[("x-envoy-upstream-stream-duration-ms", b.pick("0", "bad", "5000"))])
        ask(host, [{"delay": 1.2}, {}], headers=[("x-envoy-upstream-rq-timeout-alt-response", "1"), ("x-envoy-upstream-rq-timeout-ms", "300")])
        ask(host, [{"status": 503}] * 4, headers=[("x-envoy-max-retries", "bad"), ("x-envoy-upstream-rq-timeout-ms", "-1")])
        ask(host, headers=[("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https"), ("x-request-id", "0123"), ("x-envoy-internal", "true"), ("x-envoy-decorator-operation", "mine")])
        ask(host, headers=[("x-envoy-expected-rq-timeout-ms", "700"), ("x-envoy-attempt-count", "5"), ("x-envoy-original-path", "/old")])
    host = b.config(mesh=True, route={"fault": {"abort": {"httpStatus": 404, "percentage": {"value": 100}}}})
    ask(host); ask(host, headers=[("x-envoy-fault-abort-request", "503")])
    ask("nobody.example"); ask("s1-sidecar.example:80"); ask("s1-sidecar.example:81")


def inbound(b):
    """What comes in to a workload: from another one through both sidecars (mutual TLS between them), and in plain text past them."""
    def both(script=None, **send):
        b.ask("srv:9080", script, to="sidecar", **{**send, "path": f"http://srv:9080{send.get('path', '/')}"})
        for protocol in ("h1", "h2"):
            b.ask("srv:9080", script, to="inbound", protocol=protocol, **send)

    b.count, b.upstream = 1, "HTTP"
    both()
    both(method="POST", body=b.pick(100, 70000), path="/a/../b//c?d=e")
    both([{"body": 200000, "chunked": True}], method="PUT", body=200000, chunked=True)
    both([{"status": 503}, {}]); both([{"break": "before"}, {}]); both([{"break": "mid-body", "body": 5000}]); both([{"status": 204}]); both(method="HEAD")
    both([{"headers": [("server", "mine"), ("x-a", "1"), ("x-a", "2")]}])
    both(headers=[("x-forwarded-client-cert", "By=forged;URI=spiffe://cluster.local/ns/x/sa/y"), ("x-forwarded-for", "9.9.9.9"), ("x-envoy-internal", "true"), ("x-request-id", "mine")])
    both(headers=[("x-envoy-max-retries", "3"), ("x-envoy-retry-on", "5xx"), ("x-envoy-upstream-rq-timeout-ms", "200"), ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124")])
    both([{"delay": 0.3}], headers=[("content-type", "application/grpc"), ("te", "trailers")], method="POST", body=message("x"))
    for host in ("other.example", "srv", "srv.diff:9080", "127.0.0.1:9080"):
        b.ask(host, to="inbound")
        b.ask(host, to="sidecar", path=f"http://{host}/")
    b.ask("srv:9080", protocol="upgrade", to="inbound")
    b.ask("srv:9080", to="inbound", sni="outbound_.9080_._.srv.diff.svc.cluster.local")
    b.ask("srv:9080", to="inbound", sni="srv", protocol="h2")


def authorizer(b):
    """An authorizer is asked over HTTP: what it is asked, and what its answer does. Step 0 of a script is its answer, step 1 the upstream's.

    A workload has one authorizer: each gets a gateway of its own."""
    fields = {"includeRequestHeadersInCheck": ["x-case", "x-ask-*", "cookie"], "includeAdditionalHeadersInCheck": {"x-added": "by the proxy"}}
    answers = {"headersToUpstreamOnAllow": ["x-user", "x-ask-set"], "headersToDownstreamOnDeny": ["x-why", "set-cookie", "content-type"], "headersToDownstreamOnAllow": ["x-seen"]}
    body = {"maxRequestBytes": 100, "allowPartialMessage": False}
    providers = [{**fields, **answers, "timeout": "2s"}, {**fields, "pathPrefix": "/check", "failOpen": True, "statusOnError": "503", "timeout": "0.4s"},
                 {**fields, "timeout": "2s", "includeRequestBodyInCheck": body}, {**fields, **answers, "includeRequestBodyInCheck": {**body, "allowPartialMessage": True}}]
    hosts = []
    for n, provider in enumerate(providers):
        gateway = gate(b, "HTTP")
        b.docs[-1]["spec"]["selector"] = {"istio": gateway}
        asked, host = b.service(["e"], b.pick("HTTP", "HTTP2") if n else "HTTP", host=f"asked{n}.example"), f"authorized{n}.example"
        b.providers.append({"name": f"asked{n}", "envoyExtAuthzHttp": {"service": asked, "port": 80, **provider}})
        b.docs.append({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": gateway, "namespace": "diff"},
                       "spec": {"selector": {"matchLabels": {"istio": gateway}}, "action": "CUSTOM", "provider": {"name": f"asked{n}"}, "rules": [{"to": [{"operation": {"notPaths": ["/free"]}}]}]}})
        service = b.service(["a"])
        b.doc("VirtualService", gateway, {"hosts": [host], "gateways": [gateway], "http": [{"route": [{"destination": {"host": service}}], "retries": {"attempts": 0}}]})
        hosts.append((gateway, host))
    for n, (gateway, host) in enumerate(hosts):
        b.count = n + 1
        for client in ("h1", "h2"):
            def ask(*script, **send):
                b.ask(host, [*script, {}], protocol=client, to=gateway, **send)

            more = [("x-ask-a", "1"), ("x-ask-a", "2"), ("x-other", "unseen"), ("cookie", "a=b"), ("authorization", "Bearer x")]
            ask({}, headers=more, path="/p/q?r=s")
            ask({}, path="/free")
            ask({}, method="HEAD"); ask({}, method="DELETE", headers=[("content-type", "text/x")])
            ask({"status": 200, "headers": [("x-user", "me"), ("x-ask-set", "3"), ("x-seen", "yes"), ("x-none", "1"), ("x-envoy-auth-headers-to-remove", "x-other, x-ask-a")]}, headers=more)
            ask({"status": 403, "body": "no", "headers": [("x-why", "because"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-none", "1"), ("content-type", "text/y")]})
            for status in (201, 302, 401, b.pick(404, 429), 500, 503):
                ask({"status": status, "headers": [("location", "/login"), ("www-authenticate", "Basic")] if status < 500 else []})
            ask({"break": "before"}); ask({"delay": 1}, method=b.pick("GET", "POST"))
            ask({"break": "mid-body", "status": 403, "body": 5000})
            large = b.pick(70000, 200000)                # refused half way, it has come whole or not
            for size in (1, 99, 100, 101, 5000, *([] if n == 2 else [large])):
                ask({}, method="POST", body=size); ask({"status": b.pick(200, 403 if size < 200 else 200)}, method="PUT", body=size, chunked=True)
            ask({}, method="POST", chunked=True); ask({}, method="POST", body=0)
            ask({}, method="POST", body=50, headers=[("expect", "100-continue")])
            ask({}, method="POST", body=50, headers=[("content-type", "application/grpc"), ("te", "trailers")])
            ask({}, method="POST", body=b.pick(50, 200), trailers=[("x-sum", "1")])
            ask({}, headers=[("x-envoy-internal", "true"), ("x-envoy-expected-rq-timeout-ms", "7"), ("x-envoy-upstream-rq-timeout-ms", "700"), ("x-forwarded-for", "9.9.9.9")])
            ask({}, headers=[("x-ask-big", "v" * 4000)])
        b.ask(host, [{}, {}], protocol="upgrade", to=gateway); b.ask(host, [{"status": 403}], protocol="upgrade", to=gateway)


GROUPS = {f.__name__: f for f in (retries, timeouts, hashing, protocols, grpc, faults, mirrors, cors, headers, websocket, tcp, sni, tls, sidecar, inbound, authorizer)}


def base(b):
    server = {"port": {"number": "@port:http@", "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    b.doc("Gateway", "edge", {"selector": {"istio": "ingressgateway"}, "servers": [server]})
    b.group, b.count = "ready", 0
    b.config()
    b.docs.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "srv", "namespace": "diff"}, "spec": {"selector": {"app": "srv"}, "ports": [{"name": "http", "port": 9080}]}})


def mesh(b):
    """What the groups want of the mesh as a whole."""
    providers = json.dumps({"extensionProviders": b.providers})
    b.docs.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": providers}})


def fill(text, ports, files):
    """Puts this data plane's ports and the run's files into a configuration."""
    for name, port in ports.items():
        text = text.replace(f'"@port:{name}@"', str(port))
    for name in files.iterdir():
        text = text.replace(f"@path:{name.name}@", str(name)).replace(f"@file:{name.name}@", base64.b64encode(name.read_bytes()).decode())
    return text
