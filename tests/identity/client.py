"""Clients of every kind, and what became of them. `ask` says in one word how a connection was taken:

    http, tcp      in plain text, by a chain that reads HTTP, or by one that passes bytes on
    http+, tcp+    by mutual TLS that the sidecar ended; where it reads HTTP, the application was told who called
    pass           TLS that the sidecar passed on as it was: the application itself ended it
    -              refused: nothing of it reached the application
"""
import json, socket, ssl, uuid

import h2.config, h2.connection, h2.events

PATIENCE = 8


class Client:
    """`says` is http1, http2 or bytes. `tls` is None, or a dict of: certificate (a name of certificates.py), alpn, version."""

    def __init__(self, says="http1", tls=None):
        self.says, self.tls = says, tls

    def connect(self, place, folder, source=None):
        conn = socket.create_connection(place, PATIENCE, source_address=source)
        if self.tls is None:
            return conn
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate := self.tls.get("certificate"):
            context.load_cert_chain(folder / f"{certificate}.crt", folder / f"{certificate}.key")
        if alpn := self.tls.get("alpn"):
            context.set_alpn_protocols(alpn)
        if version := self.tls.get("version"):
            context.minimum_version = context.maximum_version = version
        return context.wrap_socket(conn)


def exchange(conn, says, path, host, headers=()):
    """What the application answered; None when it was somebody else, or nobody."""
    if says == "bytes":
        conn.sendall(path.encode() + b"\n")
        return read_json(conn)
    if says == "http1":
        more = "".join(f"{k}: {v}\r\n" for k, v in headers)
        conn.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n".encode())
        return read_json(conn)
    h = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    h.initiate_connection()
    h.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path), *headers], end_stream=True)
    conn.sendall(h.data_to_send())
    body, data = b"", conn.recv(65536)
    while data:
        for event in h.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            if isinstance(event, h2.events.StreamEnded):
                return parsed(body)
            if isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                return None
        conn.sendall(h.data_to_send())
        data = conn.recv(65536)


def read_json(conn):
    data = b""
    # Whoever refuses with an answer may take its time to close.
    while not data.endswith(b"}\n") and not (data.startswith(b"HTTP/1.1 ") and data[9:12] != b"200"):
        more = conn.recv(65536)
        if not more:
            break
        data += more
    return parsed(data.split(b"\r\n\r\n", 1)[-1])


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def ask(client, place, folder, host="app", source=None):
    """The word, the tag by which the application knows this attempt, and what it answered."""
    tag = f"/{uuid.uuid4().hex}"
    answer, server = None, b""
    try:
        with client.connect(place, folder, source) as conn:
            answer = exchange(conn, client.says, tag, host)
            # A connection that was refused half way has nobody's certificate.
            if answer is not None and client.tls is not None:
                server = conn.getpeercert(binary_form=True)
    except (TimeoutError, socket.timeout):
        return f"no answer in {PATIENCE} s", tag, None
    except (OSError, ssl.SSLError, h2.exceptions.ProtocolError):
        pass                                               # refused: a reset, an alert, an end
    if answer is None:
        return "-", tag, None
    kind = "http" if "x-request-id" in answer.get("headers", {}) else "tcp"
    if answer["tls"]:
        return "pass" if kind == "tcp" and client.tls is not None else f"{kind}, and TLS to the application", tag, answer
    if client.tls is None:
        return kind, tag, answer
    if b"spiffe://cluster.local/ns/" not in server:
        return f"{kind}, opened by somebody without an identity of the mesh", tag, answer
    told = answer.get("headers", {}).get("x-forwarded-client-cert", "")
    who = f"URI=spiffe://cluster.local/ns/test/sa/{client.tls['certificate']}" if client.tls.get("certificate") else "nobody"
    if kind == "http" and who not in told:
        return f"http, and the application was told {told!r}", tag, answer
    return f"{kind}+", tag, answer
