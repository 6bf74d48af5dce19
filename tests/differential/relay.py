#!/usr/bin/env python3
"""The application of a workload under `maille run`: passes what comes to $PORT on to a port of the harness, byte by byte."""
import asyncio, os, sys


async def pass_on(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (ConnectionError, OSError):
        writer.transport.abort()                           # a reset on one side is a reset on the other


async def serve(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(pass_on(reader, there[1]), pass_on(there[0], writer))
    writer.close()
    there[1].close()


async def main():
    with open(sys.argv[2] + ".new", "w") as f:
        f.write(os.environ["http_proxy"])
    os.rename(sys.argv[2] + ".new", sys.argv[2])
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]), backlog=512)
    await server.serve_forever()


asyncio.run(main())
