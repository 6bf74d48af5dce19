#!/usr/bin/env python3
"""The same configurations and requests, on maille's proxy and on a real Envoy under maille's control plane: do they agree?

    run.py                       every group, one seed (what CI runs)
    run.py --seeds 20            twenty seeds: the long form, by hand
    run.py --only grpc,tcp       some groups
    run.py -k grpc-3 -v          one configuration, with everything that was seen

Compared: status, headers and body of the answer, its end (whole, cut, which reset), and everything that reached the upstreams,
attempt by attempt: server, protocol, method, path, authority, headers, body, trailers, end. A pair that differs is asked twice more, alone, and
counts only when it differs each time. What is known (deliberate, or a defect that is open) stands in known.py.
MAILLE and ENVOY name the programs. Needs PyYAML's Python with `h2`.
"""
import argparse, asyncio, collections, json, os, pathlib, random, re, signal, ssl, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import client, groups, known, upstream                     # noqa: E402
from ports import free_port                                # noqa: E402

# Present or not is compared; the value is each proxy's own.
OWN_VALUE = {"x-request-id", "date", "x-envoy-upstream-service-time", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "traceparent", "tracestate",
             "x-envoy-peer-metadata", "x-envoy-peer-metadata-id"}
# How much of the timeout is left at a retry depends on when it was.
TIMED = {"x-envoy-expected-rq-timeout-ms"}


class Plane:
    """A data plane: a directory, a `maille up`, and the ports of its gateway."""

    def __init__(self, name, proxy, work, book, files, app):
        self.name, self.dir = name, work / name
        self.ports = {g: free_port() for g in ("http", *book.gates)}
        config = self.dir / "config"
        config.mkdir(parents=True)
        text = "\n---\n".join(json.dumps(d) for d in book.docs)
        (config / "all.yaml").write_text(groups.fill(text, self.ports, files))
        maille = os.environ.get("MAILLE", "target/release/maille")
        said = subprocess.run([maille, "validate", "-f", str(config)], capture_output=True, text=True)
        if said.returncode:
            raise SystemExit(f"maille validate, of the generated configuration:\n{said.stdout}{said.stderr}"[:4000])
        self.log = open(self.dir / "up.log", "wb")
        self.xds, self.processes = free_port(), []
        argv = [maille, "up", "-f", str(config), "--xds-port", str(self.xds), "--concurrency", "1", "--proxy", proxy]
        self.proxy, self.app = proxy, app
        self.up = subprocess.Popen(argv, stdout=self.log, stderr=self.log, start_new_session=True)
        self.processes.append(self.up)

    async def ready(self):
        end = time.time() + 60
        while time.time() < end:
            if (rc := self.up.poll()) is not None:
                raise RuntimeError(f"maille up --proxy {self.name} ended with {rc}: {(self.dir / 'up.log').read_text()[-3000:]}")
            got = await client.ask(self.ports, {"host": "ready1.example", "patience": 2}, "ready")
            if got.get("status") == 200:
                return await self.join()
            await asyncio.sleep(0.1)
        raise RuntimeError(f"the gateway of {self.name} is not ready after 60 s:\n{(self.dir / 'up.log').read_text()[-3000:]}")

    async def join(self):
        """Two workloads, whose sidecars are asked too: `sidecar` for what goes out, `inbound` for what comes in to a server."""
        me, server = self.dir / "me", self.dir / "server"
        self.workload("me", [], ["sh", "-c", f"echo $http_proxy > {me}.new; mv {me}.new {me}; exec sleep 3600"])
        self.workload("srv", ["--port", "9080"], [sys.executable, str(HERE / "relay.py"), str(self.app), str(server)])
        end = time.time() + 30
        while not (me.exists() and server.exists()):
            if time.time() > end:
                raise RuntimeError(f"no sidecars after 30 s:\n{(self.dir / 'up.log').read_text()[-3000:]}")
            await asyncio.sleep(0.1)
        for name, said in (("sidecar", me), ("inbound", server)):
            address, port = said.read_text().strip().removeprefix("http://").rstrip("/").rsplit(":", 1)
            self.ports[name] = (address, 9080 if name == "inbound" else int(port))
        while (await client.ask(self.ports, {"host": "srv:9080", "to": "sidecar", "path": "http://srv:9080/", "patience": 2}, "ready")).get("status") != 200:
            if time.time() > end:
                raise RuntimeError(f"no way from workload to workload after 30 s:\n{(self.dir / 'up.log').read_text()[-3000:]}")
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.5)

    def workload(self, name, options, command):
        argv = [os.environ.get("MAILLE", "target/release/maille"), "run", "--name", name, "--service", name, "--namespace", "diff", "--service-account", name,
                "--control", f"127.0.0.1:{self.xds}", "--proxy", self.proxy, *options, "--", *command]
        self.processes.append(subprocess.Popen(argv, stdout=self.log, stderr=self.log, start_new_session=True))

    def alive(self):
        return all(p.poll() is None for p in self.processes)

    def stop(self):
        for process in reversed(self.processes):
            for sig in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    os.killpg(process.pid, sig)
                    try:
                        process.wait(15)
                    except subprocess.TimeoutExpired:
                        print(f"{self.name}: {' '.join(process.args[1:4])} did not end on SIGTERM")
        self.log.close()


def same_headers(headers, plane, timed):
    out = []
    for k, v in headers or []:
        k = k.lower()
        for name, port in plane.ports.items():
            v = v.replace(f"{port[0]}:{port[1]}", "<sidecar>").replace(port[0], "<sidecar>") if isinstance(port, tuple) else re.sub(rf"\b{port}\b", f"<{name}>", v)
        if k == "set-cookie":
            v = re.sub(r'^(\w+)="?[0-9a-f]{16}"?', r"\1=*", v)
        if k == "x-case":
            continue
        if k == "x-forwarded-client-cert":
            v = re.sub(r"Hash=[0-9a-f]{64}", "Hash=*", v)
        out.append(f"{k}: {'*' if k in OWN_VALUE or timed and k in TIMED else v}")
    return sorted(out)


def comparable(answer, seen, plane):
    """What two data planes must agree on."""
    out = {k: v for k, v in answer.items() if k not in ("headers", "trailers")}
    out["headers"], out["trailers"] = same_headers(answer.get("headers"), plane, False), same_headers(answer.get("trailers"), plane, False)
    real, shadows = [e for e in seen if not e["shadow"]], [e for e in seen if e["shadow"]]
    for n, e in enumerate(real + sorted(shadows, key=lambda e: (e["server"], e.get("authority", "")))):
        where = f"upstream {n + 1}"
        out |= {f"{where} {k}": v for k, v in e.items() if k not in ("headers", "trailers", "shadow")}
        out[f"{where} headers"], out[f"{where} trailers"] = same_headers(e["headers"], plane, n > 0), same_headers(e.get("trailers"), plane, False)
    return out


def differences(ours, theirs):
    out = []
    for k in sorted(ours.keys() | theirs.keys()):
        o, t = ours.get(k), theirs.get(k)
        if isinstance(o, list) and isinstance(t, list):
            extra, lacking = collections.Counter(o) - collections.Counter(t), collections.Counter(t) - collections.Counter(o)
            out += [f"{k}: only maille has {x!r}" for x in extra.elements()] + [f"{k}: only Envoy has {x!r}" for x in lacking.elements()]
        elif o != t:
            out.append(f"{k}: maille {o!r}, Envoy {t!r}")
    return out


def excuse(pair, difference):
    return next((name for name, pattern, concerns in known.DELIBERATE + known.OPEN if concerns(pair) and re.match(pattern, difference)), None)


async def judge(world, planes, pair, round):
    async def one(plane):
        case = f"{plane.name}-{pair.name}-{round}"
        world.scripts[case] = pair.script
        answer = await client.ask(plane.ports, pair.send, case)
        for _ in range(40):                              # let what is still on its way arrive
            seen = world.seen.get(case, [])
            if all(e["ended"] for e in seen) and (seen or "error" in answer or answer.get("status")):
                break
            await asyncio.sleep(0.05)
        if os.environ.get("SHOW"):
            print(pair.name, {k: v for k, v in answer.items() if k != "headers"}, [(e["server"], e["protocol"], e["ended"]) for e in seen])
        if pair.name.startswith("mirrors") or "cancelled" in answer:
            await asyncio.sleep(0.3)
        return comparable(answer, world.seen.get(case, []), plane)
    ours, theirs = await asyncio.gather(*(one(p) for p in planes))
    plant(os.environ.get("PLANT"), ours)
    return differences(ours, theirs), ours, theirs


def plant(what, ours):
    """A defect on purpose: something is other than it was."""
    for k in [k for k in ours if what and k.startswith(what)]:
        ours[k] = [*ours[k], "x-planted: 1"] if isinstance(ours[k], list) else f"planted {ours[k]}"


async def run(args, seed, work):
    rng, world = random.Random(seed), upstream.World()
    files = work / "files"
    files.mkdir(parents=True)
    certificates(files)
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(files / "server.crt", files / "server.key")
    server_tls.set_alpn_protocols(["h2", "http/1.1"])
    servers = [await upstream.Server(world, n).start() for n in "abcde"] + [await upstream.Server(world, n, "tcp").start() for n in "tuv"]
    servers += [await upstream.Server(world, n).start(server_tls) for n in "xy"]
    book = groups.Book(rng, {s.name: s.port for s in servers}, free_port())
    groups.base(book)
    for name in args.only or groups.GROUPS:
        book.group, book.count, book.rng = name, 0, random.Random(f"{seed} {name}")
        groups.GROUPS[name](book)
    groups.mesh(book)
    pairs = [p for p in book.pairs if args.k in p.name and (not args.protocol or p.send.get("protocol", "h1") in args.protocol) and (not args.upstream or p.upstream in args.upstream)]
    planes = [Plane(n, "envoy" if args.self else n, work, book, files, servers[0].port) for n in ("maille", "envoy")]
    try:
        await asyncio.gather(*(p.ready() for p in planes))
        return await ask_all(args, world, planes, pairs)
    finally:
        for p in planes:
            p.stop()


async def ask_all(args, world, planes, pairs):
    todo, suspects, started = iter(pairs), [], time.time()
    failed, excused, kinds = [], collections.Counter(), collections.Counter()

    def unexcused(pair, found):
        excuses = [(d, excuse(pair, d)) for d in found if not re.search(args.ignore, d)]
        excused.update({k for _, k in excuses if k})
        return [d for d, k in excuses if not k]

    async def worker():
        for pair in todo:
            if unexcused(pair, (await judge(world, planes, pair, 0))[0]):
                suspects.append(pair)
    await asyncio.gather(*(worker() for _ in range(args.parallel)))
    for pair in sorted(suspects, key=pairs.index):         # once more, twice, alone: what is slow or late once is not a difference
        rounds = [await judge(world, planes, pair, n) for n in (1, 2)]
        left = [unexcused(pair, d) for d, *_ in rounds]
        if not all(left):
            continue
        left = left[-1]
        kinds.update({re.sub(r"'[^']{30,}'|[0-9]+", "…", d) for d in left})
        failed.append(pair)
        print(f"DIFFERS {pair.name}", json.dumps({k: v for k, v in pair.send.items()}, default=str)[:400], json.dumps(pair.script)[:300], *(d[:400] for d in left), sep="\n      ", flush=True)
        if args.v:
            print("      maille", json.dumps(rounds[-1][1], indent=1), "\n      Envoy", json.dumps(rounds[-1][2], indent=1))
    for p in planes:
        if not p.alive():
            failed.append(p)
            print(f"maille up --proxy {p.name} died: {p.dir}/up.log")
    by_group = collections.Counter(p.name.split("-")[0] for p in pairs)
    bad = collections.Counter(p.name.split("-")[0] for p in failed)
    print("  ".join(f"{g} {n - bad[g]}/{n}" for g, n in by_group.items()))
    for kind, n in kinds.most_common(25 if len(failed) > 10 else 0):
        print(f"  {n:4} × {kind[:200]}")
    if excused:
        print("known, see known.py:", ", ".join(f"{k} ×{n}" for k, n in sorted(excused.items())))
    whole = not (args.k or args.only or args.protocol or args.upstream)
    for name, *_ in known.DELIBERATE + known.OPEN if whole else []:
        if name not in excused:
            print(f"known.py: {name} matches nothing any more")
    print(f"{len(pairs)} pairs, {len(failed)} differ ({time.time() - started:.0f} s)", flush=True)
    return len(pairs), len(failed)


def certificates(at):
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=at, check=True, capture_output=True)
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *new, "-days", "2", "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *new, "-subj", "/CN=server.test", "-keyout", "server.key", "-out", "server.csr")
    (at / "san").write_text("subjectAltName=DNS:server.test,DNS:tls.test,DNS:*.more.test\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", "server.crt")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=1); p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--only", type=lambda s: s.split(",")); p.add_argument("--parallel", type=int, default=12)
    p.add_argument("--protocol", type=lambda s: s.split(","), help="h1, h2, tcp, upgrade: as the client speaks"); p.add_argument("--ignore", default="$^", help="differences that match are not looked at")
    p.add_argument("--upstream", type=lambda s: s.split(","), help="HTTP, HTTP2, GRPC, TCP, TLS: as the upstream is configured")
    p.add_argument("--self", action="store_true", help="Envoy beside Envoy: whatever differs is the harness's own noise")
    p.add_argument("-k", default=""); p.add_argument("-v", action="store_true")
    args, asked, wrong = p.parse_args(), 0, 0
    for seed in range(args.seed, args.seed + args.seeds):
        with tempfile.TemporaryDirectory(prefix="differential-") as work:
            print(f"seed {seed}")
            n, bad = asyncio.run(run(args, seed, pathlib.Path(work)))
            asked, wrong = asked + n, wrong + bad
    print(f"{asked - wrong} passed, {wrong} failed")
    sys.exit(bool(wrong) or not asked)


if __name__ == "__main__":
    main()
