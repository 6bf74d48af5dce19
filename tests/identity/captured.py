#!/usr/bin/env python3
"""A sidecar whose workload's connections are redirected to it (port 15006), as Istio's init container has it.

maille's is `maille proxy --role sidecar`. For a real Envoy this file stands in as the Envoy of a `maille run`, which makes a bootstrap and
serves it certificates; it starts one Envoy with that, and another with the same as a captured sidecar."""
import json, os, pathlib, subprocess, sys

NAME, ADDRESS = "captured", "127.7.0.1"
# Only what comes from here is redirected: the sidecar's own connections to the application are not.
CLIENT = "127.0.0.9"
LABELS = {"app": NAME, "version": "matrix"}


def redirect(ports):
    of = f"ip saddr {CLIENT} ip daddr {ADDRESS} tcp dport {{ {', '.join(map(str, ports))} }}"
    rules = f"table ip matrix {{\nchain out {{\ntype nat hook output priority -100;\n{of} redirect to :15006\n}}\n}}\n"
    done = subprocess.run(["nft", "-f", "-"], input=rules.encode(), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"no redirection: {done.stderr.decode()}")


def arguments(maille, control):
    labels = ",".join(f"{k}={v}" for k, v in LABELS.items())
    return [maille, "proxy", "--role", "sidecar", "--name", NAME, "--namespace", "test", "--service-account", NAME, "--control", control, "--address", ADDRESS,
            "--labels", labels, "--concurrency", "1", "--metadata", "INTERCEPTION_MODE=REDIRECT"]


def stand_in():
    argv = sys.argv[1:]
    at = pathlib.Path(argv[argv.index("--config-path") + 1])
    config = json.loads(at.read_text())
    node = config["node"]
    node["id"] = f"sidecar~{ADDRESS}~{NAME}.test~test.svc.cluster.local"
    node["metadata"] |= {"INTERCEPTION_MODE": "REDIRECT", "LABELS": LABELS, "INSTANCE_IPS": ADDRESS, "WORKLOAD_NAME": NAME}
    for own in ("HTTP_PROXY_PORT", "HTTP_PROXY_ADDRESS", "APP_PORTS"):
        node["metadata"].pop(own, None)
    config["admin"]["address"]["pipe"]["path"] += ".2"
    other = at.with_name("captured.json")
    other.touch(0o600)
    other.write_text(json.dumps(config))
    second = list(argv)
    second[second.index("--config-path") + 1] = str(other)
    subprocess.Popen([os.environ["REAL_ENVOY"], *second])
    os.execv(os.environ["REAL_ENVOY"], [os.environ["REAL_ENVOY"], *argv])


if __name__ == "__main__":
    stand_in()
