"""Sends one request of a case and says everything that came back."""
import asyncio, socket, ssl

import wire


async def ask(ports, send, case):
    """`send`: {to, protocol, method, path, host, headers, body, chunked, trailers, source, sni, cancel, lines, patience}; `ports` by listener.
    `unfinished`: half of the body is sent, and then nothing; `cancel` leaves as well."""
    try:
        return await asyncio.wait_for(one(ports, send, case), send.get("patience", 8))
    except asyncio.TimeoutError:
        return {"error": "no end"}
    except wire.Cut as e:
        return {"error": f"cut {e}"}
    except Unanswered:
        return {"error": "closed without an answer"}       # in order or by a reset: which, depends on what the kernel still held
    except ssl.SSLError as e:
        return {"error": f"TLS: {e.reason or type(e).__name__}"}
    except (ConnectionError, OSError, asyncio.IncompleteReadError) as e:
        return {"error": "connection lost" if isinstance(e, (ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError)) else type(e).__name__}


class Unanswered(Exception):
    pass


async def one(ports, send, case):
    tls, protocol = None, send.get("protocol", "h1")
    if sni := send.get("sni"):
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        tls.set_alpn_protocols(send.get("alpn", ["h2"] if protocol == "h2" else ["http/1.1"]))
        if send.get("cert"):
            tls.load_cert_chain(*send["cert"])
    local = (send["source"], 0) if "source" in send else None
    at = ports[send.get("to", "http")]
    address, port = at if isinstance(at, tuple) else ("127.0.0.1", at)
    reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=sni if tls else None,
                                                   local_addr=local, limit=1 << 22)
    try:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        out = {"alpn": writer.get_extra_info("ssl_object").selected_alpn_protocol()} if tls else {}
        return out | await {"h1": h1, "h2": h2, "tcp": tcp, "upgrade": upgrade}[protocol](reader, writer, send, case)
    finally:
        writer.close()


def body_of(send):
    body = send.get("body", b"")
    return (b"0123456789abcdef" * (body // 16 + 1))[:body] if isinstance(body, int) else body.encode("latin1") if isinstance(body, str) else body


def h1_request(send, case):
    body, chunked = body_of(send), send.get("chunked") or bool(send.get("trailers"))
    headers = [("Host", send["host"]), ("x-case", case), *send.get("headers", [])]
    if chunked:
        headers.append(("Transfer-Encoding", "chunked"))
    elif body or send.get("method", "GET") in ("POST", "PUT"):
        headers.append(("Content-Length", str(len(body))))
    line = f"{send.get('method', 'GET')} {send.get('path', '/')} HTTP/1.1"
    return wire.h1_message(line, headers, body, send.get("trailers", ()), chunked)


async def h1(reader, writer, send, case):
    data = h1_request(send, case)
    if cancel := send.get("cancel"):
        writer.write(data[:-len(body_of(send)) // 2] if cancel == "mid-body" else data)
        await writer.drain()
        await asyncio.sleep(0.3)
        return {"cancelled": True}
    if send.get("unfinished"):
        data = data[:-len(body_of(send)) // 2]
    writing = asyncio.ensure_future(pour(writer, data))
    out = {"interim": []}
    try:
        while True:
            head = await wire.h1_head(reader)
            if head is None:
                raise Unanswered
            line, headers = head
            status = int(line.split(" ")[1])
            if status >= 200 or status == 101:
                break
            out["interim"].append(status)
        out |= {"status": status, "headers": headers}
        body, trailers = b"", []
        if send.get("method") != "HEAD" and status not in (204, 304, 101):
            body, trailers = await wire.h1_body(reader, headers, until_close=True)
        return out | {"body": wire.digest(body), "trailers": trailers, "ended": "whole"}
    except (wire.Cut, ConnectionError) as e:
        if "status" not in out:
            raise Unanswered from e
        return out | {"ended": "cut"}
    finally:
        writing.cancel()


async def pour(writer, data):
    try:
        writer.write(data)
        await writer.drain()
    except ConnectionError:
        pass


async def h2(reader, writer, send, case):
    peer = wire.H2Peer(reader, writer, client=True)
    running = asyncio.ensure_future(peer.run())
    try:
        n = peer.conn.get_next_available_stream_id()
        s = peer.streams[n] = wire.H2Stream()
        body, trailers = body_of(send), send.get("trailers")
        headers = [(":method", send.get("method", "GET")), (":scheme", "https" if send.get("sni") else "http"), (":path", send.get("path", "/")),
                   (":authority", send["host"]), ("x-case", case), *((k.lower(), v) for k, v in send.get("headers", []))]
        if send.get("length"):
            headers.append(("content-length", str(len(body))))
        sends_body = bool(body or trailers or send.get("method") in ("POST", "PUT"))
        # The end of an empty body comes with the head: whether it does before a refusal would be a race.
        empty = sends_body and not (body or trailers or send.get("cancel") or send.get("unfinished"))
        peer.headers(n, headers, end=not sends_body, more=empty)
        if send.get("cancel"):
            if send["cancel"] == "mid-body":
                await peer.data(n, body[:len(body) // 2])
            elif sends_body:
                await peer.data(n, body, end=True)
            await asyncio.sleep(0.3)
            peer.reset(n, "CANCEL")
            await writer.drain()
            await asyncio.sleep(0.1)
            return {"cancelled": True}
        pouring = None
        if sends_body:
            async def pour_all():
                if send.get("unfinished"):
                    return await peer.data(n, body[:len(body) // 2])
                if await peer.data(n, body, end=not trailers) and trailers:
                    peer.headers(n, [(k.lower(), v) for k, v in trailers], end=True)
            pouring = asyncio.ensure_future(pour_all())
        await s.done.wait()
        if send.get("unfinished"):
            await asyncio.sleep(0.2)                       # for what comes after the end of the answer
        if pouring:
            pouring.cancel()
        out = {"interim": s.interim}
        if s.headers:
            status = next((v for k, v in s.headers if k == ":status"), "0")
            out |= {"status": int(status), "headers": [h for h in s.headers if h[0] != ":status"], "body": wire.digest(s.body), "trailers": s.trailers}
        return out | {"ended": s.reset or "whole"}
    finally:
        running.cancel()


async def tcp(reader, writer, send, case):
    """The case's name, then each line and its echo; what came, and how it ended."""
    writer.write(f"{case}\n".encode())
    lines, got = send.get("lines", ["ping", "bye"]), []
    try:
        got.append((await reader.readline()).decode("latin1"))
        for line in lines:
            writer.write(line.encode("latin1") + b"\n")
            await writer.drain()
            if line == "EOF" or line == "bye":
                break
            got.append((await reader.readline()).decode("latin1"))
        if send.get("half-close"):
            writer.write_eof()
        got.append((await reader.read(-1)).decode("latin1"))
        return {"got": wire.digest("".join(got).encode("latin1")), "ended": "closed"}
    except ConnectionError:
        return {"got": wire.digest("".join(got).encode("latin1")), "ended": "reset"}


async def upgrade(reader, writer, send, case):
    """Asks to upgrade; on 101 talks lines through the tunnel, otherwise reads the answer as any other."""
    early = "".join(f"{x}\n" for x in send.get("early", []))
    headers = [("Host", send["host"]), ("x-case", case), ("Connection", send.get("connection", "Upgrade")), ("Upgrade", send.get("upgrade", "websocket")), *send.get("headers", [])]
    writer.write(wire.h1_message(f"GET {send.get('path', '/')} HTTP/1.1", headers) + early.encode())
    head = await wire.h1_head(reader)
    if head is None:
        raise Unanswered
    line, headers = head
    out = {"status": int(line.split(" ")[1]), "headers": headers}
    if out["status"] != 101:
        body, _ = await wire.h1_body(reader, headers, until_close=True)
        return out | {"body": wire.digest(body)}
    got = [(await reader.readline()).decode() for _ in send.get("early", [])]
    for line in send.get("lines", ["ping", "bye"]):
        if line == "EOF":
            writer.write_eof()
            break
        writer.write(line.encode() + b"\n")
        if line == "bye":
            break
        got.append((await reader.readline()).decode())
    got.append((await reader.read(-1)).decode())
    return out | {"got": "".join(got), "ended": "closed"}
