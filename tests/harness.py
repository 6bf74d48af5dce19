"""Runs cases against a mesh, one after the other, and says which fail: what the suites with clients of others have in common."""
import pathlib, sys, tempfile, time, traceback


def run(name, make, cases, wanted="", lines=40):
    """Starts what `make` makes of an empty directory, asks it every case whose name has `wanted` in it, and ends the program: 0 when all of them pass."""
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as work:
        mesh = make(pathlib.Path(work))
        try:
            mesh.start()
            for case, check in cases.items():
                if wanted not in case:
                    continue
                started = time.time()
                problem = problem_of(check, mesh)
                passed += not problem; failed += bool(problem)
                said = (f"      {x[:300]}" for x in (problem or "").splitlines()[:lines])
                print(f"{'FAIL' if problem else 'ok  '} {case} ({time.time() - started:.1f} s)", *said, sep="\n", flush=True)
            if not mesh.alive():
                failed += 1
                print(f"FAIL the mesh did not live through it:\n{mesh.said()[-2000:]}")
        finally:
            mesh.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(bool(failed) or not passed)


def problem_of(check, mesh):
    try:
        check(mesh)
    except AssertionError as e:
        return str(e) or traceback.format_exc(limit=-1)
    except Exception as e:                                # whatever a client throws, it did not get what it wanted
        return f"{type(e).__name__}: {e}"
