"""Differences that are known: (id, what the difference looks like, as `PAIR: DIFFERENCE`).

DELIBERATE ones stand in docs/differences.md under the same id. OPEN ones are defects that wait for an answer: they are counted and shown at each run, and a
line here that matches nothing any more is to be deleted.
"""

DELIBERATE = [
    ("resends-on-reused-connection", r"(inbound|sidecar|protocols).*: (upstream [2-9]|(status|body|headers):)"),
    ("resets-with-cancel", r".*: upstream . ended: maille 'reset CANCEL', Envoy 'reset INTERNAL_ERROR'"),
]

OPEN = [
    ("closes-after-local-reply", r"(retries|faults|tls).*: headers: only maille has 'connection: close'"),
    ("upgrade-case", r".*: .*only (maille|Envoy) has 'connection: [uU]pgrade'"),
    ("upgrade-service-time", r"(websocket|inbound).*: headers: only maille has 'x-envoy-upstream-service-time"),
    ("upgrade-refused", r"websocket.*: (headers: only Envoy has 'connection: close'|(body|headers).*'(content-length: )?(10|0|no upgrade|)'|upstream . ended|upstream . headers: only maille has 'content-length: 0')"),
    ("every-interim-response", r".*: interim: only maille has 103"),
    ("mirrors", r"mirrors.*: upstream "),
    ("inline-headers", r"(headers|grpc|cors).*: .*(accept|user-agent|content-type|via|authorization|cache-control): "),
    ("scheme-of-sidecar", r"sidecar.*: upstream . scheme"),
    ("answered-before-the-end", r"headers.*: ended: maille 'whole', Envoy 'reset NO_ERROR'"),
    ("loopback-forwarded-for", r".*: upstream . headers: only (maille|Envoy) has 'x-forwarded-for: "),
]
