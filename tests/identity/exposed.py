"""What is seen from outside: files, logs, dumps and errors are searched for secrets; every listener beyond loopback is asked by callers
who cannot say who they are."""
import base64, http.client, ipaddress, json, os, pathlib, socket, ssl, stat, subprocess, time

import certificates
from client import Client
from mesh import MAILLE, NETWORKING, TLS, XDS, resource, service, until

# An address of this network namespace that is not loopback, and another that callers of it come from, as if from elsewhere.
OUTSIDE, ELSEWHERE = "10.77.0.1", "10.77.0.9"
HTTP, HTTPS = 7080, 7443
# A private key on P-256 as PKCS#8 or SEC1, whatever its number is, in base64: how it begins depends on the kind alone.
KEYS = [rb"MIGHAgEAMBMGByqGSM49", rb"MHcCAQEEI", rb"PRIVATE KEY"]


def resources(dir):
    yield service("web", [("http", 8080)])
    certificates.own(dir, "server", "/CN=web.test")
    data = {k: base64.b64encode((dir / f).read_bytes()).decode() for k, f in (("tls.crt", "server.crt"), ("tls.key", "server.key"))}
    yield {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "server", "namespace": "istio-system"}, "type": "kubernetes.io/tls", "data": data}
    servers = [{"port": {"number": HTTP, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
               {"port": {"number": HTTPS, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": {"mode": "SIMPLE", "credentialName": "server"}}]
    yield resource(NETWORKING, "Gateway", "edge", "test", {"selector": {"istio": "ingressgateway"}, "servers": servers})
    yield resource(NETWORKING, "VirtualService", "edge", "test", {"hosts": ["*"], "gateways": ["edge"], "http": [{"route": [{"destination": {"host": "web", "port": {"number": 8080}}}]}]})


def addresses(*all):
    for address in all:
        subprocess.run(["ip", "address", "replace", f"{address}/24", "dev", "lo"], check=True)


def come_from_elsewhere():
    addresses(OUTSIDE, ELSEWHERE)
    subprocess.run(["ip", "route", "change", "local", OUTSIDE, "dev", "lo", "table", "local", "src", ELSEWHERE], check=True)


def ready(mesh):
    context = ssl._create_unverified_context()

    def answers():
        try:
            c = http.client.HTTPSConnection("127.0.0.1", HTTPS, timeout=3, context=context)
            c.request("GET", "/ready")
            return c.getresponse().status == 200
        except OSError:
            return False
    until(answers, "answer through the gateway")


def lines_of(pem):
    """What of a key must be nowhere: each line of its PEM that is long enough to be its alone, and the base64 of it all."""
    body = [line for line in pem.split("\n") if line and not line.startswith("-")]
    return [line.encode() for line in body if len(line) > 30] + [base64.b64encode(pem.encode())[40:100]]


def secrets(mesh, minted):
    """By name: what may be in files of mode 0600 and nowhere else."""
    state = json.loads((mesh.state / f"{XDS}.ca").read_text())
    found = {"the token": [(mesh.state / f"{XDS}.token").read_bytes().strip()], "a minted token": [minted.encode(), minted.rsplit(".", 1)[1].encode()],
             "the root's key": lines_of(state["roots"]["signing"]["key"]), "the tokens' key": lines_of(state["tokenKey"]),
             "the gateway's key": lines_of((mesh.dir / "server.key").read_text()), "a private key": KEYS}
    return found


def search(problems, known, where, text):
    for name, parts in known.items():
        for part in parts:
            if part in text:
                at = text.index(part)
                problems.append(f"{where}: {name}: …{text[max(0, at - 60):at].decode(errors='replace')!r}")
                break


def http_get(place, path, headers={}, method="GET", body=None):
    c = http.client.HTTPConnection(*place, timeout=5)
    try:
        c.request(method, path, body, headers)
        r = c.getresponse()
        return r.status, str(r.headers).encode() + r.read()
    finally:
        c.close()


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("envoy", timeout=5)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self.path))


ADMIN = ["/config_dump?include_eds", "/config_dump", "/certs", "/clusters", "/listeners", "/stats", "/stats/prometheus", "/server_info", "/ready", "/memory", "/runtime", "/help", "/init_dump",
         "/logging", "/contention", "/nothing-here"]


def listeners():
    """Listening sockets of this network namespace: address, port, process."""
    inodes = {}
    for fd in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes[target[8:-1]] = fd.parts[2]
    for table, size in (("/proc/net/tcp", 4), ("/proc/net/tcp6", 16)):
        for line in pathlib.Path(table).read_text().split("\n")[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == "0A":
                address, port = words[1].split(":")
                raw = b"".join(bytes.fromhex(address[n:n + 8])[::-1] for n in range(0, len(address), 8))
                pid = inodes.get(words[9])
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80] if pid else "?"
                yield ipaddress.ip_address(raw), int(port, 16), command


def scan_files(mesh, known, problems):
    """Everything that was written while the mesh ran. What holds a secret, and what only its owner needs, nobody else may read."""
    count = 0
    for root in (mesh.home, mesh.tmp):
        for at in root.rglob("*"):
            mode = stat.S_IMODE(at.lstat().st_mode)
            count += 1
            if at.is_dir():
                if mode & 0o077 and at.parent == mesh.tmp or at == mesh.state and mode != 0o700:
                    problems.append(f"{at} is {mode:o}")
            elif at.suffix == ".pem":                      # the roots, for everybody
                search(problems, known, str(at), at.read_bytes())
            elif mode & 0o077:
                problems.append(f"{at} is {mode:o}")
    return count


def dumps(mesh, minted):
    """What maille and Envoy tell about themselves: (where, text)."""
    token = (mesh.state / f"{XDS}.token").read_text().strip()
    for path in ("/v1/status", "/v1/ca", "/metrics", "/healthz", "/v1/nothing"):
        yield f"control plane {path}", http_get(("127.0.0.1", XDS), path, {"authorization": f"Bearer {token}"})[1]
    for header in ({}, {"authorization": f"Bearer {token}x"}, {"authorization": f"Bearer {minted}x"}, {"authorization": f"Bearer {minted[:-3]}"}, {"authorization": token}):
        for method, path, body in (("GET", "/v1/status", None), ("POST", "/v1/workloads", "{"), ("POST", "/v1/tokens", "{}")):
            status, text = http_get(("127.0.0.1", XDS), path, header, method, body)
            assert status in (401, 403), (path, header, status)
            yield f"refusal of {method} {path}", text
    for body in ("{", json.dumps({"kind": "Secret", "data": {"tls.key": "x"}}), json.dumps({"serviceAccount": token})):
        yield "refusal of a body", http_get(("127.0.0.1", XDS), "/v1/workloads", {"authorization": f"Bearer {token}"}, "POST", body)[1]
    admins = [(f"{ip}:{port}", http.client.HTTPConnection(str(ip), port, timeout=5)) for ip, port, _ in listeners() if port in (15000, 15020, 15021, 15090)]
    admins += [(str(at), OverUnix(at)) for at in mesh.tmp.rglob("admin.sock")]
    assert admins, "nobody has an admin endpoint"
    for name, admin in admins:
        for path in ADMIN:
            admin.request("GET", path)
            yield f"{name}{path}", admin.getresponse().read()
        admin.close()
    for command in (["ca", "status", "--control", f"127.0.0.1:{XDS}"], ["validate", "-f", str(mesh.config)]):
        done = subprocess.run([MAILLE, *command], capture_output=True, env=mesh.env)
        yield f"maille {command[0]}", done.stdout + done.stderr
    for at in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield f"arguments of process {at.parts[2]}", at.read_bytes()
        except OSError:
            pass


def broken_secrets(mesh):
    """Secrets with a mistake in each place: what is said of the mistake shows none of the secret."""
    key = (mesh.dir / "server.key").read_text()
    crt = base64.b64encode((mesh.dir / "server.crt").read_bytes()).decode()
    good = base64.b64encode(key.encode()).decode()
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: broken, namespace: test}\n"
    indented = "\n".join("    " + line for line in key.split("\n"))
    return {
        "key is not base64": head + f"data:\n  tls.crt: {crt}\n  tls.key: '{good}!'\n",
        "key is plain": head + f"data:\n  tls.crt: {crt}\n  tls.key: |\n{indented}\n",
        "unknown field": head + f"type: kubernetes.io/tls\ndate:\n  tls.key: {good}\n",
        "unclosed quote": head + f"data:\n  tls.crt: {crt}\n  tls.key: \"{good}\n",
        "list": head + f"data:\n  tls.key: [{good}]\n",
        "number": head + f"data: {{tls.key: {good}, x: 1}}\n",
        "string": head + f"data: {good}\n",
        "tab": head + f"data:\n\ttls.key: {good}\n",
        "stringData": head + f"stringData:\n  tls.key: [\"{good}\"]\n",
        "no certificate": head + f"data:\n  tls.key: {good}\n",
        "half a certificate": head + f"data:\n  tls.crt: {crt[:400]}\n  tls.key: {good}\n",
        "wrong order": head + f"data:\n  tls.crt: {good}\n  tls.key: {crt}\n",
        "twice": head + f"data:\n  tls.key: {good}\n  tls.key: {good}\n",
    }


def run_secrets(mesh, problems):
    minted = subprocess.run([MAILLE, "token", "create", "--control", f"127.0.0.1:{XDS}", "--namespace", "test", "--service-account", "web"], capture_output=True, env=mesh.env, check=True).stdout.decode().strip()
    known = secrets(mesh, minted)
    looked = scan_files(mesh, known, problems)
    for where, text in dumps(mesh, minted):
        looked += 1
        search(problems, known, where, text)
    for name, text in broken_secrets(mesh).items():
        looked += 1
        at = mesh.dir / "broken.yaml"
        at.write_text(text)
        done = subprocess.run([MAILLE, "validate", "-f", str(at)], capture_output=True, env=mesh.env)
        said = done.stdout + done.stderr
        search(problems, known, f"maille validate of a Secret ({name})", said)
        if b"broken.yaml" not in said and done.returncode:
            problems.append(f"maille validate of a Secret ({name}): {said}")
        (mesh.config / "broken.yaml").write_text(text)
        time.sleep(0.7)
    (mesh.config / "broken.yaml").unlink()
    for name, log in mesh.logs.items():
        looked += 1
        search(problems, known, f"what {name} said", log.read_bytes())
        if not log.stat().st_size:
            problems.append(f"{name} said nothing: was it asked to?")
    return looked


# -- the port scan -----------------------------------------------------------------------------------------------


def over_tls(mesh, request, certificate=None, alpn=("http/1.1",)):
    """The status of a request from outside, or why there is none."""
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(list(alpn))
    if certificate:
        context.load_cert_chain(mesh.dir / f"{certificate}.crt", mesh.dir / f"{certificate}.key")
    try:
        with socket.create_connection((OUTSIDE, TLS), 5, source_address=(ELSEWHERE, 0)) as plain, context.wrap_socket(plain) as conn:
            conn.sendall(request)
            answer = conn.recv(65536)
            return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else f"{answer[:40]!r}"
    except (OSError, ssl.SSLError) as e:
        return f"refused: {e}"


def head(method, path, token=None, body="", kind="application/json"):
    more = f"authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {path} HTTP/1.1\r\nhost: istiod.istio-system.svc\r\n{more}content-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()


def in_plain(place, data):
    try:
        with socket.create_connection(place, 5, source_address=(ELSEWHERE, 0)) as conn:
            conn.settimeout(15)
            conn.sendall(data)
            return conn.recv(65536)
    except OSError as e:
        return f"refused: {e}".encode()


def grpc_status(mesh, method, place, root, token=None, certificate=None):
    os.environ["GRPC_VERBOSITY"] = "NONE"
    import grpc                                            # noqa: E402  (it reads its environment when it comes in)
    read = lambda name: (mesh.dir / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(root, *([read(f"{certificate}.key"), read(f"{certificate}.crt")] if certificate else []))
    with grpc.secure_channel(f"{place[0]}:{place[1]}", credentials, [("grpc.ssl_target_name_override", "istiod.istio-system.svc"), ("grpc.enable_retries", 0)]) as channel:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            next(channel.stream_stream(method)(iter([b""]), timeout=8, metadata=metadata))
            return "OK"
        except StopIteration:
            return "OK"
        except grpc.RpcError as e:
            return e.code().name


METHODS = ["/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
           "/istio.v1.auth.IstioCertificateService/CreateCertificate", "/maille.v1.Trust/Next"]


def run_ports(mesh, problems):
    root, token = (mesh.state / f"{XDS}.ca.pem").read_bytes(), (mesh.state / f"{XDS}.token").read_text().strip()
    found = sorted(set(listeners()))
    beyond = [(ip, port, command) for ip, port, command in found if not ip.is_loopback]
    # A gateway's own ports are there for everybody; what goes through them is for policies to say.
    data = {HTTP, HTTPS}
    asked = 0
    for ip, port, command in beyond:
        if port not in data | {TLS}:
            problems.append(f"{ip}:{port} is open to other machines: {command}")
    if {port for _, port, _ in beyond} != data | {TLS}:
        problems.append(f"beyond loopback: {beyond}")

    def expect(what, got, want):
        nonlocal asked
        asked += 1
        if got not in want and not (str(got).startswith("refused") and "refused" in want):
            problems.append(f"{what}: {got}, expected one of {want}")
    for method, path in (("GET", "/v1/status"), ("GET", "/v1/ca"), ("POST", "/v1/ca/rotate"), ("POST", "/v1/tokens"), ("POST", "/v1/workloads"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/nothing"), ("POST", METHODS[0])):
        for certificate in (None, "wrong-trust-domain", "not-spiffe", "foreign", "expired", "self-signed"):
            expect(f"{method} {path} over TLS with {certificate or 'no certificate'}", over_tls(mesh, head(method, path), certificate), [401, "refused"])
        for name, wrong in (("a wrong token", "x" * 64), ("the owner's token", token), ("a token of nobody's making", "e30.e30.e30")):
            expect(f"{method} {path} over TLS with {name}", over_tls(mesh, head(method, path, wrong)), [401])
    for method, path in (("GET", "/v1/ca"), ("POST", "/v1/ca/rotate"), ("POST", "/v1/tokens"), ("POST", "/v1/ca/forget-absent"), ("GET", "/v1/status")):
        expect(f"{method} {path} over TLS as a workload", over_tls(mesh, head(method, path, body="{}"), "caller"), [403])
    for method in METHODS:
        expect(f"{method} over TLS", grpc_status(mesh, method, (OUTSIDE, TLS), root), ["UNAUTHENTICATED"])
        expect(f"{method} over TLS with the owner's token", grpc_status(mesh, method, (OUTSIDE, TLS), root, token), ["UNAUTHENTICATED"])
        expect(f"{method} over TLS with a certificate of another mesh", grpc_status(mesh, method, (OUTSIDE, TLS), root, certificate="foreign"), ["UNAVAILABLE"])
        expect(f"{method} over TLS with a certificate of another trust domain", grpc_status(mesh, method, (OUTSIDE, TLS), root, certificate="wrong-trust-domain"), ["UNAUTHENTICATED"])
    for data_of in (b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"):
        got = in_plain((OUTSIDE, TLS), data_of)
        expect(f"plain text to the TLS port: {got[:60]}", not got.startswith((b"HTTP/", b"\0\0")), [True])
    # What is on loopback is not reached from elsewhere, and the control plane asks there, too.
    for ip, port, command in found:
        if ip.is_loopback and port not in data:
            expect(f"{port} on {OUTSIDE} ({command})", in_plain((OUTSIDE, port), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") if port != TLS else b"refused", [b"refused: [Errno 111] Connection refused", b"refused"])
    for path in ("/v1/status", "/v1/ca", "/metrics", "/v1/workloads"):
        expect(f"{path} in plain text on loopback", http_get(("127.0.0.1", XDS), path)[0], [401])
    return f"{len(found)} listeners, {len(beyond)} beyond loopback, {asked} questions"
