"""HTTP/2, case by case: RFC 9113 and RFC 7541, with the list and the rules of acceptance of h2spec.

A connection error is a GOAWAY with one of the codes, or a close. A stream error is that, or a
RST_STREAM with one of the codes. Silence is a failure. What is malformed but well framed (the
cases in `MALFORMED`, which go beyond h2spec's) may also be answered with 4xx (section 8.1.1); it
must not reach the upstream.
"""

import struct

from wire import (
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, HEADER_TABLE_SIZE,
    INITIAL_WINDOW, MAX_FRAME, MAX_STREAMS, NAMES, PADDED, PING, PREFACE, PRIORITISED, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, ENABLE_PUSH, WINDOW_UPDATE, Ended, Http2, Silence, block,
    error_name, field, integer,
)

NO_ERROR, PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
CALM = 11
OPEN = END_HEADERS
WHOLE = END_HEADERS | END_STREAM

CASES = []


class Wrong(Exception):
    """Something else came than was expected."""


def case(section, title):
    def add(run):
        CASES.append((section, title, run))
        return run
    return add


class Client(Http2):
    """What the cases are written with."""

    def request(self, method="GET", **other):
        fields = [(":method", method), (":scheme", "https"), (":path", other.get("path", "/")),
                  (":authority", self.host)]
        return fields + other.get("fields", [])

    def headers_frame(self, stream=1, flags=WHOLE, fields=None, before=b"", after=b"", raw=None):
        block_ = block(self.request() if fields is None else fields) if raw is None else raw
        self.frame(HEADERS, flags, stream, before + block_ + after)

    def data(self, stream, flags, payload=b"test"):
        self.frame(DATA, flags, stream, payload)

    def wait(self, wanted, expected):
        """The next frame that is wanted; anything else that comes is passed over."""
        last = "nothing"
        while True:
            try:
                got = self.next()
            except Silence:
                raise Wrong(f"expected {expected}; came {last}, and no more") from None
            except Ended:
                raise Wrong(f"expected {expected}; came {last}, and the end") from None
            if wanted(got):
                return got
            last = str(got)

    def kind(self, kind, stream=None):
        return self.wait(
            lambda got: got.kind == kind and stream in (None, got.stream), NAMES[kind])

    def answered(self, stream=1):
        self.kind(HEADERS, stream)

    def ended(self, stream=1):
        self.wait(lambda got: got.ends() and got.stream == stream, "the end of the stream")

    def pong(self, data=b"\0" * 8):
        self.ping(data)
        self.wait(lambda got: got.kind == PING and got.is_ack() and got.payload == data, "PING ACK")

    def pong_or_end(self):
        self.ping()
        try:
            self.wait(lambda got: got.kind == PING and got.is_ack(), "PING ACK")
        except Wrong as wrong:
            if not str(wrong).endswith("the end"):
                raise

    def closes(self):
        try:
            while True:
                self.next()
        except Ended:
            return
        except Silence:
            raise Wrong("expected a close; it stays open") from None

    def fails(self, codes, streams):
        kinds = (GOAWAY, RST_STREAM) if streams else (GOAWAY,)
        last = "nothing"
        while True:
            try:
                got = self.next()
            except Ended:
                return
            except Silence:
                names = " or ".join(error_name(code) for code in codes)
                raise Wrong(f"expected {names}; came {last}") from None
            if got.kind in kinds and got.code in codes:
                return
            last = str(got)

    def connection_error(self, *codes):
        self.fails(codes, False)

    def stream_error(self, *codes):
        self.fails(codes, True)

    def one_byte(self, stream=1):
        got = self.kind(DATA)
        if len(got.payload) != 1:
            raise Wrong(f"expected DATA of 1 byte; came {got}")


def opened(section, title, *settings):
    """A case that begins with the preface done."""
    def add(run):
        def whole(c):
            c.open(*settings)
            run(c)
        CASES.append((section, title, whole))
        return run
    return add


def simple(section, title, send, expect):
    """A case in a line: what is sent, what must come of it."""
    opened(section, title)(lambda c: (send(c), expect(c)))


def goaway(*codes):
    return lambda c: c.connection_error(*codes)


def reset(*codes):
    return lambda c: c.stream_error(*codes)


answered = Client.answered
pong = Client.pong
ended = Client.ended


# What an endpoint must take.

@case("generic 1", "A preface")
def _(c):
    c.send(PREFACE)
    c.settings((INITIAL_WINDOW, 65535))
    c.kind(SETTINGS)


simple("generic 2", "PRIORITY on an idle stream", lambda c: c.priority(1), pong)


@opened("generic 2", "WINDOW_UPDATE on a half-closed stream")
def _(c):
    c.settings((INITIAL_WINDOW, 0))
    c.headers_frame()
    c.window(1, 1)
    c.kind(DATA)


@opened("generic 2", "PRIORITY on a half-closed stream")
def _(c):
    c.settings((INITIAL_WINDOW, 0))
    c.headers_frame()
    c.priority(1)
    c.window(1, 1)
    c.kind(DATA)


simple("generic 2", "RST_STREAM on a half-closed stream",
       lambda c: (c.headers_frame(), c.reset(1)), Client.pong_or_end)
simple("generic 2", "PRIORITY on a closed stream",
       lambda c: (c.headers_frame(), c.ended(), c.priority(1)), pong)


def post(c, flags=OPEN, **other):
    c.headers_frame(1, flags, c.request("POST", **other))


simple("generic 3.1", "DATA", lambda c: (post(c), c.data(1, END_STREAM)), answered)
simple("generic 3.1", "Several DATA",
       lambda c: (post(c), c.data(1, 0), c.data(1, END_STREAM)), answered)
simple("generic 3.1", "DATA with padding",
       lambda c: (post(c), c.data(1, END_STREAM | PADDED, b"\x06test" + b"\0" * 6)), answered)
simple("generic 3.2", "HEADERS", lambda c: c.headers_frame(), answered)
simple("generic 3.2", "HEADERS with padding",
       lambda c: c.headers_frame(1, WHOLE | PADDED, before=b"\x06", after=b"\0" * 6), answered)
simple("generic 3.2", "HEADERS with priority",
       lambda c: c.headers_frame(1, WHOLE | PRIORITISED, before=b"\0\0\0\0\xff"), answered)
for title, arguments in [
    ("PRIORITY 1", (0, 0)), ("PRIORITY 256", (0, 255)), ("PRIORITY on a stream", (1, 255)),
    ("PRIORITY, exclusive", (0x80000001, 255)),
]:
    simple("generic 3.3", title,
           lambda c, a=arguments: (c.priority(3, *a), c.headers_frame(3)),
           lambda c: c.answered(3))
simple("generic 3.3", "PRIORITY for an idle stream, then HEADERS on a lower one",
       lambda c: (c.priority(5), c.headers_frame(3)), lambda c: c.answered(3))
simple("generic 3.4", "RST_STREAM",
       lambda c: (c.headers_frame(1, OPEN), c.reset(1)), pong)
simple("generic 3.5", "SETTINGS", lambda c: c.settings((MAX_STREAMS, 100)),
       lambda c: c.wait(lambda got: got.kind == SETTINGS and got.is_ack(), "SETTINGS ACK"))
simple("generic 3.7", "PING", lambda c: None, lambda c: c.pong(b"pingpong"))
simple("generic 3.8", "GOAWAY", lambda c: c.frame(GOAWAY, 0, 0, b"\0" * 8), Client.pong_or_end)
simple("generic 3.9", "WINDOW_UPDATE on stream 0",
       lambda c: (c.window(0, 1), c.headers_frame()), answered)
simple("generic 3.9", "WINDOW_UPDATE on a stream",
       lambda c: (c.headers_frame(1, OPEN), c.window(1, 1), c.data(1, END_STREAM)), answered)


def continued(c, count, stream=1):
    c.headers_frame(stream, END_STREAM)
    for at in range(count):
        flags = END_HEADERS if at == count - 1 else 0
        c.frame(CONTINUATION, flags, stream, field(f"x-dummy{at}", "a" * 100))


simple("generic 3.10", "CONTINUATION", lambda c: continued(c, 1), answered)
simple("generic 3.10", "Several CONTINUATION", lambda c: continued(c, 2), answered)
simple("generic 4", "GET", lambda c: c.headers_frame(), answered)
simple("generic 4", "HEAD", lambda c: c.headers_frame(fields=c.request("HEAD")), answered)
simple("generic 4", "POST", lambda c: (post(c), c.data(1, END_STREAM)), answered)
simple("generic 4", "POST with trailers",
       lambda c: (post(c, fields=[("trailer", "x-test")]), c.data(1, 0),
                  c.headers_frame(1, WHOLE, [("x-test", "ok")])), answered)
for kind, first in [("incremental", 0x40), ("without indexing", 0), ("never indexed", 0x10)]:
    bits = 6 if first == 0x40 else 4
    for name, raw in [
        ("indexed name", integer(58, bits, first)),
        ("new name", bytes([first]) + b"\x06x-test"),
        ("new name, coded", bytes([first]) + bytes.fromhex("85f2b24a84ff")),
    ]:
        for how, value in [("plain", b"\x06h2spec"), ("coded", bytes.fromhex("849c48aca4"))]:
            simple("generic 5", f"A literal, {kind}, {name}, value {how}",
                   lambda c, raw=raw + value: c.headers_frame(after=raw), answered)
simple("generic 5", "An indexed field", lambda c: c.headers_frame(after=b"\xba"), answered)
simple("generic 5", "A table size update", lambda c: c.headers_frame(before=b"\x20"), answered)
simple("generic 5", "Two table size updates",
       lambda c: c.headers_frame(before=b"\x20\x3f\xe1\x1f"), answered)


# RFC 9113.

@case("3.4", "SETTINGS is the first that the server says")
def _(c):
    c.send(PREFACE)
    c.settings((INITIAL_WINDOW, 65535))
    got = c.next()
    if got.kind != SETTINGS or got.is_ack():
        raise Wrong(f"expected SETTINGS; came {got}")


@case("3.4", "A preface that is none")
def _(c):
    c.send(b"INVALID CONNECTION PREFACE\r\n\r\n")
    c.closes()


@case("3.4", "A preface without SETTINGS behind it")
def _(c):
    c.send(PREFACE)
    c.frame(PING, 0, 0, b"\0" * 8)
    c.connection_error(PROTOCOL)


@opened("8.1", "The end of a request behind its response")
def _(c):
    c.headers_frame(1, OPEN, c.request("POST", fields=[("content-length", "4")]))
    c.data(1, 0)
    c.ended()
    c.ping()
    got = c.wait(lambda got: got.kind == RST_STREAM or got.kind == PING and got.is_ack(), "PING ACK")
    if got.kind == RST_STREAM:
        raise Wrong(f"all had come but the end; came {got}")
    c.data(1, END_STREAM, b"")
    c.pong()


simple("4.1", "A frame of an unknown type", lambda c: c.frame(0x16, 0, 0, b"\0" * 8), pong)
simple("4.1", "Flags that are not defined", lambda c: c.frame(PING, 0x16, 0, b"\0" * 8),
       lambda c: c.wait(lambda got: got.is_ack() and got.kind == PING, "PING ACK"))
simple("4.1", "The reserved bit", lambda c: c.frame(PING, 0, 0x80000000, b"\0" * 8),
       lambda c: c.wait(lambda got: got.is_ack() and got.kind == PING, "PING ACK"))
simple("4.2", "DATA of 16,384 bytes",
       lambda c: (post(c), c.data(1, END_STREAM, b"x" * 16384)), answered)


def limit(c):
    return c.peer.get(MAX_FRAME, 16384)


simple("4.2", "DATA that is too large",
       lambda c: (post(c), c.data(1, END_STREAM, b"x" * (limit(c) + 1))), reset(SIZE))
simple("4.2", "HEADERS that are too large",
       lambda c: c.headers_frame(after=b"".join(
           field(f"x-dummy{i}", "a" * 4000) for i in range(limit(c) // 4000 + 1))),
       goaway(SIZE))
simple("4.3", "A block that breaks off", lambda c: c.frame(HEADERS, WHOLE, 1, b"\x40"),
       goaway(COMPRESSION))
simple("4.3", "PRIORITY within a block",
       lambda c: (c.headers_frame(1, 0), c.priority(1),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))), goaway(PROTOCOL))
simple("4.3", "HEADERS of another stream within a block",
       lambda c: (c.headers_frame(1, 0), c.headers_frame(3),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))), goaway(PROTOCOL))

simple("5.1", "idle: DATA", lambda c: c.data(1, END_STREAM), goaway(PROTOCOL))
simple("5.1", "idle: RST_STREAM", lambda c: c.reset(1), goaway(PROTOCOL))
simple("5.1", "idle: WINDOW_UPDATE", lambda c: c.window(1, 100), goaway(PROTOCOL))
simple("5.1", "idle: CONTINUATION",
       lambda c: c.frame(CONTINUATION, END_HEADERS, 1, block(c.request())), goaway(PROTOCOL))
simple("5.1.1", "HEADERS on an even stream below the last",
       lambda c: (c.headers_frame(5), c.answered(5), c.headers_frame(4)), goaway(PROTOCOL))
simple("5.1", "idle: DATA on an even stream below the last",
       lambda c: (c.headers_frame(5), c.answered(5), c.data(4, END_STREAM)), goaway(PROTOCOL))
simple("5.1", "half-closed: DATA",
       lambda c: (c.headers_frame(), c.data(1, END_STREAM)), reset(CLOSED))
simple("5.1", "half-closed: HEADERS",
       lambda c: (c.headers_frame(), c.headers_frame()), reset(CLOSED))
simple("5.1", "half-closed: CONTINUATION",
       lambda c: (c.headers_frame(), c.frame(CONTINUATION, END_HEADERS, 1, block(c.request()))),
       reset(CLOSED, PROTOCOL))
simple("5.1", "closed by RST_STREAM: DATA",
       lambda c: (c.headers_frame(1, OPEN), c.reset(1), c.data(1, END_STREAM)), reset(CLOSED))
simple("5.1", "closed by RST_STREAM: HEADERS",
       lambda c: (c.headers_frame(1, OPEN), c.reset(1), c.headers_frame()), reset(CLOSED))
simple("5.1", "closed by RST_STREAM: CONTINUATION",
       lambda c: (c.headers_frame(1, OPEN), c.reset(1),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))),
       reset(CLOSED, PROTOCOL))
simple("5.1", "closed: DATA",
       lambda c: (c.headers_frame(), c.ended(), c.data(1, END_STREAM)), goaway(CLOSED))
simple("5.1", "closed: HEADERS",
       lambda c: (c.headers_frame(), c.ended(), c.headers_frame()), goaway(CLOSED))
simple("5.1", "closed: CONTINUATION",
       lambda c: (c.headers_frame(), c.ended(),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))),
       goaway(CLOSED, PROTOCOL))
simple("5.1.1", "An even stream", lambda c: c.headers_frame(2), goaway(PROTOCOL))
simple("5.1.1", "A lower stream than the last",
       lambda c: (c.headers_frame(5), c.headers_frame(3)), goaway(PROTOCOL))


@opened("5.1.2", "More streams than allowed")
def _(c):
    most = c.peer.get(MAX_STREAMS)
    if most is None:
        return
    c.settings((INITIAL_WINDOW, 0))
    for at in range(most + 1):
        c.headers_frame(2 * at + 1)
    c.stream_error(PROTOCOL, REFUSED)


simple("5.3", "HEADERS that depend on themselves",
       lambda c: c.headers_frame(1, WHOLE | PRIORITISED, before=b"\0\0\0\x01\xff"),
       reset(PROTOCOL))
simple("5.3", "PRIORITY that depends on itself", lambda c: c.priority(2, 2), reset(PROTOCOL))
simple("5.4.1", "A PING that is none is followed by a close",
       lambda c: c.frame(PING, 0, 3, b"\0" * 8), Client.closes)
simple("5.4.1", "A PING that is none is followed by GOAWAY",
       lambda c: c.frame(PING, 0, 3, b"\0" * 8), lambda c: c.kind(GOAWAY))
simple("5.5", "An unknown frame", lambda c: c.frame(0xFF, 0, 0, b"unknown"), pong)
simple("5.5", "An unknown frame within a block",
       lambda c: (c.headers_frame(1, 0), c.frame(0xFF, 0, 1, b"unknown"),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))), goaway(PROTOCOL))
simple("6.1", "DATA on stream 0", lambda c: c.data(0, END_STREAM), goaway(PROTOCOL))
simple("6.1", "DATA on a stream that is not open",
       lambda c: (c.headers_frame(), c.data(1, END_STREAM)), reset(CLOSED))
simple("6.1", "DATA with padding longer than it",
       lambda c: (post(c), c.data(1, END_STREAM | PADDED, b"\x06test")), goaway(PROTOCOL))
simple("6.2", "HEADERS without an end, then PRIORITY",
       lambda c: (c.headers_frame(1, 0), c.priority(1)), goaway(PROTOCOL))
simple("6.2", "HEADERS without an end, then HEADERS of another stream",
       lambda c: (c.headers_frame(1, END_STREAM), c.headers_frame(3)), goaway(PROTOCOL))
simple("6.2", "HEADERS on stream 0", lambda c: c.headers_frame(0), goaway(PROTOCOL))
simple("6.2", "HEADERS with padding longer than them",
       lambda c: c.frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + block(c.request())),
       goaway(PROTOCOL))
simple("6.3", "PRIORITY on stream 0", lambda c: c.priority(0), goaway(PROTOCOL))
simple("6.3", "PRIORITY of 4 bytes",
       lambda c: (c.headers_frame(1, OPEN), c.frame(PRIORITY, 0, 1, b"\x80\0\0\x01")), reset(SIZE))
simple("6.4", "RST_STREAM on stream 0", lambda c: c.reset(0), goaway(PROTOCOL))
simple("6.4", "RST_STREAM on an idle stream", lambda c: c.reset(1), goaway(PROTOCOL))
simple("6.4", "RST_STREAM of 3 bytes",
       lambda c: (c.headers_frame(1, OPEN), c.frame(RST_STREAM, 0, 1, b"\0\0\0")), goaway(SIZE))
simple("6.5", "SETTINGS ACK with a payload", lambda c: c.frame(SETTINGS, ACK, 0, b"\0"),
       goaway(SIZE))
simple("6.5", "SETTINGS on a stream",
       lambda c: c.frame(SETTINGS, 0, 1, struct.pack(">HI", MAX_STREAMS, 100)), goaway(PROTOCOL))
simple("6.5", "SETTINGS of 3 bytes", lambda c: c.frame(SETTINGS, 0, 0, b"\0\x03\0"), goaway(SIZE))
for title, pair, code in [
    ("ENABLE_PUSH of 2", (ENABLE_PUSH, 2), PROTOCOL),
    ("INITIAL_WINDOW_SIZE of 2^31", (INITIAL_WINDOW, 1 << 31), FLOW),
    ("MAX_FRAME_SIZE of 16,383", (MAX_FRAME, 16383), PROTOCOL),
    ("MAX_FRAME_SIZE of 2^24", (MAX_FRAME, 1 << 24), PROTOCOL),
]:
    simple("6.5.2", title, lambda c, pair=pair: c.settings(pair), goaway(code))
simple("6.5.2", "An unknown setting", lambda c: c.settings((0xFF, 1)), pong)


@opened("6.5.3", "INITIAL_WINDOW_SIZE twice: the second counts")
def _(c):
    c.settings((INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1))
    c.kind(SETTINGS)
    c.headers_frame()
    c.one_byte()


simple("6.5.3", "SETTINGS are acknowledged", lambda c: c.settings((ENABLE_PUSH, 0)),
       lambda c: c.wait(lambda got: got.kind == SETTINGS and got.is_ack(), "SETTINGS ACK"))
simple("6.7", "PING", lambda c: None, lambda c: c.pong(b"h2spec!!"))


@opened("6.7", "PING ACK is not answered")
def _(c):
    c.frame(PING, ACK, 0, b"invalid\0")
    c.ping(b"h2spec!!")
    got = c.kind(PING)
    if got.payload != b"h2spec!!":
        raise Wrong("a PING ACK was answered")


simple("6.7", "PING on a stream", lambda c: c.frame(PING, 0, 1, b"\0" * 8), goaway(PROTOCOL))
simple("6.7", "PING of 6 bytes", lambda c: c.frame(PING, 0, 0, b"\0" * 6), goaway(SIZE))
simple("6.8", "GOAWAY on a stream", lambda c: c.frame(GOAWAY, 0, 1, b"\0" * 8), goaway(PROTOCOL))
simple("6.9", "WINDOW_UPDATE of 0", lambda c: c.window(0, 0), goaway(PROTOCOL))
simple("6.9", "WINDOW_UPDATE of 0 on a stream",
       lambda c: (c.headers_frame(1, OPEN), c.window(1, 0)), reset(PROTOCOL))
simple("6.9", "WINDOW_UPDATE of 3 bytes",
       lambda c: c.frame(WINDOW_UPDATE, 0, 0, b"\0\0\x01"), goaway(SIZE))


@opened("6.9.1", "A window of 1 lets 1 byte through")
def _(c):
    c.settings((INITIAL_WINDOW, 1))
    c.kind(SETTINGS)
    c.headers_frame()
    c.one_byte()


simple("6.9.1", "The connection's window beyond 2^31-1",
       lambda c: (c.window(0, 0x7FFFFFFF), c.window(0, 0x7FFFFFFF)), goaway(FLOW))
simple("6.9.1", "A stream's window beyond 2^31-1",
       lambda c: (c.headers_frame(1, OPEN), c.window(1, 0x7FFFFFFF), c.window(1, 0x7FFFFFFF)),
       reset(FLOW))


@opened("6.9.2", "INITIAL_WINDOW_SIZE changes for streams that are open")
def _(c):
    c.settings((INITIAL_WINDOW, 0))
    c.kind(SETTINGS)
    c.headers_frame()
    c.answered()
    c.settings((INITIAL_WINDOW, 1))
    c.one_byte()


@opened("6.9.2", "A window below 0", (INITIAL_WINDOW, 3))
def _(c):
    c.settings((INITIAL_WINDOW, 3))
    c.headers_frame()
    c.answered()
    c.kind(DATA)
    c.settings((INITIAL_WINDOW, 2))
    c.window(1, 2)
    c.one_byte()


@opened("6.9.2", "INITIAL_WINDOW_SIZE that lifts a window beyond 2^31-1")
def _(c):
    c.settings((INITIAL_WINDOW, 0))
    c.kind(SETTINGS)
    c.headers_frame(1, OPEN)
    c.window(1, 0x7FFFFFFF)
    c.settings((INITIAL_WINDOW, 0x7FFFFFFF))
    c.connection_error(FLOW)


simple("6.10", "Several CONTINUATION", lambda c: continued(c, 3), answered)
simple("6.10", "CONTINUATION, then another frame",
       lambda c: (c.headers_frame(1, 0), c.frame(CONTINUATION, 0, 1, field("x-dummy", "a")),
                  c.data(1, END_STREAM)), goaway(PROTOCOL))
simple("6.10", "CONTINUATION on stream 0",
       lambda c: (c.headers_frame(1, 0),
                  c.frame(CONTINUATION, END_HEADERS, 0, field("x-dummy", "a"))), goaway(PROTOCOL))
simple("6.10", "CONTINUATION after the end of the head",
       lambda c: (c.headers_frame(1, OPEN),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))), goaway(PROTOCOL))
simple("6.10", "CONTINUATION after the last CONTINUATION",
       lambda c: (c.headers_frame(1, 0), c.frame(CONTINUATION, END_HEADERS, 1, field("x-d", "a")),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))), goaway(PROTOCOL))
simple("6.10", "CONTINUATION after DATA",
       lambda c: (c.headers_frame(1, OPEN), c.data(1, END_STREAM),
                  c.frame(CONTINUATION, END_HEADERS, 1, field("x-dummy", "a"))), goaway(PROTOCOL))
simple("7", "GOAWAY with an unknown code",
       lambda c: c.frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0xFF)), Client.pong_or_end)
simple("7", "RST_STREAM with an unknown code",
       lambda c: (c.headers_frame(1, OPEN), c.reset(1, 0xFF)), pong)

simple("8.1", "A second HEADERS that does not end the stream",
       lambda c: (post(c), c.data(1, 0), c.headers_frame(1, OPEN, [("x-test", "ok")])),
       reset(PROTOCOL))


def refused(section, title, fields):
    """What h2spec wants to be a stream error, for fields made from a good request's."""
    simple(section, title, lambda c: c.headers_frame(fields=fields(c)), reset(PROTOCOL))


def plus(*fields):
    return lambda c: c.request(fields=list(fields))


def without(name):
    return lambda c: [pair for pair in c.request() if pair[0] != name]


def changed(name, value):
    return lambda c: [(n, value if n == name else v) for n, v in c.request()]


def doubled(name):
    return lambda c: [p for pair in c.request() for p in ([pair] * 2 if pair[0] == name else [pair])]


refused("8.2.1", "A capital in a name", plus(("X-TEST", "ok")))
refused("8.3", "An unknown pseudo-header field", lambda c: [(":test", "ok")] + c.request())
refused("8.3", "A pseudo-header field of responses", lambda c: [(":status", "200")] + c.request())
simple("8.3", "A pseudo-header field among trailers",
       lambda c: (post(c, fields=[("trailer", "x-test")]), c.data(1, 0),
                  c.headers_frame(1, WHOLE, [(":method", "200"), ("x-test", "ok")])),
       reset(PROTOCOL))
refused("8.3", "A pseudo-header field behind others",
        lambda c: c.request()[:3] + [("x-test", "ok")] + c.request()[3:])
refused("8.2.2", "connection", plus(("connection", "keep-alive")))
refused("8.2.2", "te other than trailers", plus(("trailers", "test"), ("te", "trailers, deflate")))
refused("8.3.1", ":path that is empty", changed(":path", ""))
for name in (":method", ":scheme", ":path"):
    refused("8.3.1", f"No {name}", without(name))
for name in (":method", ":scheme", ":path"):
    refused("8.3.1", f"{name} twice", doubled(name))
simple("8.1.1", "content-length, and less DATA",
       lambda c: (post(c, fields=[("content-length", "1")]), c.data(1, END_STREAM)),
       reset(PROTOCOL))
simple("8.1.1", "content-length, and less in several DATA",
       lambda c: (post(c, fields=[("content-length", "1")]), c.data(1, 0), c.data(1, END_STREAM)),
       reset(PROTOCOL))
simple("8.4", "PUSH_PROMISE",
       lambda c: c.frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x03" + block(c.request())),
       goaway(PROTOCOL))

# RFC 7541.

simple("7541 2.3.3", "An index beyond the tables",
       lambda c: c.headers_frame(after=integer(70, 7, 0x80)), goaway(COMPRESSION))
simple("7541 2.3.3", "A literal whose name is beyond the tables",
       lambda c: c.headers_frame(after=integer(70, 6, 0x40) + b"\x05empty"), goaway(COMPRESSION))
simple("7541 4.2", "A table size update behind fields",
       lambda c: c.headers_frame(after=b"\x21"), goaway(COMPRESSION))
for title, value in [
    ("padding longer than 7 bits", "8449509fff"), ("zeros for padding", "83495090"),
    ("EOS within", "87fffffffd25427f"),
]:
    raw = bytes.fromhex("0085f2b24a84ff" + value)
    simple("7541 5.2", f"A coded string with {title}",
           lambda c, raw=raw: c.headers_frame(after=raw), goaway(COMPRESSION))
simple("7541 6.1", "Index 0", lambda c: c.headers_frame(after=b"\x80"), goaway(COMPRESSION))
simple("7541 6.3", "A table size update beyond the limit",
       lambda c: c.headers_frame(
           before=integer(c.peer.get(HEADER_TABLE_SIZE, 4096) + 1, 5, 0x20)), goaway(COMPRESSION))

H2SPEC = len(CASES)

# Beyond h2spec.

simple("7541 5.1", "An integer that overflows",
       lambda c: c.headers_frame(after=b"\x00\x7f" + b"\xff" * 12 + b"\x01"), goaway(COMPRESSION))
simple("7541 5.2", "A string longer than its block",
       lambda c: c.headers_frame(after=b"\x00\x01a\x7e"), goaway(COMPRESSION))
simple("4.3", "A block that breaks off in its CONTINUATION",
       lambda c: (c.headers_frame(1, END_STREAM),
                  c.frame(CONTINUATION, END_HEADERS, 1, b"\x40\x03ab")), goaway(COMPRESSION))
simple("6.10", "An empty CONTINUATION",
       lambda c: (c.headers_frame(1, END_STREAM), c.frame(CONTINUATION, END_HEADERS, 1)), answered)
simple("6.1", "DATA with nothing but padding",
       lambda c: (post(c), c.data(1, END_STREAM | PADDED, b"\x03\0\0\0")), answered)
simple("6.2", "HEADERS whose padding leaves no room for priority",
       lambda c: c.frame(HEADERS, WHOLE | PADDED | PRIORITISED, 1, b"\x04\0\0\0\0"),
       goaway(PROTOCOL, SIZE))
simple("6.7", "PING of 9 bytes", lambda c: c.frame(PING, 0, 0, b"\0" * 9), goaway(SIZE))
simple("6.8", "GOAWAY of 7 bytes", lambda c: c.frame(GOAWAY, 0, 0, b"\0" * 7), goaway(SIZE))
simple("6.4", "RST_STREAM of 5 bytes",
       lambda c: (c.headers_frame(1, OPEN), c.frame(RST_STREAM, 0, 1, b"\0" * 5)), goaway(SIZE))
simple("6.8", "Streams go on after GOAWAY",
       lambda c: (post(c), c.frame(GOAWAY, 0, 0, b"\0" * 8), c.data(1, END_STREAM)), ended)
simple("9113 5.1", "WINDOW_UPDATE on a closed stream",
       lambda c: (c.headers_frame(), c.ended(), c.window(1, 1)), pong)
simple("9113 5.1", "RST_STREAM on a closed stream",
       lambda c: (c.headers_frame(), c.ended(), c.reset(1)), pong)
simple("9218 2.1", "NO_RFC7540_PRIORITIES of 2", lambda c: c.settings((9, 2)), goaway(PROTOCOL))
simple("9218 7.1", "PRIORITY_UPDATE", lambda c: c.frame(0x10, 0, 0, b"\0\0\0\x01u=1"), pong)
simple("8441 3", "ENABLE_CONNECT_PROTOCOL of 2", lambda c: c.settings((8, 2)), goaway(PROTOCOL))


def malformed(section, title, fields, data=None, trailers=None):
    """What is malformed: refused in any way, and nothing of it reaches the upstream."""
    def run(c):
        c.open()
        ends = data is None and trailers is None
        c.headers_frame(1, WHOLE if ends else OPEN, fields(c))
        if data is not None:
            c.data(1, 0 if trailers else END_STREAM, data)
        if trailers is not None:
            c.headers_frame(1, WHOLE, trailers)
        while True:
            try:
                got = c.next()
            except Ended:
                break
            except Silence:
                raise Wrong("expected a refusal; came nothing") from None
            if got.kind == GOAWAY and got.code or got.kind == RST_STREAM:
                break
            if got.kind == HEADERS:
                status = c.statuses.get(got.stream, 0)
                if 400 <= status < 500 or status == 501:
                    break
                raise Wrong(f"expected a refusal; came {status}")
        if c.upstream is not None and c.upstream.requests():
            raise Wrong(f"it reached the upstream: {c.upstream.requests()[0]!r}")
    CASES.append((section, title, run))


for title, name in [
    ("Nothing", ""), ("A space", "x own"), ("A colon", "x:own"), ("A NUL", "x\0own"),
    ("A line end", "x\r\nown"), ("A control character", "x\x01own"), ("DEL", "x\x7fown"),
    ("A byte beyond ASCII", "x\xffown"), ("A quotation mark", 'x"own'), ("A slash", "x/own"),
    ("A comma", "x,own"),
]:
    malformed("8.2.1", f"{title} in a name" if name else "An empty name", plus((name, "a")))
for title, value in [
    ("A NUL", "a\0b"), ("CR", "a\rb"), ("LF", "a\nb"), ("CR LF", "a\r\nb: c"),
    ("A space before", " a"), ("A space behind", "a "), ("A tab before", "\ta"),
    ("A tab behind", "a\t"),
]:
    malformed("8.2.1", f"{title} in a value" if " b" not in title else f"{title} a value",
              plus(("x-own", value)))
for name, value in [
    ("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("keep-alive", "5"),
    ("proxy-connection", "keep-alive"), ("connection", "x-own"), ("te", "gzip"),
]:
    malformed("8.2.2", f"{name}: {value}", plus((name, value)))
for title, fields in [
    ("host that differs", plus(("host", "other.test"))),
    ("host twice", plus(("host", "example.test"), ("host", "other.test"))),
    (":authority twice", doubled(":authority")),
    (":path without a slash", changed(":path", "index")),
    (":path in absolute form", changed(":path", "https://other.test/")),
    (":path with a space", changed(":path", "/a b")),
    (":path with a line end", changed(":path", "/ HTTP/1.1\r\nx: y")),
    (":path with a NUL", changed(":path", "/a\0")),
    (":path with a fragment", changed(":path", "/a#b")),
    (":path * of GET", changed(":path", "*")),
    (":method with a space", changed(":method", "GET /x")),
    (":method with a line end", changed(":method", "GET\r\n")),
    (":method that is empty", changed(":method", "")),
    (":scheme with a space", changed(":scheme", "ht tp")),
    (":scheme that is empty", changed(":scheme", "")),
    (":scheme with more", changed(":scheme", "https://other.test/?")),
    (":authority with user information", changed(":authority", "user@example.test")),
    (":authority with a space", changed(":authority", "example.test x")),
    (":authority with a slash", changed(":authority", "example.test/a")),
    (":authority with a line end", changed(":authority", "example.test\r\nx: y")),
    (":authority with a bad port", changed(":authority", "example.test:x")),
    (":authority that is empty", changed(":authority", "")),
    ("Neither :authority nor host", without(":authority")),
    ("CONNECT with :path", changed(":method", "CONNECT")),
    (":protocol of GET", lambda c: c.request() + [(":protocol", "websocket")]),
    ("An unknown :protocol",
     lambda c: [(":protocol", "x")] + [
         (n, "CONNECT" if n == ":method" else v) for n, v in c.request()]),
]:
    malformed("8.3.1", title, fields)
for value in ["+4", "-4", "4, 4", "0x4", "4 ", "", "four", "4.0", "18446744073709551620"]:
    malformed("8.1.1", f"content-length {value!r}", plus(("content-length", value)), b"test")
malformed("8.1.1", "content-length twice", plus(("content-length", "4"), ("content-length", "5")),
          b"test")
malformed("8.1.1", "content-length, and no DATA", plus(("content-length", "4")))
malformed("8.1.1", "content-length, and less before the trailers",
          plus(("content-length", "9")), b"test", [("x-test", "ok")])
malformed("8.2.2", "connection among trailers", plus(), b"test", [("connection", "close")])
malformed("8.2.2", "transfer-encoding among trailers", plus(), b"test",
          [("transfer-encoding", "chunked")])
malformed("8.2.1", "A capital among trailers", plus(), b"test", [("X-Test", "ok")])
malformed("8.2.1", "A line end among trailers", plus(), b"test", [("x-test", "a\r\nb")])
