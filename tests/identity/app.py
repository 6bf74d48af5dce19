"""The application behind a sidecar. It takes whatever comes, in plain text or TLS (with a certificate of its own): HTTP/1.1, HTTP/2,
or bytes, and answers with what it was given, as JSON. What arrived is also written down: app.py FOLDER NAME [ADDRESS:PORT ...]"""
import json, os, pathlib, socket, ssl, sys, threading

import h2.config, h2.connection, h2.events

METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ")
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
places = [("127.0.0.1", int(os.environ["PORT"]))] if "PORT" in os.environ else []
places += [(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in sys.argv[3:]]
seen, lock = open(folder / f"{name}.seen", "a", buffering=1), threading.Lock()
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(folder / "app.crt", folder / "app.key")


def arrived(what, **more):
    with lock:
        seen.write(what + "\n")
    return json.dumps({"app": name, "saw": what, **more}).encode() + b"\n"


def serve(conn):
    conn.settimeout(30)
    first = conn.recv(1, socket.MSG_PEEK)
    if not first:
        return
    secure = first == b"\x16"
    if secure:
        conn = tls.wrap_socket(conn, server_side=True)
    data = conn.recv(65536)
    if data.startswith(b"PRI "):
        return http2(conn, data, secure)
    if data.startswith(METHODS):
        return http1(conn, data, secure)
    while data:                                            # bytes: a line comes back for every line
        while b"\n" in data:
            line, data = data.split(b"\n", 1)
            conn.sendall(arrived(line.decode("latin1"), protocol="bytes", tls=secure))
        more = conn.recv(65536)
        if not more:
            return
        data += more


def http1(conn, data, secure):
    while True:
        while b"\r\n\r\n" not in data:
            more = conn.recv(65536)
            if not more:
                return
            data += more
        head, data = data.split(b"\r\n\r\n", 1)
        lines = head.decode("latin1").split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        body = arrived(lines[0].split(" ")[1], protocol="http1", tls=secure, headers=headers)
        conn.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def http2(conn, data, secure):
    h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    h.initiate_connection()
    conn.sendall(h.data_to_send())
    while data:
        for event in h.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = dict(event.headers)
                body = arrived(headers[":path"], protocol="http2", tls=secure, headers=headers)
                h.send_headers(event.stream_id, [(":status", "200")])
                h.send_data(event.stream_id, body, end_stream=True)
        conn.sendall(h.data_to_send())
        data = conn.recv(65536)


def quietly(conn):
    try:
        serve(conn)
    except (OSError, ssl.SSLError, h2.exceptions.ProtocolError):
        pass                                               # whoever hangs up, or speaks nonsense, is not answered
    finally:
        conn.close()


def listen(place):
    with socket.create_server(place) as server:
        ready.release()
        while True:
            threading.Thread(target=quietly, args=(server.accept()[0],), daemon=True).start()


ready = threading.Semaphore(0)
for place in places:
    threading.Thread(target=listen, args=(place,), daemon=True).start()
for _ in places:
    ready.acquire()
(folder / f"{name}.new").write_text(os.environ.get("http_proxy", ""))
os.rename(folder / f"{name}.new", folder / f"{name}.place")
threading.Event().wait()
