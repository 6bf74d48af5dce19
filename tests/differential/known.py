"""Differences that are known: (id, what the difference looks like, the pairs that may show it).

DELIBERATE ones stand in docs/differences.md under the same id. OPEN ones are defects that wait for an answer: they are counted and shown at each run, and a
line here that matches nothing any more is to be deleted. A pattern matches nothing else: whoever breaks what lies beside it has to see it.
"""
import re


def interims(pair):
    """The server has more than one interim response, or ends after one."""
    return any(len(step.get("interim", [])) > 1 or step.get("break") == "after-interim" for step in pair.script)


def is_given_up(pair):
    """The client leaves, or what it asks for is over, before the request is whole."""
    return bool(pair.send.get("cancel") or pair.send.get("unfinished") or pair.send.get("protocol") == "upgrade")


def refuses_upgrade(pair):
    """The server refuses an upgrade and says in its answer which one it would take."""
    offers = any("upgrade" in dict(step.get("headers", [])) for step in pair.script)
    return pair.send.get("protocol") == "upgrade" and offers


def is_too_large_to_show(pair):
    """More of a body than an authorizer may see, over HTTP/2, where it need not see a part."""
    return re.match(r"authorizer-3\.", pair.name) and pair.send.get("protocol") == "h2" and pair.send.get("body", 0) > 100


DELIBERATE = [
    ("resets-with-cancel", r"upstream . ended: maille 'reset CANCEL', Envoy 'reset INTERNAL_ERROR'$", is_given_up),
    ("every-interim-response", r"interim: only maille has 103$", interims),
    ("too-large-to-show", r"(status: maille 413, Envoy (200|403)$|(body|headers|upstream [12] \w+): )", is_too_large_to_show),
    ("refused-upgrade", r"headers: only (maille has 'connection: close'|Envoy has '(connection: upgrade|upgrade: websocket)')$", refuses_upgrade),
]

OPEN = []
