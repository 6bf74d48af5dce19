#!/usr/bin/env python3
"""The shared judges, `behave.py` and `replay.py`, on ports that nobody takes in the meantime.

    accept.py SHARED/accept behave FILE.yaml… [--proxy envoy] [-k WORDS]
    accept.py SHARED/accept replay FOLDER [--proxy envoy]
"""
import importlib, pathlib, sys

from ports import free_port

folder, judge = sys.argv[1], sys.argv[2]
sys.path.insert(0, str(pathlib.Path(folder).resolve()))
import behave

behave.free_port = free_port
sys.argv = [f"{judge}.py", *sys.argv[3:]]
importlib.import_module(judge).main()
