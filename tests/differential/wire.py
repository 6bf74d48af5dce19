"""HTTP/1 and HTTP/2 as bytes, for a client and a server that must be able to misbehave on purpose."""
import asyncio, hashlib

import h2.config, h2.connection, h2.errors, h2.events, h2.exceptions, h2.settings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 1 << 20


def digest(data):
    """A body as it is compared and shown: short ones as they stand, long ones by length and hash."""
    return data.decode("latin1") if len(data) <= 160 else f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}"


class Cut(Exception):
    """The other side ended in the middle of a message."""


# -- HTTP/1 ---------------------------------------------------------------------------------------------------------


async def h1_head(reader, first=b""):
    """(first line, [(name, value)]); None when the connection ended before a byte of it."""
    try:
        data = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as e:
        if e.partial or first:
            raise Cut("in the head")
        return None
    line, *fields = data[:-4].decode("latin1").split("\r\n")
    return line, [tuple(p.strip() for p in f.split(":", 1)) for f in fields]


async def h1_body(reader, headers, *, until_close):
    """(body, trailers). `until_close`: what has no length lasts until the connection ends (responses)."""
    fields = {k.lower(): v for k, v in headers}
    try:
        if "chunked" in fields.get("transfer-encoding", "").lower():
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            trailers = []
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                trailers.append(tuple(p.strip() for p in line[:-2].decode("latin1").split(":", 1)))
            return body, trailers
        if "content-length" in fields:
            return await reader.readexactly(int(fields["content-length"])), []
        return (await reader.read(-1) if until_close else b""), []
    except asyncio.IncompleteReadError:
        raise Cut("in the body")


def h1_message(line, headers, body=b"", trailers=(), chunked=False):
    """A whole message. `chunked` sends the body in chunks of at most 16 KiB, trailers after them."""
    out = line.encode("latin1") + b"\r\n" + b"".join(f"{k}: {v}\r\n".encode("latin1") for k, v in headers) + b"\r\n"
    if not chunked:
        return out + body
    for at in range(0, len(body), 16384):
        part = body[at:at + 16384]
        out += f"{len(part):x}\r\n".encode() + part + b"\r\n"
    return out + b"0\r\n" + b"".join(f"{k}: {v}\r\n".encode("latin1") for k, v in trailers) + b"\r\n"


# -- HTTP/2 ---------------------------------------------------------------------------------------------------------


class H2Stream:
    """What arrived on one stream; `done` when it ended whole, or `reset` says how it did not."""

    def __init__(self):
        self.headers, self.trailers, self.interim = None, [], []
        self.body, self.reset = b"", None
        self.started, self.done, self.window = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def fail(self, why, always=False):
        if always or not self.done.is_set():
            self.reset = self.reset or why
        for e in (self.started, self.done, self.window):
            e.set()


class H2Peer:
    """One HTTP/2 connection. Nothing is checked on the way out: tests send what they please."""

    def __init__(self, reader, writer, *, client, on_request=None):
        config = h2.config.H2Configuration(client_side=client, header_encoding="latin1", validate_outbound_headers=False,
                                           normalize_outbound_headers=False, validate_inbound_headers=False)
        self.reader, self.writer, self.on_request = reader, writer, on_request
        self.conn, self.streams, self.ended = h2.connection.H2Connection(config), {}, None
        self.conn.initiate_connection()
        self.conn.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self.conn.increment_flow_control_window(16 * WINDOW)
        self.flush()

    def flush(self):
        if data := self.conn.data_to_send():
            try:
                self.writer.write(data)
            except (ConnectionError, RuntimeError):
                pass

    async def run(self, first=b""):
        try:
            data = first or await self.reader.read(65536)
            while data:
                for event in self.conn.receive_data(data):
                    self.take(event)
                self.flush()
                data = await self.reader.read(65536)
            self.ended = self.ended or "closed"
        except h2.exceptions.ProtocolError as e:
            self.ended = f"broke the protocol: {type(e).__name__}"
            self.flush()
        except (ConnectionError, OSError) as e:
            self.ended = self.ended or type(e).__name__
        for s in self.streams.values():
            s.fail(self.ended)

    def take(self, e):
        ev = h2.events
        s = self.streams.get(getattr(e, "stream_id", None))
        if isinstance(e, ev.RequestReceived):
            s = self.streams[e.stream_id] = H2Stream()
            s.headers = list(e.headers)
            s.started.set()
            self.on_request(self, e.stream_id, s)
        elif isinstance(e, ev.InformationalResponseReceived) and s:
            s.interim.append(int(dict(e.headers)[":status"]))
        elif isinstance(e, ev.ResponseReceived) and s:
            s.headers = list(e.headers)
            s.started.set()
        elif isinstance(e, ev.TrailersReceived) and s:
            s.trailers = list(e.headers)
        elif isinstance(e, ev.DataReceived):
            if s:
                s.body += e.data
            self.conn.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
        elif isinstance(e, ev.StreamEnded) and s:
            s.done.set()
        elif isinstance(e, ev.StreamReset) and s:
            s.fail(f"reset {code(e.error_code)}", always=True)
        elif isinstance(e, ev.ConnectionTerminated):
            self.ended = f"goaway {code(e.error_code)}"
            for n, other in self.streams.items():
                if e.last_stream_id is None or n > e.last_stream_id:
                    other.fail(self.ended)
        elif isinstance(e, (ev.WindowUpdated, ev.RemoteSettingsChanged)):
            for other in self.streams.values():
                other.window.set()

    def headers(self, stream, headers, end=False, more=False):
        """Sends a head; where there is more to come it goes with that, in one piece."""
        self.conn.send_headers(stream, headers, end_stream=end)
        if not more:
            self.flush()

    async def data(self, stream, data, end=False):
        """Sends all of `data`, as fast as the other side's windows allow; False when the stream broke first."""
        s, at = self.streams[stream], 0
        try:
            while at < len(data):
                room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size, len(data) - at)
                if room <= 0:
                    s.window.clear()
                    await s.window.wait()
                    if s.reset or self.ended:
                        return False
                    continue
                self.conn.send_data(stream, data[at:at + room], end_stream=end and at + room == len(data))
                at += room
                self.flush()
                await self.writer.drain()
            if end and not data:
                self.conn.end_stream(stream)
                self.flush()
            return True
        except (h2.exceptions.ProtocolError, ConnectionError):
            return False

    def reset(self, stream, name):
        try:
            self.conn.reset_stream(stream, getattr(h2.errors.ErrorCodes, name))
            self.flush()
        except h2.exceptions.ProtocolError:
            pass


def code(number):
    try:
        return h2.errors.ErrorCodes(number).name
    except ValueError:
        return str(number)
