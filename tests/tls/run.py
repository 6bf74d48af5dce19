#!/usr/bin/env python3
"""TLS of a gateway from outside: openssl and curl in every mode, tickets, certificates that change, testssl.sh.

    run.py                    everything, on maille's proxy; of testssl.sh what is quick
    run.py --whole            all of testssl.sh, its grade too: some minutes
    run.py --proxy envoy      the same on a real Envoy under maille's control plane (without testssl.sh)
    run.py -k ticket          what matches

A client that is not installed is a failure, not a skip. MAILLE names the binary. Needs openssl, curl, Debian's package testssl.sh.
"""
import argparse, pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import cases, grade, harness                               # noqa: E402
from mesh import Mesh                                      # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", default=""); p.add_argument("--proxy", default="maille", choices=["maille", "envoy"]); p.add_argument("--whole", action="store_true")
    args = p.parse_args()
    todo = dict(cases.CASES)
    if args.proxy == "maille":
        todo["testssl"] = lambda mesh: grade.run(mesh, args.whole)
    harness.run("tls", lambda work: Mesh(work, args.proxy), todo, args.k)


if __name__ == "__main__":
    main()
