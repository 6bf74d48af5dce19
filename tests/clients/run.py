#!/usr/bin/env python3
"""Clients nobody here wrote, through a gateway: curl, h2load, nghttp, grpcio, websockets.

    run.py                    every client, on maille's proxy
    run.py --proxy envoy      the same on a real Envoy under maille's control plane: what is wrong there is wrong here
    run.py -k grpc            what matches

A client that is not installed is a failure, not a skip. MAILLE names the binary. Needs PyYAML's Python with grpcio, websockets and h2;
curl with HTTP/2; h2load and nghttp (Debian's nghttp2-client). Autobahn's own suite needs Python 2, so `websockets` stands in for it.
"""
import argparse, os, pathlib, subprocess, sys, tempfile, time, traceback

import calls_grpc, calls_http, calls_websocket
from mesh import Mesh


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", default=""); p.add_argument("--proxy", default="maille", choices=["maille", "envoy"])
    args = p.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="clients-") as work:
        mesh = Mesh(pathlib.Path(work), args.proxy)
        try:
            mesh.start()
            for module in (calls_http, calls_grpc, calls_websocket):
                for name, case in module.CASES.items():
                    if args.k not in name:
                        continue
                    started, problem = time.time(), None
                    try:
                        case(mesh)
                    except AssertionError as e:
                        problem = str(e) or traceback.format_exc(limit=-1)
                    except Exception as e:                # whatever a client throws, it did not get what it wanted
                        problem = f"{type(e).__name__}: {e}"
                    passed += not problem; failed += bool(problem)
                    print(f"{'FAIL' if problem else 'ok  '} {name} ({time.time() - started:.1f} s)", *(f"      {x[:300]}" for x in (problem or "").splitlines()[:12]), sep="\n", flush=True)
            if not mesh.alive():
                failed += 1
                print(f"FAIL the mesh did not live through it:\n{mesh.said()[-2000:]}")
        finally:
            mesh.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(bool(failed) or not passed)


if __name__ == "__main__":
    main()
