#!/usr/bin/env python3
"""Identity and policy as whole processes: who is let in, by which way, and what is seen from outside.

    run.py                      everything, on maille's proxy and on a real Envoy under maille's control plane
    run.py --proxy envoy        on one of them: what is wrong there is wrong here
    run.py -k matrix --all      the tests whose names match; all of a matrix's phases

MAILLE names the binary (default target/release/maille), ENVOY the Envoy. Each test runs in a network namespace of its own, so it needs
root or user namespaces. Needs a Python with h2, and openssl.
"""
import argparse, concurrent.futures, os, pathlib, subprocess, sys, tempfile, time, traceback

import captured, exposed, far_away, matrix, mesh, paths

HERE = pathlib.Path(__file__).resolve().parent

TESTS = {}


def test(f):
    TESTS[f.__name__] = f
    return f


@test
def matrix_of_peers(work, proxy, args, problems):
    """PeerAuthentication × protocol × client, at sidecars of `maille run`."""
    with mesh.Mesh(work, proxy, list(matrix.resources())) as m:
        for name, port in matrix.PORTS.items():
            m.workload(name, port, args=("--version", "matrix"), wait=False)
        places = {name: ((m.place(name), port), name) for name, port in matrix.PORTS.items()}
        return f"{matrix.run(m, places, matrix.PHASES if args.all else matrix.SHORT, problems)} cells"


@test
def matrix_of_captured_peers(work, proxy, args, problems):
    """The same at a sidecar that connections are redirected to, and for a port that no service has."""
    names = ("http", "tcp", "any")
    entry = mesh.resource(mesh.NETWORKING, "WorkloadEntry", captured.NAME, "test", {"address": captured.ADDRESS, "labels": captured.LABELS, "serviceAccount": captured.NAME}, labels=captured.LABELS)
    services = [mesh.service(captured.NAME, zip(names, matrix.PORTS.values())), entry]
    ports = matrix.PORTS | {"unknown": matrix.UNKNOWN}
    with mesh.Mesh(work, proxy, services, env={"REAL_ENVOY": os.environ.get("ENVOY", "envoy")}) as m:
        captured.redirect(ports.values())
        m.start("app", [sys.executable, str(HERE / "app.py"), str(work), captured.NAME, *(f"{captured.ADDRESS}:{port}" for port in ports.values())])
        if proxy == "envoy":
            m.workload(captured.NAME + "-agent", proxy=f"envoy={HERE / 'captured.py'}")
        else:
            m.start("sidecar", captured.arguments(mesh.MAILLE, f"127.0.0.1:{mesh.XDS}"))
        places = {name: ((captured.ADDRESS, port), m.place(captured.NAME) or captured.NAME) for name, port in ports.items()}
        return f"{matrix.run(m, places, matrix.PHASES if args.all else matrix.SHORT, problems, (captured.CLIENT, 0))} cells"


@test
def every_way_to_a_workload(work, proxy, args, problems):
    """Each kind of policy, by every way that leads to the application."""
    with mesh.Mesh(work, proxy, list(paths.resources())) as m:
        for name, port in (("web", paths.WEB), ("db", paths.DB), ("caller", None)):
            m.workload(name, port, wait=False)
        return f"{paths.run(m, problems)} questions"


@test
def policies_that_come_later(work, proxy, args, problems):
    """TCP connections that a policy refuses which comes when they are there already."""
    with mesh.Mesh(work, proxy, list(paths.resources())) as m:
        for name, port in (("web", paths.WEB), ("db", paths.DB), ("caller", None)):
            m.workload(name, port, wait=False)
        paths.run_standing(m, problems)


@test
def secrets_stay_secret(work, proxy, args, problems):
    """Files, logs at their most talkative, dumps, errors and arguments, searched for keys and tokens."""
    with mesh.Mesh(work, proxy, list(exposed.resources(work)), env={"MAILLE_LOG": "trace"}) as m:
        for name, port in (("web", 8080), ("caller", None)):
            m.workload(name, port)
        exposed.ready(m)
        return f"{exposed.run_secrets(m, problems)} things looked at"


@test
def listeners_ask_who_is_there(work, proxy, args, problems):
    """What listens beyond loopback, and what it says to those who cannot say who they are."""
    exposed.come_from_elsewhere()
    with mesh.Mesh(work, proxy, list(exposed.resources(work)), up=("--address", "0.0.0.0", "--tls-address", f"0.0.0.0:{mesh.TLS}")) as m:
        for name, port in (("web", 8080), ("caller", None)):
            m.workload(name, port)
        exposed.ready(m)
        return exposed.run_ports(m, problems)


@test
def workloads_of_other_machines(work, proxy, args, problems):
    """A workload that knows the control plane's roots and a token, and nothing else of its machine."""
    near, far = exposed.OUTSIDE, "10.77.0.2"
    exposed.addresses(near, far)
    services = [mesh.service("far", [("http", 8080)]), mesh.service("web", [("http", 8080)])]
    with mesh.Mesh(work, proxy, services, up=("--tls-address", f"{near}:{mesh.TLS}")) as m:
        token, roots = work / "token", work / "roots.pem"
        subprocess.run([mesh.MAILLE, "token", "create", "--namespace", "test", "--service-account", "far", "--out", str(token), "--ca-out", str(roots),
                        "--control", f"127.0.0.1:{mesh.XDS}"], check=True, env=m.env)
        m.workload("web", 8080), m.workload("caller")
        out = ["--ca-file", str(roots), "--token-file", str(token), "--address", far]
        m.workload("far", 8080, args=out, control=f"{near}:{mesh.TLS}", env={"HOME": str(work / "elsewhere")})
        return far_away.run(m, token, far, problems)


def one(name, proxy, args):
    """One test, in this process: whether it held."""
    mesh.loopback()
    started, problems, said = time.time(), [], ""
    with tempfile.TemporaryDirectory(prefix="identity-") as work:
        try:
            said = TESTS[name](pathlib.Path(work), proxy, args, problems)
        except Exception as e:                             # a test that cannot run has failed
            problems.append(f"{type(e).__name__}: {e}\n{traceback.format_exc(limit=-3)}")
    print(f"{'FAIL' if problems else 'ok  '} {name} on {proxy} ({said or 'nothing'}, {time.time() - started:.1f} s)", *(f"      {x}" for x in problems[:40]), sep="\n", flush=True)
    return not problems


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", default=""); p.add_argument("--proxy", choices=["maille", "envoy"]); p.add_argument("--all", action="store_true")
    p.add_argument("--one", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        sys.exit(not one(args.one, args.proxy, args))
    wanted = [(name, proxy) for name in TESTS if args.k in name for proxy in ([args.proxy] if args.proxy else ["maille", "envoy"])]
    run = lambda test: subprocess.run(mesh.alone([sys.executable, *sys.argv, "--one", test[0], "--proxy", test[1]]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in pool.map(run, wanted):
            failed += done.returncode != 0
            print(done.stdout.decode(errors="replace"), end="", flush=True)
    print(f"{len(wanted) - failed} passed, {failed} failed")
    sys.exit(bool(failed) or not wanted)


if __name__ == "__main__":
    main()
