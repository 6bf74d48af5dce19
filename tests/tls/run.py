#!/usr/bin/env python3
"""TLS of a gateway from outside: openssl and curl in every mode, tickets, certificates that change, testssl.sh.

    run.py                    everything, on maille's proxy; of testssl.sh what is quick
    run.py --whole            all of testssl.sh, its grade too: some minutes
    run.py --proxy envoy      the same on a real Envoy under maille's control plane (without testssl.sh)
    run.py -k ticket          what matches

A client that is not installed is a failure, not a skip. MAILLE names the binary. Needs openssl, curl, Debian's package testssl.sh.
"""
import argparse, pathlib, sys, tempfile, time, traceback

import cases, grade
from mesh import Mesh


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", default=""); p.add_argument("--proxy", default="maille", choices=["maille", "envoy"]); p.add_argument("--whole", action="store_true")
    args = p.parse_args()
    todo = dict(cases.CASES)
    if args.proxy == "maille":
        todo["testssl"] = lambda mesh: grade.run(mesh, args.whole)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="tls-") as work:
        mesh = Mesh(pathlib.Path(work), args.proxy)
        try:
            mesh.start()
            for name, case in todo.items():
                if args.k not in name:
                    continue
                started, problem = time.time(), None
                try:
                    case(mesh)
                except AssertionError as e:
                    problem = str(e) or traceback.format_exc(limit=-1)
                except Exception as e:                    # whatever a client throws, it did not get what it wanted
                    problem = f"{type(e).__name__}: {e}"
                passed += not problem; failed += bool(problem)
                print(f"{'FAIL' if problem else 'ok  '} {name} ({time.time() - started:.1f} s)", *(f"      {x[:300]}" for x in (problem or "").splitlines()[:40]), sep="\n", flush=True)
            if not mesh.alive():
                failed += 1
                print(f"FAIL the mesh did not live through it:\n{mesh.said()[-2000:]}")
        finally:
            mesh.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(bool(failed) or not passed)


if __name__ == "__main__":
    main()
