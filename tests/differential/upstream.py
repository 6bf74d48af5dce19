"""Servers that do what a case's script says, attempt by attempt, and write down what reached them.

A script is a list of steps; attempt n takes step n, later ones the last. A step is a dict, everything in it optional:
`status`, `headers`, `body` (text, or a number of bytes), `trailers`, `chunked` (HTTP/1), `interim` (a list of 1xx), `delay` (seconds before anything),
`early` (answer before the request's body is read), and how to break off: `break`: "before" | "after-interim" | "after-headers" | "mid-body", by `code` on
HTTP/2 (RST_STREAM) or by resetting the connection on HTTP/1 (`code: "FIN"` closes it in order). `upgrade` are headers of the answer to an upgrade.
"""
import asyncio, socket, struct

import wire


class World:
    """Scripts by case, and what came, by case."""

    def __init__(self):
        self.scripts, self.seen, self.servers = {}, {}, {}

    def begin(self, server, protocol, headers, **more):
        case = next((v for k, v in headers if k.lower() == "x-case"), None)
        entries = self.seen.setdefault(case, [])
        script = self.scripts.get(case) or [{}]
        mine = sum(e["server"] == server for e in entries) if script[0].get("by-server") else len([e for e in entries if not e["shadow"]])
        shadow = "-mirrors-" in (case or "") and server != "a"
        entry = {"server": server, "protocol": protocol, **more, "headers": headers, "shadow": shadow, "ended": None}
        entries.append(entry)
        return entry, {} if shadow else script[min(mine, len(script) - 1)]


def content(step):
    body = step.get("body", "ok")
    return b"".join(bytes([65 + i % 26]) * min(997, body - i * 997) for i in range((body + 996) // 997)) if isinstance(body, int) else body.encode("latin1")


class Server:
    """One upstream: HTTP/1 and HTTP/2 on one port, told apart by the first bytes; `tcp` greets with its name and echoes."""

    def __init__(self, world, name, kind="http"):
        self.world, self.name, self.kind, self.port, self.tasks = world, name, kind, None, set()

    async def start(self, tls=None):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls, backlog=512, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]
        self.world.servers[self.port] = self.name
        return self

    async def serve(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            if self.kind == "tcp":
                return await self.tcp(reader, writer)
            first = await reader.read(3)
            if first == b"PRI":
                peer = wire.H2Peer(reader, writer, client=False, on_request=self.h2_request)
                return await peer.run(first)
            while first:
                if not await self.h1_request(first, reader, writer):
                    break
                first = await reader.read(3)
        except (ConnectionError, OSError, wire.Cut, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass                                        # the other side, or the end of the run
        finally:
            self.tasks.discard(task)
            writer.close()

    # -- TCP ---------------------------------------------------------------------------------------------------------

    async def tcp(self, reader, writer):
        """The first line names the case; then every line comes back; `bye` makes the server close first."""
        line = await reader.readline()
        entry, _ = self.world.begin(self.name, "tcp", [("x-case", line.decode("latin1").strip())])
        writer.write(f"{self.name}\n".encode())
        got = b""
        while line := await reader.readline():
            got += line
            if line == b"bye\n":
                break
            writer.write(line)
            await writer.drain()
        entry["body"], entry["ended"] = wire.digest(got), "eof"
        writer.write(b"end\n")

    # -- HTTP/1 ------------------------------------------------------------------------------------------------------

    async def h1_request(self, first, reader, writer):
        line, headers = await wire.h1_head(reader, first)
        method, path, _ = line.split(" ", 2)
        fields = {k.lower(): v for k, v in headers}
        entry, step = self.world.begin(self.name, "h1", headers, method=method, path=path, authority=fields.get("host", ""))
        if fields.get("upgrade", "").lower() == "websocket" and not step.get("status"):
            return await self.upgrade(entry, step, reader, writer)
        if not step.get("early"):
            await self.h1_take_body(entry, reader, headers)
        if step.get("delay"):
            ended, entry["ended"] = entry["ended"], None  # not over before it is known whether the proxy waits
            left = await gone(reader, step["delay"])
            entry["ended"] = ended + ", abandoned" if left else ended
            if left:
                return False
        whole = await self.h1_answer(step, method, writer)
        if step.get("early") and whole:
            await self.h1_take_body(entry, reader, headers)
        return whole and step.get("close") is None

    async def h1_take_body(self, entry, reader, headers):
        try:
            body, trailers = await wire.h1_body(reader, headers, until_close=False)
            entry.update(body=wire.digest(body), trailers=trailers, ended="whole")
        except (wire.Cut, ConnectionError) as e:
            entry["ended"] = "cut off"
            raise wire.Cut from e

    async def h1_answer(self, step, method, writer):
        how = step.get("break")
        if how == "before":
            return abort(writer, step)
        for n in step.get("interim", []):
            writer.write(f"HTTP/1.1 {n} Interim\r\nx-interim: {n}\r\n\r\n".encode())
        if how == "after-interim":
            await writer.drain()
            await asyncio.sleep(0.15)
            return abort(writer, step)
        status, body, headers = step.get("status", 200), content(step), list(step.get("headers", []))
        bodiless = status in (204, 304) or method == "HEAD"
        chunked = step.get("chunked") or bool(step.get("trailers"))
        if step.get("close") == "until":
            headers.append(("connection", "close"))
        elif chunked and status not in (204, 304):
            headers.append(("transfer-encoding", "chunked"))
        elif status not in (204, 304):
            headers.append(("content-length", str(len(body))))
        headers.append(("x-server", self.name))
        line = f"HTTP/1.1 {status} Said"
        if how:
            head = wire.h1_message(line, headers)
            writer.write(head + (b"" if how == "after-headers" else (b"%x\r\n" % len(body) if chunked else b"") + body[:len(body) // 2]))
            await writer.drain()
            await asyncio.sleep(0.15)                   # let it pass before what breaks it off
            return abort(writer, step)
        if bodiless:
            writer.write(wire.h1_message(line, headers))
        else:
            writer.write(wire.h1_message(line, headers, body, step.get("trailers", ()), chunked and step.get("close") != "until"))
        await writer.drain()
        return True

    async def upgrade(self, entry, step, reader, writer):
        headers = [*step.get("upgrade", [("upgrade", "websocket"), ("connection", "Upgrade")]), ("x-server", self.name)]
        writer.write(wire.h1_message("HTTP/1.1 101 Switching Protocols", headers))
        got = b""
        while line := await reader.readline():
            got += line
            if line == b"bye\n":
                break
            writer.write(line)
            await writer.drain()
        if not got.endswith(b"bye\n"):                      # the client has left: does it hear of what comes after?
            await asyncio.sleep(0.1)
            writer.write(b"farewell\n")
        entry.update(body=wire.digest(got), ended="tunnel over")
        return False

    # -- HTTP/2 ------------------------------------------------------------------------------------------------------

    def h2_request(self, peer, stream, s):
        pseudo = {k: v for k, v in s.headers if k.startswith(":")}
        headers = [(k, v) for k, v in s.headers if not k.startswith(":")]
        entry, step = self.world.begin(self.name, "h2", headers, method=pseudo.get(":method"), path=pseudo.get(":path"),
                                       authority=pseudo.get(":authority", ""), scheme=pseudo.get(":scheme"))
        task = asyncio.ensure_future(self.h2_answer(peer, stream, s, entry, step, pseudo.get(":method")))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())

    async def h2_answer(self, peer, stream, s, entry, step, method):
        async def taken():
            await s.done.wait()
            entry.update(body=wire.digest(s.body), trailers=s.trailers, ended=s.reset or "whole")

        if not step.get("early"):
            await taken()
            if s.reset:
                return
        if step.get("delay"):
            ended, entry["ended"] = entry["ended"], None
            watch = asyncio.ensure_future(until_reset(s, peer))
            done, _ = await asyncio.wait([watch], timeout=step["delay"])
            watch.cancel()
            entry["ended"] = f"{ended}, abandoned" if done else ended
            if done:
                return
        how, code = step.get("break"), step.get("code", "INTERNAL_ERROR")
        if how == "before":
            return self.h2_break(peer, stream, code, before=True)
        for n in step.get("interim", []):
            peer.headers(stream, [(":status", str(n)), ("x-interim", str(n))])
        if how == "after-interim":
            await asyncio.sleep(0.15)
            return self.h2_break(peer, stream, code)
        status, body = step.get("status", 200), content(step)
        bodiless = status in (204, 304) or method == "HEAD"
        headers = [(":status", str(status)), *step.get("headers", []), ("x-server", self.name)]
        trailers = step.get("trailers")
        if step.get("trailers-only"):
            return peer.headers(stream, headers, end=True)
        if bodiless and not how:
            return peer.headers(stream, headers, end=True)
        peer.headers(stream, headers)
        if how:
            if how == "mid-body":
                await peer.data(stream, body[:len(body) // 2])
            await asyncio.sleep(0.15)
            return self.h2_break(peer, stream, code)
        await peer.data(stream, body, end=not trailers)
        if trailers:
            peer.headers(stream, trailers, end=True)
        if step.get("early"):
            await asyncio.wait_for(taken(), 3)

    def h2_break(self, peer, stream, code, before=False):
        if code != "GOAWAY":
            return peer.reset(stream, code)
        peer.conn.close_connection(last_stream_id=max(0, stream - 2) if before else stream)
        peer.flush()
        peer.writer.close()


async def until_reset(s, peer):
    s.window.clear()
    while not (s.reset or peer.ended):
        await s.window.wait()
        s.window.clear()


async def gone(reader, seconds):
    """Whether the other side ends the connection within a time; sends nothing meanwhile."""
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        if reader.at_eof() or reader.exception():
            return True
        await asyncio.sleep(min(0.02, left))
    return False


def abort(writer, step):
    if step.get("code") == "FIN":
        writer.close()
    else:
        if (s := writer.get_extra_info("socket")) is not None:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return False
