"""A workload of another machine: it is let in, reached and refused like the others, and needs its token once."""
import exposed, mesh
from client import Client, exchange
from mesh import SECURITY, TLS, XDS, resource, until


def asked(m, place, host):
    """Whom the application `host` was told of when it was asked through a sidecar; None when it was not reached."""
    try:
        with Client().connect((place, 15080), m.dir) as conn:
            answer = exchange(conn, "http1", f"http://{host}.test:8080/", f"{host}.test:8080")
    except OSError:
        return None
    return answer and answer["headers"].get("x-forwarded-client-cert", "")


def run(m, token, far, problems):
    caller, own = m.place("caller"), m.place("far")
    mutual = lambda place, host, who: f"URI=spiffe://cluster.local/ns/test/sa/{who}" in (asked(m, place, host) or "")
    until(lambda: mutual(caller, "far", "caller"), "way to it with mutual TLS")
    until(lambda: mutual(own, "web", "far"), "way from it with mutual TLS")
    beyond = {(str(ip), port) for ip, port, _ in exposed.listeners() if not ip.is_loopback}
    if beyond != {(exposed.OUTSIDE, TLS), (far, 8080)}:
        problems.append(f"beyond loopback: {beyond}")
    # From here on it has its certificate.
    token.unlink()
    m.stop("up")
    if not mutual(caller, "far", "caller"):
        problems.append("it is not reached while the control plane is away")
    m.start_up()
    deny = resource(SECURITY, "AuthorizationPolicy", "deny", "test", {"selector": {"matchLabels": {"app": "far"}}, "action": "DENY", "rules": [{}]})
    m.write("deny", [deny])
    until(lambda: asked(m, caller, "far") is None, "sign of a new policy, without a token")
    m.write("deny", [])
    until(lambda: mutual(caller, "far", "caller"), "way back")
    m.stop("far")
    until(lambda: asked(m, caller, "far") is None, "end of it")
    return "joined, was reached, came back, left"
