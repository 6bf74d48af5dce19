#!/usr/bin/env python3
"""The shared judges, `behave.py` and `replay.py`, on ports that nobody takes in the meantime, and with every workload in the
mesh before the first request: workloads that start together do not arrive together.

    accept.py SHARED/accept behave FILE.yaml… [--proxy envoy] [-k WORDS]
    accept.py SHARED/accept replay FOLDER [--proxy envoy]
"""
import importlib, pathlib, sys, time

from ports import free_port

folder, judge = sys.argv[1], sys.argv[2]
sys.path.insert(0, str(pathlib.Path(folder).resolve()))
import behave

behave.free_port = free_port
start = behave.Case.start


def start_and_join(case):
    start(case)
    for w in case.doc.get("workloads", []):
        if w.get("mesh") and "port" in w:
            log = case.dir / f"{w['name']}.log"
            case.wait(lambda: log.read_text().index("is the program's own"), f"workload {w['name']} in the mesh")
    time.sleep(0.5)     # until the others have heard of it


behave.Case.start = start_and_join
sys.argv = [f"{judge}.py", *sys.argv[3:]]
importlib.import_module(judge).main()
