"""grpcio on both ends: unary calls, the three kinds of stream, deadlines, cancellation, large messages."""
import concurrent.futures, threading, time

import grpc

CASES = {}
LARGE = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
cancelled = threading.Event()


def case(f):
    CASES[f.__name__] = f
    return f


class Service(grpc.GenericRpcHandler):
    """Messages are bytes; nothing is generated."""

    def service(self, call):
        kind = call.method.rsplit("/", 1)[1]
        handler = getattr(self, kind, None)
        make = {"Stream": grpc.unary_stream_rpc_method_handler, "Gather": grpc.stream_unary_rpc_method_handler, "Chat": grpc.stream_stream_rpc_method_handler,
                "Endless": grpc.unary_stream_rpc_method_handler}.get(kind, grpc.unary_unary_rpc_method_handler)
        return make(handler) if handler else None

    def Echo(self, request, context):
        seen = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-first", seen.get("x-in", "none")),))
        context.set_trailing_metadata((("x-last", "yes"), ("x-raw-bin", bytes(range(32)))))
        return request

    def Fail(self, request, context):
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ü %")

    def Slow(self, request, context):
        context.add_callback(cancelled.set)
        time.sleep(0.05)
        for _ in range(100):
            if not context.is_active():
                return b""
            time.sleep(0.05)
        return b"late"

    def Stream(self, request, context):
        for n in range(int(request)):
            yield b"%d" % n

    def Endless(self, request, context):
        context.add_callback(cancelled.set)
        n = 0
        while context.is_active():
            yield b"%d" % n
            n += 1
            time.sleep(0.01)

    def Gather(self, requests, context):
        return b"%d" % sum(map(len, requests))

    def Chat(self, requests, context):
        for r in requests:
            yield r.upper()


def serve():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=LARGE)
    server.add_generic_rpc_handlers((Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


class channel:
    """A channel of its own, closed after use."""

    def __init__(self, mesh, tls=False, **options):
        opts = list({**dict(LARGE), "grpc.default_authority": "grpc.test", "grpc.enable_retries": 0, "grpc.use_local_subchannel_pool": 1, **options}.items())
        if tls:
            creds = grpc.ssl_channel_credentials(mesh.ca.read_bytes())
            self.c = grpc.secure_channel(f"127.0.0.1:{mesh.tls}", creds, [*opts, ("grpc.ssl_target_name_override", "grpc.test")])
        else:
            self.c = grpc.insecure_channel(f"127.0.0.1:{mesh.plain}", opts)

    def __enter__(self):
        return self.c

    def __exit__(self, *_):
        self.c.close()


def code_of(call, *args, **kw):
    try:
        call(*args, **kw)
        return grpc.StatusCode.OK, None
    except grpc.RpcError as e:
        return e.code(), e


@case
def grpc_unary_with_metadata(mesh):
    with channel(mesh) as c:
        answer, call = c.unary_unary("/t.S/Echo").with_call(b"hi", metadata=(("x-in", "seen"), ("x-other-bin", b"\0\xff")), timeout=10)
        assert answer == b"hi" and dict(call.initial_metadata())["x-first"] == "seen", call.initial_metadata()
        last = dict(call.trailing_metadata())
        assert last["x-last"] == "yes" and last["x-raw-bin"] == bytes(range(32)), last


@case
def grpc_over_tls(mesh):
    with channel(mesh, tls=True) as c:
        assert c.unary_unary("/t.S/Echo")(b"hi", timeout=10) == b"hi"
        assert [*c.stream_stream("/t.S/Chat")(iter([b"a", b"b"]), timeout=10)] == [b"A", b"B"]


@case
def grpc_errors(mesh):
    with channel(mesh) as c:
        code, e = code_of(c.unary_unary("/t.S/Fail"), b"", timeout=10)
        assert code == grpc.StatusCode.FAILED_PRECONDITION and e.details() == "not now: ü %" and dict(e.trailing_metadata())["x-why"] == "because", e
        assert code_of(c.unary_unary("/t.S/Nothing"), b"", timeout=10)[0] == grpc.StatusCode.UNIMPLEMENTED
    with channel(mesh, **{"grpc.default_authority": "nobody.test"}) as c:
        code, e = code_of(c.unary_unary("/t.S/Echo"), b"", timeout=10)
        assert code == grpc.StatusCode.UNIMPLEMENTED, e     # no route: 404 becomes UNIMPLEMENTED


@case
def grpc_server_stream(mesh):
    with channel(mesh) as c:
        assert [*c.unary_stream("/t.S/Stream")(b"2000", timeout=20)] == [b"%d" % n for n in range(2000)]
        assert [*c.unary_stream("/t.S/Stream")(b"0", timeout=20)] == []


@case
def grpc_client_stream(mesh):
    with channel(mesh) as c:
        assert c.stream_unary("/t.S/Gather")((b"x" * 1000 for _ in range(2000)), timeout=20) == b"2000000"
        assert c.stream_unary("/t.S/Gather")(iter([]), timeout=20) == b"0"


@case
def grpc_bidirectional_stream(mesh):
    """Ping and pong: each message is sent when the answer to the last has come, so nothing on the way may wait for more."""
    with channel(mesh) as c:
        turn = threading.Semaphore(1)

        def asks():
            for n in range(200):
                assert turn.acquire(timeout=10), "the answer never came"
                yield b"m%d" % n
        got = []
        for answer in c.stream_stream("/t.S/Chat")(asks(), timeout=20):
            got.append(answer)
            turn.release()
        assert got == [b"M%d" % n for n in range(200)], len(got)


@case
def grpc_deadlines(mesh):
    with channel(mesh) as c:
        cancelled.clear()
        code, _ = code_of(c.unary_unary("/t.S/Slow"), b"", timeout=0.4)
        assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE), code   # the client's clock or the proxy's, whichever is first
        assert cancelled.wait(5), "the server was not told"
        late = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        silence = threading.Event()

        def never():
            yield b"one"
            silence.wait(10)
        for what, call in (("server stream", lambda: [*c.unary_stream("/t.S/Endless")(b"", timeout=0.4)]),
                           ("client stream", lambda: c.stream_unary("/t.S/Gather")(never(), timeout=0.4)),
                           ("both", lambda: [*c.stream_stream("/t.S/Chat")(never(), timeout=0.4)])):
            code, _ = code_of(call)
            assert code in late, (what, code)
        silence.set()


@case
def grpc_cancellation(mesh):
    with channel(mesh) as c:
        cancelled.clear()
        call = c.unary_stream("/t.S/Endless")(b"", timeout=20)
        assert next(call) == b"0" and next(call) == b"1"
        call.cancel()
        assert cancelled.wait(5), "the server was not told"
        cancelled.clear()
        call = c.unary_unary("/t.S/Slow").future(b"", timeout=20)
        time.sleep(0.3)
        call.cancel()
        assert cancelled.wait(5), "the server was not told"
        going = threading.Event()

        def asks():
            yield b"one"
            going.wait(10)
        chat = c.stream_stream("/t.S/Chat")(asks(), timeout=20)
        assert next(chat) == b"ONE"
        chat.cancel()
        code, _ = code_of(lambda: [*chat])
        assert code == grpc.StatusCode.CANCELLED, code
        going.set()
        assert c.unary_unary("/t.S/Echo")(b"after", timeout=10) == b"after"


@case
def grpc_large_messages(mesh):
    with channel(mesh) as c:
        message = bytes(range(256)) * (20 << 12)              # 20 MB
        assert c.unary_unary("/t.S/Echo")(message, timeout=60) == message


@case
def grpc_large_messages_in_streams(mesh):
    with channel(mesh) as c:
        message = b"large " * (3 << 18)                        # 4.5 MB, six of them
        assert c.stream_unary("/t.S/Gather")((message for _ in range(6)), timeout=60) == b"%d" % (6 * len(message))
        assert [len(m) for m in c.stream_stream("/t.S/Chat")((message for _ in range(6)), timeout=60)] == [len(message)] * 6


@case
def grpc_compressed(mesh):
    with channel(mesh) as c:
        message = b"again " * 100_000
        assert c.unary_unary("/t.S/Echo")(message, timeout=20, compression=grpc.Compression.Gzip) == message


@case
def grpc_many_at_once(mesh):
    with channel(mesh) as c:
        calls = [c.unary_unary("/t.S/Echo").future(b"%d" % n, timeout=30) for n in range(500)]
        assert [f.result() for f in calls] == [b"%d" % n for n in range(500)]


@case
def grpc_large_metadata(mesh):
    with channel(mesh, **{"grpc.max_metadata_size": 32768}) as c:
        assert c.unary_unary("/t.S/Echo")(b"x", metadata=(("x-big", "v" * 6000),), timeout=10) == b"x"


@case
def grpc_connection_kept_alive_by_pings(mesh):
    with channel(mesh, **{"grpc.keepalive_time_ms": 1000, "grpc.keepalive_permit_without_calls": 1}) as c:
        assert c.unary_unary("/t.S/Echo")(b"1", timeout=10) == b"1"
        time.sleep(3)
        assert c.unary_unary("/t.S/Echo")(b"2", timeout=10) == b"2"
