"""The gateway under test and the servers behind it: an HTTP echo (HTTP/1.1 and HTTP/2), a gRPC server, a WebSocket server."""
import asyncio, base64, json, os, pathlib, signal, socket, subprocess, sys, threading, time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "differential")]
import upstream                                            # noqa: E402  (the differential run's servers)
from ports import free_port                                # noqa: E402

import calls_grpc, calls_websocket                         # noqa: E402

API = "networking.istio.io/v1"


class Mesh:
    """`plain` and `tls` are the gateway's ports; hosts: h1.test, h2.test (the echo by either protocol), grpc.test, ws.test."""

    def __init__(self, work, proxy):
        self.work, self.proxy, self.plain, self.tls, self.up = work, proxy, free_port(), free_port(), None
        self.ca, self.world, self.log = work / "ca.crt", upstream.World(), work / "up.log"

    def start(self):
        ready = threading.Event()
        threading.Thread(target=self.serve, args=(ready,), daemon=True).start()
        if not ready.wait(20):
            raise RuntimeError("the servers did not start")
        self.grpc, self.grpc_port = calls_grpc.serve()
        certificates(self.work)
        config = self.work / "config"
        config.mkdir()
        (config / "all.yaml").write_text("\n---\n".join(json.dumps(d) for d in self.resources()))
        argv = [os.environ.get("MAILLE", "target/release/maille"), "up", "-f", str(config), "--xds-port", str(free_port()), "--proxy", self.proxy]
        self.up = subprocess.Popen(argv, stdout=open(self.log, "wb"), stderr=subprocess.STDOUT, start_new_session=True)
        end = time.time() + 40
        while subprocess.run(["curl", "-sf", "-o", "/dev/null", "-H", "host: h1.test", f"http://127.0.0.1:{self.plain}/"]).returncode:
            if time.time() > end or not self.alive():
                raise RuntimeError(f"the gateway does not answer:\n{self.said()[-3000:]}")
            time.sleep(0.2)
        time.sleep(1)

    def serve(self, ready):
        async def main():
            self.echo = await upstream.Server(self.world, "echo").start()
            self.ws_port = await calls_websocket.serve()
            ready.set()
            await asyncio.Event().wait()
        asyncio.run(main())

    def resources(self):
        kinds = {"h1": ("HTTP", self.echo.port), "h2": ("HTTP2", self.echo.port), "grpc": ("GRPC", self.grpc_port), "ws": ("HTTP", self.ws_port)}
        cert = {k: base64.b64encode((self.work / f).read_bytes()).decode() for k, f in (("tls.crt", "server.crt"), ("tls.key", "server.key"))}
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "server", "namespace": "istio-system"}, "type": "kubernetes.io/tls", "data": cert}
        servers = [{"port": {"number": self.plain, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
                   {"port": {"number": self.tls, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": {"mode": "SIMPLE", "credentialName": "server"}}]
        yield {"apiVersion": API, "kind": "Gateway", "metadata": {"name": "edge", "namespace": "test"}, "spec": {"selector": {"istio": "ingressgateway"}, "servers": servers}}
        for name, (protocol, port) in kinds.items():
            host, port_name = f"{name}.service", protocol.lower()
            yield {"apiVersion": API, "kind": "ServiceEntry", "metadata": {"name": name, "namespace": "test"},
                   "spec": {"hosts": [host], "location": "MESH_INTERNAL", "resolution": "STATIC", "ports": [{"number": 80, "name": port_name, "protocol": protocol}],
                            "endpoints": [{"address": "127.0.0.1", "ports": {port_name: port}}]}}
            yield {"apiVersion": API, "kind": "VirtualService", "metadata": {"name": name, "namespace": "test"},
                   "spec": {"hosts": [f"{name}.test"], "gateways": ["edge"], "http": [{"route": [{"destination": {"host": host}}]}]}}

    def alive(self):
        return self.up is not None and self.up.poll() is None

    def said(self):
        return self.log.read_text() if self.log.exists() else ""

    def stop(self):
        if hasattr(self, "grpc"):
            self.grpc.stop(0)
        for sig in (signal.SIGTERM, signal.SIGKILL):
            if self.alive():
                os.killpg(self.up.pid, sig)
                try:
                    self.up.wait(15)
                except subprocess.TimeoutExpired:
                    print("maille up did not end on SIGTERM")


def certificates(at):
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=at, check=True, capture_output=True)
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *new, "-days", "2", "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
    (at / "san").write_text("subjectAltName=" + ",".join(f"DNS:{n}.test" for n in ("h1", "h2", "grpc", "ws")) + "\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", "server.crt")
