"""The websockets package on both ends: what Autobahn's groups ask (framing, pings, fragments, close codes, UTF-8, limits, compression)."""
import asyncio, ssl

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as listen

CASES = {}


def case(f):
    def run(mesh):
        asyncio.run(asyncio.wait_for(f(mesh), 60))
    CASES[f.__name__] = run
    return f


async def handler(ws):
    try:
        await answer(ws)
    except websockets.ConnectionClosed:
        pass


async def answer(ws):
    path = ws.request.path
    if path == "/close":
        return await ws.close(4321, "server says so")
    if path == "/fragments":
        await ws.send(["one ", "two ", "three"])
        return await ws.send([b"\1" * 1000] * 50)
    if path == "/headers":
        return await ws.send(f"{ws.request.headers.get('x-custom')} {ws.subprotocol}")
    async for message in ws:
        await ws.send(message)


async def serve():
    server = await listen(handler, "127.0.0.1", 0, max_size=None, select_subprotocol=lambda _, offered: "chat.v2" if "chat.v2" in offered else None)
    return server.sockets[0].getsockname()[1]


def ws(mesh, path="/", **options):
    return connect(f"ws://ws.test:{mesh.plain}{path}", host="127.0.0.1", port=mesh.plain, max_size=None, open_timeout=10, **options)


@case
async def websocket_echo(mesh):
    async with ws(mesh) as c:
        for message in ("", "text", "ü€😀", b"", b"\0\xff", "x" * 125, "x" * 126, "x" * 65535, "x" * 65536, b"\x80" * 1_000_000):
            await c.send(message)
            assert await c.recv() == message


@case
async def websocket_fragments(mesh):
    async with ws(mesh, "/fragments") as c:
        assert await c.recv() == "one two three"
        assert await c.recv() == b"\1" * 50_000
    async with ws(mesh) as c:
        await c.send(["a"] * 500)
        assert await c.recv() == "a" * 500

        async def slowly():
            for n in range(10):
                yield b"%d" % n
                await asyncio.sleep(0.02)
        await c.send(slowly())
        assert await c.recv() == b"0123456789"


@case
async def websocket_pings(mesh):
    async with ws(mesh) as c:
        for data in (b"", b"x", b"p" * 125):
            await asyncio.wait_for(await c.ping(data), 5)
        waiting = [await c.ping() for _ in range(20)]
        await asyncio.wait_for(asyncio.gather(*waiting), 5)


@case
async def websocket_close_codes(mesh):
    for code, reason in ((1000, "done"), (1001, ""), (1003, "no"), (1011, "ü"), (3000, ""), (4999, "r" * 120)):
        c = await ws(mesh)
        await c.send("x"); await c.recv()
        await c.close(code, reason)
        assert (c.close_code, c.close_reason) == (code, reason), (c.close_code, c.close_reason)
    c = await ws(mesh, "/close")
    try:
        await c.recv()
    except websockets.ConnectionClosed as e:
        assert (e.rcvd.code, e.rcvd.reason) == (4321, "server says so"), e.rcvd
    else:
        raise AssertionError("the server's close did not arrive")


@case
async def websocket_large(mesh):
    async with ws(mesh, compression=None) as c:
        message = bytes(range(256)) * (16 << 12)               # 16 MB in one frame, both ways
        await c.send(message)
        assert await c.recv() == message


@case
async def websocket_compression_subprotocol_headers(mesh):
    async with ws(mesh, "/headers", subprotocols=["chat.v1", "chat.v2"], additional_headers={"x-custom": "here"}) as c:
        assert c.subprotocol == "chat.v2" and await c.recv() == "here chat.v2"
    async with ws(mesh, compression="deflate") as c:
        assert "permessage-deflate" in c.response.headers.get("Sec-WebSocket-Extensions", ""), c.response.headers
        await c.send("again " * 20_000)
        assert await c.recv() == "again " * 20_000


@case
async def websocket_over_tls(mesh):
    trust = ssl.create_default_context(cafile=mesh.ca)
    async with connect(f"wss://ws.test:{mesh.tls}/", host="127.0.0.1", port=mesh.tls, ssl=trust, server_hostname="ws.test", max_size=None, open_timeout=10) as c:
        for message in ("text", b"\x80" * 1_000_000):
            await c.send(message)
            assert await c.recv() == message
        await asyncio.wait_for(await c.ping(b"x"), 5)


@case
async def websocket_many(mesh):
    async def one(n):
        async with ws(mesh) as c:
            for k in range(30):
                await c.send(f"{n} {k}")
                assert await c.recv() == f"{n} {k}"
    await asyncio.gather(*(one(n) for n in range(50)))


@case
async def websocket_pipelined(mesh):
    async with ws(mesh) as c:
        async def pour():
            for n in range(3000):
                await c.send(f"{n} " + "y" * 200)
        pouring = asyncio.ensure_future(pour())
        for n in range(3000):
            assert (await c.recv()).startswith(f"{n} ")
        await pouring
