"""A client that sends what no library would: bytes, and frames of HTTP/2 by hand."""

import select
import socket
import ssl
import struct
import time

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
NAMES = [
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS",
    "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION",
]
ERRORS = [
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
]
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_LIST = range(1, 7)


def error_name(code):
    return ERRORS[code] if code < len(ERRORS) else f"0x{code:x}"


class Ended(Exception):
    """The other side has closed, in order or not."""


class Silence(Exception):
    """Nothing came in time."""


class Wire:
    """One TLS connection."""

    def __init__(self, address, host, alpn, patience):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        plain = socket.create_connection(address, timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=host)
        self.patience = patience
        self.in_order = None

    def send(self, data):
        # That the other side has closed shows when it is read from.
        try:
            self.socket.settimeout(10)
            self.socket.sendall(data)
        except (OSError, ssl.SSLError):
            pass

    def receive(self, deadline):
        """Some bytes."""
        left = deadline - time.monotonic()
        try:
            if not self.socket.pending():
                if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                    raise Silence
            self.socket.settimeout(max(left, 0.05))
            data = self.socket.recv(65536)
        except TimeoutError as error:
            raise Silence from error
        except (OSError, ssl.SSLError) as error:
            self.in_order = False
            raise Ended from error
        if not data:
            self.in_order = True
            raise Ended
        return data

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass


class Frame:
    """One frame that came."""

    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

    @property
    def code(self):
        """Of RST_STREAM or GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return struct.unpack_from(">I", self.payload, at)[0]

    def is_ack(self):
        return self.kind in (SETTINGS, PING) and self.flags & ACK

    def ends(self):
        return self.kind in (DATA, HEADERS) and self.flags & END_STREAM

    def settings(self):
        return {k: v for k, v in struct.iter_unpack(">HI", self.payload)}

    def __str__(self):
        name = NAMES[self.kind] if self.kind < len(NAMES) else f"type {self.kind}"
        text = f"{name} on {self.stream}, {len(self.payload)} bytes"
        if self.kind in (RST_STREAM, GOAWAY) and len(self.payload) >= 4:
            text += f", {error_name(self.code)}"
        return text


def frame(kind, flags, stream, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value, bits, first):
    """RFC 7541, section 5.1."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out = [first | limit]
    value -= limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def text(value):
    if isinstance(value, str):
        value = value.encode("latin-1")
    return integer(len(value), 7, 0) + value


def field(name, value):
    """A literal without indexing (RFC 7541, section 6.2.2): it depends on nothing."""
    return b"\x00" + text(name) + text(value)


def block(fields):
    return b"".join(field(name, value) for name, value in fields)


class Http2(Wire):
    """A connection of HTTP/2."""

    def __init__(self, address, host, patience):
        super().__init__(address, host, "h2", patience)
        self.buffer = b""
        self.peer = {}
        self.statuses = {}
        try:
            import hpack
            self.decoder = hpack.Decoder()
        except ImportError:
            self.decoder = None
        self.headers = {}

    def frame(self, kind, flags, stream, payload=b"", length=None):
        self.send(frame(kind, flags, stream, payload, length))

    def settings(self, *pairs):
        self.frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))

    def window(self, stream, size):
        self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))

    def priority(self, stream, on=0, weight=255):
        self.frame(PRIORITY, 0, stream, struct.pack(">IB", on, weight))

    def reset(self, stream, code=8):
        self.frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    def ping(self, data=b"\0" * 8):
        self.frame(PING, 0, 0, data)

    def open(self, *settings):
        """The preface, and both sides' settings acknowledged."""
        self.send(PREFACE)
        self.settings(*(settings or [(INITIAL_WINDOW, 65535)]))
        acknowledged = False
        while not (self.peer and acknowledged):
            got = self.next()
            if got.kind == SETTINGS:
                if got.is_ack():
                    acknowledged = True
                else:
                    self.peer = got.settings() or {0: 0}
                    self.frame(SETTINGS, ACK, 0)

    def next(self):
        """The next frame; each may take as long as patience lasts."""
        deadline = time.monotonic() + self.patience
        while True:
            if len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) >= 9 + length:
                    kind, flags, stream = struct.unpack_from(">BBI", self.buffer, 3)
                    got = Frame(kind, flags, stream & 0x7FFFFFFF, self.buffer[9:9 + length])
                    self.buffer = self.buffer[9 + length:]
                    self.note(got)
                    return got
            self.buffer += self.receive(deadline)

    def note(self, got):
        """Keeps the status that a stream is answered with."""
        if got.kind != HEADERS or self.decoder is None:
            return
        payload = got.payload
        if got.flags & PADDED:
            payload = payload[1:len(payload) - payload[0]]
        if got.flags & PRIORITISED:
            payload = payload[5:]
        if got.flags & END_HEADERS:
            fields = self.decoder.decode(payload)
            self.headers.setdefault(got.stream, []).extend(fields)
            for name, value in fields:
                if name == ":status":
                    self.statuses[got.stream] = int(value)
