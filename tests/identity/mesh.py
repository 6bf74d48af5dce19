"""A mesh for these tests, in a network namespace of its own: `maille up`, workloads of `maille run`, and what they leave behind."""
import fcntl, json, os, pathlib, signal, socket, struct, subprocess, sys, time

import certificates

HERE = pathlib.Path(__file__).resolve().parent
MAILLE = os.path.abspath(os.environ.get("MAILLE", "target/release/maille"))
XDS, TLS = 15010, 15012
NETWORKING, SECURITY = "networking.istio.io/v1", "security.istio.io/v1"


def resource(api, kind, name, namespace, spec, **meta):
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace, **meta}, "spec": spec}


def service(name, ports, app=None):
    """`ports` are (name, number) pairs; what Istio calls the protocol is the beginning of the name."""
    return resource("v1", "Service", name, "test", {"selector": {"app": app or name}, "ports": [{"name": n, "port": p} for n, p in ports]})


def alone(argv):
    """A command whose network and processes are its own: every listener there is one that it has started, and none outlives it."""
    return ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-n", "-p", "-f", "--kill-child", "--mount-proc", *argv]


def loopback():
    """Loopback of a new network namespace, up."""
    with socket.socket() as s:
        flags = struct.unpack("16sh", fcntl.ioctl(s, 0x8913, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", flags | 1))


def until(condition, what, seconds=40, every=0.1):
    end = time.time() + seconds
    while not (got := condition()):
        if time.time() > end:
            raise RuntimeError(f"no {what() if callable(what) else what} after {seconds} s")
        time.sleep(every)
    return got


class Mesh:
    """`dir` has the certificates of certificates.py, and what workloads have seen; `state` what maille keeps."""

    def __init__(self, work, proxy, resources=(), up=(), env=None):
        self.dir, self.proxy, self.processes, self.logs = pathlib.Path(work), proxy, {}, {}
        self.config, self.home, self.tmp = self.dir / "config", self.dir / "home", self.dir / "tmp"
        for folder in (self.config, self.home, self.tmp):
            folder.mkdir(parents=True)
        self.state = self.home / ".local/state/maille"
        self.env = {**{k: v for k, v in os.environ.items() if k != "XDG_RUNTIME_DIR"}, "HOME": str(self.home), "TMPDIR": str(self.tmp), **(env or {})}
        self.write("all", resources)
        certificates.own(self.dir, "app", "/CN=the application itself")
        self.up = up
        self.start_up()
        until(lambda: (self.state / f"{XDS}.tls").exists() or self.gone(), "control plane")
        self.alive()
        certificates.make(self.dir, self.state / f"{XDS}.ca")

    def start_up(self):
        self.start("up", [MAILLE, "up", "-f", str(self.config), "--xds-port", str(XDS), "--proxy", self.proxy, "--concurrency", "1", *self.up])

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        for name in reversed(list(self.processes)):
            self.stop(name)
        if failed and failed is not KeyboardInterrupt:
            for name, log in self.logs.items():
                print(f"-- {name}:\n{log.read_text(errors='replace')[-3000:]}")

    def start(self, name, argv, env=None):
        """Whatever it makes is for its owner alone because it says so, not because the umask does."""
        self.logs[name] = self.dir / f"{name}.log"
        with open(self.logs[name], "ab") as log:
            self.processes[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, umask=0, env={**self.env, **(env or {})})

    def stop(self, name):
        process = self.processes.pop(name)
        for sig in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, sig)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    print(f"{name} did not end on signal {sig}")

    def gone(self):
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def alive(self):
        if gone := self.gone():
            raise RuntimeError(f"{', '.join(gone)} ended")

    def write(self, name, resources):
        """A file of the watched folder, whole; nothing takes it away."""
        at = self.config / f"{name}.yaml"
        if not resources:
            return at.unlink(missing_ok=True)
        draft = self.config / f".{name}.draft"
        draft.write_text("\n---\n".join(json.dumps(r) for r in resources))
        draft.rename(at)

    def workload(self, name, port=None, proxy=None, args=(), wait=True, env=None, control=f"127.0.0.1:{XDS}"):
        """A workload that runs app.py; gives the address of its sidecar."""
        argv = [MAILLE, "run", "--name", name, "--service", name, "--namespace", "test", "--service-account", name, "--control", control]
        argv += ["--proxy", proxy or self.proxy, *(["--port", str(port)] if port else []), *args, "--"]
        self.start(name, argv + [sys.executable, str(HERE / "app.py"), str(self.dir), name], env)
        return self.place(name) if wait else None

    def place(self, name):
        """The address of a workload that has started."""
        until(lambda: self.alive() or (self.dir / f"{name}.place").exists(), f"workload {name}")
        return (self.dir / f"{name}.place").read_text().removeprefix("http://").rsplit(":", 1)[0]

    def seen(self, name):
        at = self.dir / f"{name}.seen"
        return at.read_text().split("\n") if at.exists() else []
