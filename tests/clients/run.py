#!/usr/bin/env python3
"""Clients nobody here wrote, through a gateway: curl, h2load, nghttp, grpcio, websockets.

    run.py                    every client, on maille's proxy
    run.py --proxy envoy      the same on a real Envoy under maille's control plane: what is wrong there is wrong here
    run.py -k grpc            what matches

A client that is not installed is a failure, not a skip. MAILLE names the binary. Needs PyYAML's Python with grpcio, websockets and h2;
curl with HTTP/2; h2load and nghttp (Debian's nghttp2-client). Autobahn's own suite needs Python 2, so `websockets` stands in for it.
"""
import argparse, pathlib, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import calls_grpc, calls_http, calls_websocket, harness    # noqa: E402
from mesh import Mesh                                      # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-k", default=""); p.add_argument("--proxy", default="maille", choices=["maille", "envoy"])
    args = p.parse_args()
    todo = calls_http.CASES | calls_grpc.CASES | calls_websocket.CASES
    harness.run("clients", lambda work: Mesh(work, args.proxy), todo, args.k, lines=12)


if __name__ == "__main__":
    main()
