"""curl, h2load and nghttp: each case runs the program and reads what it says."""
import hashlib, re, subprocess

CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


def run(*argv, data=None, codes=(0,), timeout=60):
    got = subprocess.run([str(a) for a in argv], input=data, capture_output=True, timeout=timeout)
    out = got.stdout.decode("latin1") + got.stderr.decode("latin1")
    assert got.returncode in codes, f"{' '.join(map(str, argv))[:300]}\nexit status {got.returncode}\n{out[-800:]}"
    return out


SAY = "\n%{http_version} %{http_code} %{size_download} %{num_connects}\n"


def curl(mesh, host, *args, tls=False, path="/", data=None, codes=(0,)):
    """curl's output, and its own account as the last line: version, status, bytes, connections."""
    scheme, port = ("https", mesh.tls) if tls else ("http", mesh.plain)
    out = run("curl", "-sS", "--max-time", "20", "--cacert", mesh.ca, "--resolve", f"{host}.test:{port}:127.0.0.1", "-w", SAY, *args, f"{scheme}://{host}.test:{port}{path}", data=data, codes=codes)
    return out, out.strip().splitlines()[-1].split()


def big(mesh, size):
    at = mesh.work / f"big-{size}"
    if not at.exists():
        at.write_bytes(bytes(range(256)) * (size // 256))
    return at


def arrived(mesh, case):
    """What reached the server for a case."""
    seen = mesh.world.seen.get(case, [])
    assert seen, "nothing reached the server"
    return seen[-1]


def curl_versions(mesh, name, version, *args, tls=False):
    for host in ("h1", "h2"):
        tag = f"{name}-{host}"
        _, said = curl(mesh, host, *args, "-H", f"x-case: {tag}", tls=tls, path="/a?b=c")
        assert said[:2] == [version, "200"], said
        assert arrived(mesh, tag)["path"] == "/a?b=c" and arrived(mesh, tag)["protocol"] == host
        size = 3 << 20
        mesh.world.scripts[f"{tag}-post"] = [{"body": 2_000_000}]
        _, said = curl(mesh, host, *args, "-H", f"x-case: {tag}-post", "-o", "/dev/null", "--data-binary", f"@{big(mesh, size)}", tls=tls)
        assert said[:3] == [version, "200", "2000000"], said
        assert arrived(mesh, f"{tag}-post")["body"] == f"{size} bytes, sha256 {hashlib.sha256(big(mesh, size).read_bytes()).hexdigest()[:16]}"
        _, said = curl(mesh, host, *args, "-I", "-H", f"x-case: {tag}-head", tls=tls)
        assert said[1] == "200" and arrived(mesh, f"{tag}-head")["method"] == "HEAD", said
        mesh.world.scripts[f"{tag}-204"] = [{"status": 204}]
        _, said = curl(mesh, host, *args, "-H", f"x-case: {tag}-204", tls=tls)
        assert said[1:3] == ["204", "0"], said


@case
def curl_http1(mesh):
    curl_versions(mesh, "c1", "1.1", "--http1.1")


@case
def curl_http10(mesh):
    _, said = curl(mesh, "h1", "--http1.0")
    assert said[1] in ("200", "426"), said                 # Envoy without accept_http_10 answers 426; what counts is an answer


@case
def curl_http1_chunked_upload_and_expect(mesh):
    for tag, args in (("chunk", ("-T", "-")), ("expect", ("-H", "Expect: 100-continue", "--data-binary", f"@{big(mesh, 1 << 20)}"))):
        _, said = curl(mesh, "h1", "--http1.1", "-H", f"x-case: {tag}", *args, data=b"z" * 100_000 if tag == "chunk" else None)
        assert said[1] == "200", said
        assert arrived(mesh, tag)["body"].startswith("100000 bytes" if tag == "chunk" else "1048576 bytes"), arrived(mesh, tag)["body"]


@case
def curl_http1_keep_alive(mesh):
    out = run("curl", "-sS", "-w", SAY, *(x for _ in range(20) for x in ("-H", "host: h1.test", f"http://127.0.0.1:{mesh.plain}/")))
    lines = [x.split() for x in out.splitlines() if x.startswith("1.1 ")]
    assert len(lines) == 20 and all(x[1] == "200" for x in lines) and sum(int(x[3]) for x in lines) == 1, lines


@case
def curl_h2_prior_knowledge(mesh):
    curl_versions(mesh, "c2", "2", "--http2-prior-knowledge")


@case
def curl_h2c_upgrade_is_not_taken_up(mesh):
    for host in ("h1", "h2"):                             # RFC 9110 §7.8: a server may ignore Upgrade; Envoy does
        _, said = curl(mesh, host, "--http2", "-H", f"x-case: h2c-{host}")
        assert said[:2] == ["1.1", "200"], said
        seen = {k for k, _ in arrived(mesh, f"h2c-{host}")["headers"]}
        assert not seen & {"upgrade", "http2-settings"}, seen
        _, said = curl(mesh, host, "--http2", "-H", f"x-case: h2c-{host}-post", "--data-binary", f"@{big(mesh, 1 << 20)}")
        assert said[:2] == ["1.1", "200"] and arrived(mesh, f"h2c-{host}-post")["body"].startswith("1048576 bytes"), said


@case
def curl_h2_by_alpn(mesh):
    curl_versions(mesh, "c3", "2", "--http2", tls=True)


@case
def curl_http1_over_tls(mesh):
    curl_versions(mesh, "c4", "1.1", "--http1.1", tls=True)


@case
def curl_h2_parallel(mesh):                                # by ALPN: with prior knowledge curl 7.88 itself breaks the framing
    urls = [x for n in range(40) for x in ("-o", mesh.work / f"par-{n}", f"https://h1.test:{mesh.tls}/?{n}")]
    out = run("curl", "-sS", "-Z", "--parallel-max", "40", "--http2", "--cacert", mesh.ca, "--resolve", f"h1.test:{mesh.tls}:127.0.0.1", "-w", "%{http_code} %{http_version}\n", *urls)
    assert out.split("\n").count("200 2") == 40, out


@case
def curl_websocket_upgrade(mesh):
    out, _ = curl(mesh, "ws", "--http1.1", "-i", "-N", "--max-time", "1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
                  "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", codes=(0, 28))
    assert "101 Switching Protocols" in out and "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in out, out


def h2load(mesh, *args, host="h1", tls=False, requests=2000):
    scheme, port = ("https", mesh.tls) if tls else ("http", mesh.plain)
    out = run("h2load", "-n", requests, "-c", "10", f"--connect-to=127.0.0.1:{port}", *args, f"{scheme}://{host}.test:{port}/")
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in out and f"{requests} 2xx" in out, out[-600:]


@case
def h2load_h2c(mesh):
    for host in ("h1", "h2"):
        h2load(mesh, "-m", "20", host=host)


@case
def h2load_http1(mesh):
    h2load(mesh, "--h1", requests=1000)


@case
def h2load_uploads(mesh):
    h2load(mesh, "-m", "5", "-d", big(mesh, 65536), requests=300)


@case
def h2load_small_windows(mesh):
    h2load(mesh, "-m", "10", "-w", "10", "-W", "12", requests=500)


@case
def h2load_tls(mesh):
    h2load(mesh, "-m", "20", host="h2", tls=True)


def nghttp(mesh, *args, host="h2", tag="ng", codes=(0,)):
    return run("nghttp", "-v", "-H", f":authority: {host}.test", "-H", f"x-case: {tag}", *args, f"http://127.0.0.1:{mesh.plain}/", codes=codes, timeout=30)


@case
def nghttp_get(mesh):
    for host in ("h1", "h2"):
        out = nghttp(mesh, host=host, tag=f"ng-{host}")
        assert ":status: 200" in out and "GOAWAY" in out.split(":status: 200")[1], out[-600:]


@case
def nghttp_many_streams(mesh):
    out = nghttp(mesh, "-m", "50", tag="ng-many")
    assert len(re.findall(r":status: 200", out)) == 50


@case
def nghttp_upload_with_trailers_and_padding(mesh):
    nghttp(mesh, "-d", big(mesh, 1 << 20), "--trailer", "x-sum: 1", "-b", "200", tag="ng-up")
    seen = arrived(mesh, "ng-up")
    assert seen["body"].startswith("1048576 bytes") and ("x-sum", "1") in seen["trailers"], (seen["body"], seen["trailers"])


@case
def nghttp_tiny_windows(mesh):
    mesh.world.scripts["ng-tiny"] = [{"body": 300_000}]
    out = nghttp(mesh, "-w", "6", "-W", "8", "-n", "-s", tag="ng-tiny")
    assert ":status: 200" in out and "292K" in out.upper() or "300000" in out, out[-600:]


@case
def nghttp_continuation(mesh):
    out = nghttp(mesh, "--continuation", "-H", "x-big: " + "v" * 3000, tag="ng-cont")
    assert ":status: 200" in out and any(k == "x-big" for k, _ in arrived(mesh, "ng-cont")["headers"]), out[-600:]


@case
def nghttp_tls(mesh):
    out = run("nghttp", "-v", "-H", ":authority: h2.test", f"https://127.0.0.1:{mesh.tls}/", timeout=30)
    assert ":status: 200" in out, out[-600:]
