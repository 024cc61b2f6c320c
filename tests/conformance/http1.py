"""HTTP/1.1, case by case: RFC 9110 and RFC 9112, from both sides of the server.

A case says what is sent, and judges what came back and what reached the upstream. Where the RFCs
leave a choice (refuse, or make it right), either is good; a request that could be read in two ways
must not reach the upstream as one, and nothing behind it may become a request.
"""

import re
import time

from wire import Ended, Silence, Wire

CASES = []
HOST = b"Host: example.test\r\n"
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: example.test\r\n\r\n"


class Answer:
    """What came back: the responses in their order, and how the connection ended."""

    def __init__(self):
        self.raw, self.responses, self.ended, self.in_order = b"", [], False, None

    def statuses(self):
        return [status for status, _, _, _ in self.responses]

    def final(self):
        done = [r for r in self.responses if r[0] >= 200]
        return done[0] if done else (0, {}, b"", False)


def parse(raw, methods, ended):
    """The responses in these bytes: status, fields, body, whether it is whole."""
    out, methods = [], list(methods)
    while b"\r\n\r\n" in raw:
        head, rest = raw.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        match = re.match(rb"HTTP/1\.[01] (\d{3})", lines[0])
        if not match:
            out.append((999, {}, raw, False))
            return out
        status, fields = int(match[1]), {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            fields.setdefault(name.lower(), []).append(value.strip())
        if 100 <= status < 200 and status != 101:
            out.append((status, fields, b"", True))
            raw = rest
            continue
        method = methods.pop(0) if methods else b"GET"
        whole = True
        if method == b"HEAD" or status in (204, 304) or status == 101:
            body = b""
        elif b"chunked" in b",".join(fields.get(b"transfer-encoding", [])).lower():
            body, whole = b"", False
            while True:
                match = re.match(rb"([0-9a-fA-F]+)[^\r\n]*\r\n", rest)
                if not match:
                    break
                size = int(match[1], 16)
                if size == 0:
                    trailers = re.match(rb"0+[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n", rest)
                    whole = trailers is not None
                    rest = rest[trailers.end():] if trailers else b""
                    break
                body += rest[match.end():match.end() + size]
                rest = rest[match.end() + size + 2:]
        elif b"content-length" in fields:
            length = int(fields[b"content-length"][0] or 0)
            body, rest = rest[:length], rest[length:]
            whole = len(body) == length
        else:
            body, rest, whole = rest, b"", ended
        out.append((status, fields, body, whole))
        if not whole:
            return out
        raw = rest
    return out


def talk(address, data, patience, count=1, until_end=False):
    """Sends this, and reads that many final responses, or to the end."""
    pieces = data if isinstance(data, list) else [data]
    methods = re.findall(rb"(?:^|\n)([A-Z]+) [^\r\n]* HTTP/1", b"".join(pieces)) or [b"GET"]
    wire = Wire(address, "example.test", "http/1.1", patience)
    answer = Answer()
    try:
        for at, piece in enumerate(pieces):
            if at:
                time.sleep(0.15)
            wire.send(piece)
        while True:
            done = [r for r in answer.responses if r[0] >= 200 and r[3]]
            if not until_end and len(done) >= count:
                break
            try:
                answer.raw += wire.receive(time.monotonic() + patience)
            except Silence:
                break
            except Ended:
                answer.ended, answer.in_order = True, wire.in_order
                answer.responses = parse(answer.raw, methods, wire.in_order)
                break
            answer.responses = parse(answer.raw, methods, False)
    finally:
        wire.close()
    return answer


def settled(upstream, count=1):
    """What reached the upstream, once it is all there."""
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline and len(upstream.requests()) < count:
        time.sleep(0.01)
    return upstream.requests()


def show(data):
    return repr(data[:160])


def add(section, title, run):
    CASES.append((section, title, run))


def refuse(section, title, data, closes=True):
    """It is refused, nothing of it reaches the upstream whole, and the connection ends."""
    def run(address, upstream, patience):
        answer = talk(address, data, patience, until_end=closes)
        reached = settled(upstream)
        if reached:
            return f"it reached the upstream: {show(reached[0])}"
        statuses = answer.statuses()
        if any(200 <= status < 400 for status in statuses):
            return f"it was answered with {statuses}"
        if not statuses and not answer.ended:
            return "nothing came"
        if closes and not answer.ended:
            return f"the connection stays open after {statuses}"
        return None
    add(section, title, run)


def passes(section, title, data, check=lambda request, answer: None, status=200, count=1):
    """It reaches the upstream, as the check wants it, and is answered."""
    def run(address, upstream, patience):
        answer = talk(address, data, patience, count)
        reached = settled(upstream, count)
        if answer.final()[0] != status:
            return f"it was answered with {answer.statuses()}"
        if len(reached) != count:
            return f"{len(reached)} requests reached the upstream"
        return check(b"".join(reached), answer)
    add(section, title, run)


def either(section, title, data, check=lambda request: None):
    """It is refused, or made right."""
    def run(address, upstream, patience):
        answer = talk(address, data, patience)
        reached = settled(upstream)
        if any(b"/smuggled" in request.split(b"\r\n")[0] for request in reached):
            return "what was hidden in it reached the upstream as a request"
        if reached:
            wrong = check(reached[0])
            return wrong and f"{wrong}: {show(reached[0])}"
        if not answer.statuses() and not answer.ended:
            return "nothing came"
        return None
    add(section, title, run)


def lacks(*texts):
    def check(request, _=None):
        for text in texts:
            if text.lower() in request.lower():
                return f"{text!r} reached the upstream"
        return None
    return check


def has(*texts):
    def check(request, _=None):
        for text in texts:
            if text.lower() not in request.lower():
                return f"{text!r} did not reach the upstream: {show(request)}"
        return None
    return check


def get(target=b"/", fields=b"", version=b"HTTP/1.1", host=HOST):
    return b"GET " + target + b" " + version + b"\r\n" + host + fields + b"\r\n"


def post(fields, body):
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


# The request line (RFC 9112, section 3).

passes("9112 3", "GET", get(), has(b"GET / HTTP/1.1\r\n", b"host: example.test\r\n"))
passes("9112 2.2", "Empty lines before a request", b"\r\n\r\n" + get())
passes("9110 9.1", "A method of one's own", get().replace(b"GET", b"BREW"), has(b"BREW / "))
refuse("9112 2.2", "White space before a request line", b" " + get())
refuse("9112 2.2", "White space before the first field",
       b"GET / HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n")
either("9112 2.2", "Lines that end with LF", get().replace(b"\r\n", b"\n"))
for title, line in [
    ("CR in a target", b"GET /\rx HTTP/1.1"), ("CR before the version", b"GET /\rHTTP/1.1"),
    ("NUL in a target", b"GET /\0 HTTP/1.1"), ("A control character in a target", b"GET /\x01 HTTP/1.1"),
    ("DEL in a target", b"GET /\x7f HTTP/1.1"), ("A tab for a space", b"GET\t/ HTTP/1.1"),
    ("A space within a target", b"GET /a b HTTP/1.1"), ("No target", b"GET HTTP/1.1"),
    ("A target without a slash", b"GET index HTTP/1.1"), ("No version, but fields", b"GET /"),
    ("HTTP/2.0", b"GET / HTTP/2.0"), ("HTTP/1.10", b"GET / HTTP/1.10"),
    ("http/1.1", b"GET / http/1.1"), ("HTTP/1,1", b"GET / HTTP/1,1"), ("HTTP/01.1", b"GET / HTTP/01.1"),
    ("HTTP/1.1x", b"GET / HTTP/1.1x"), ("A method with a brace", b"G{T / HTTP/1.1"),
    ("A method with NUL", b"G\0T / HTTP/1.1"), ("An empty method", b" / HTTP/1.1"),
    ("* of GET", b"GET * HTTP/1.1"), ("The authority form of GET", b"GET example.test:443 HTTP/1.1"),
    ("User information in a target", b"GET https://a@example.test/ HTTP/1.1"),
    ("An absolute target without a host", b"GET https:///a HTTP/1.1"),
]:
    refuse("9112 3", title, line + b"\r\n" + HOST + b"\r\n")
either("9112 3", "Two spaces", b"GET  /  HTTP/1.1\r\n" + HOST + b"\r\n", has(b"GET / HTTP/1.1\r\n"))
either("9112 3", "A space behind the version", b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
       has(b"GET / HTTP/1.1\r\n"))
either("9112 3.2", "A fragment", get(b"/a#b"), lacks(b"#"))
refuse("9112 3", "A target of 100,000 bytes", get(b"/" + b"a" * 100000))
either("9112 3.2.2", "An absolute target beside another Host",
       get(b"https://example.test/a", host=b"Host: other.test\r\n"),
       lambda r: lacks(b"\nhost: other.test")(r) or has(b"\nhost: example.test")(r))
passes("9112 3.2.2", "An absolute target", get(b"https://example.test/a"),
       has(b"host: example.test"))
refuse("9110 9.3.6", "CONNECT", b"CONNECT example.test:443 HTTP/1.1\r\n" + HOST + b"\r\n", False)

# Host (RFC 9112, section 3.2).

refuse("9112 3.2", "No Host", get(host=b""))
refuse("9112 3.2", "Host twice", get(host=HOST + b"Host: other.test\r\n"))
refuse("9112 3.2", "The same Host twice", get(host=HOST * 2))
for value in [b"a@example.test", b"example.test/a", b"example.test a", b"example.test, other.test",
              b"example.test:x", b"example.test:99999", b"exa\0mple.test", b"example.test?x",
              b"example.test\\x", b"[::1", b"exa<mple.test"]:
    refuse("9112 3.2", f"Host: {value.decode()!r}", get(host=b"Host: " + value + b"\r\n"), False)

# Fields (RFC 9112, section 5).

for title, field in [
    ("A space before the colon", b"X-A : b"), ("A tab before the colon", b"X-A\t: b"),
    ("An empty name", b": b"), ("A line without a colon", b"X-A"), ("A space in a name", b"X A: b"),
    ("A brace in a name", b"X{A: b"), ("A slash in a name", b"X/A: b"), ("NUL in a name", b"X\0A: b"),
    ("CR in a name", b"X\rA: b"), ("A byte beyond ASCII in a name", b"X\xe9A: b"),
    ("A quotation mark in a name", b'X"A: b'), ("A comma in a name", b"X,A: b"),
]:
    refuse("9112 5.1", title, get(fields=field + b"\r\n"))
either("9110 5.5", "NUL in a value", get(fields=b"X-A: b\0c\r\n"), lacks(b"\0"))
either("9110 5.5", "CR in a value", get(fields=b"X-A: b\rc\r\n"), lacks(b"b\rc"))
either("9110 5.5", "CR at the end of a value", get(fields=b"X-A: b\r\r\n"), lacks(b"\r\r"))
either("9110 5.5", "CR that hides a field", get(fields=b"X-A: b\rX-Evil: c\r\n"), lacks(b"\rx-evil"))
either("9112 5.2", "A folded value", get(fields=b"X-A: b\r\n c\r\n"),
       lambda r: None if re.search(rb"x-a: b +c", r, re.I) else "not unfolded")
passes("9110 5.5", "Bytes beyond ASCII in a value", get(fields=b"X-A: \xe9\xff\r\n"), has(b"\xe9\xff"))
passes("9110 5.5", "An empty value", get(fields=b"X-A:\r\n"))
refuse("6585 5", "A head of 2 MB", get(fields=b"".join(
    b"X-%d: %s\r\n" % (i, b"a" * 4000) for i in range(500))))
refuse("6585 5", "10,000 fields", get(fields=b"".join(b"X-%d: a\r\n" % i for i in range(10000))))

# Where a body ends (RFC 9112, section 6).

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
passes("9112 6.2", "Content-Length", post(b"Content-Length: 5\r\n", b"hello"), has(b"hello"))
passes("9112 7.1", "Chunks", post(b"Transfer-Encoding: chunked\r\n", CHUNKS), has(b"hello"))
passes("9112 7", "Chunked, however it is written", post(b"Transfer-Encoding: ChUnKeD\r\n", CHUNKS),
       has(b"hello"))
for title, fields in [
    ("Content-Length, then Transfer-Encoding", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    ("Transfer-Encoding, then Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
]:
    refuse("9112 6.1", title, post(fields, CHUNKS + HIDDEN))
for title, fields in [
    ("Content-Length twice, different", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    ("Content-Length, a list, different", b"Content-Length: 5, 6\r\n"),
] + [(f"Content-Length: {value.decode()!r}", b"Content-Length: " + value + b"\r\n") for value in [
    b"+5", b"-5", b"0x5", b"5 5", b"5a", b"5.0", b"", b"18446744073709551621", b"99999999999999999999",
    b"\x0b5", b"'5'", b"5;", b"5_0", b"5\0",
]]:
    refuse("9112 6.3", title, post(fields, b"hello" + HIDDEN))
for title, fields in [
    ("Content-Length twice, the same", b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    ("Content-Length, a list, the same", b"Content-Length: 5, 5\r\n"),
]:
    either("9112 6.3", title, post(fields, b"hello"),
           lambda r: None if len(re.findall(rb"content-length: 5\r\n", r, re.I)) == 1 else "kept")
for title, fields in [
    ("chunked twice", b"Transfer-Encoding: chunked, chunked\r\n"),
    ("chunked in two fields", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    ("chunked, then identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    ("chunked is not last", b"Transfer-Encoding: chunked, gzip\r\n"),
    ("identity", b"Transfer-Encoding: identity\r\n"), ("gzip alone", b"Transfer-Encoding: gzip\r\n"),
    ("An unknown coding", b"Transfer-Encoding: xchunked\r\n"),
    ("Nothing", b"Transfer-Encoding:\r\n"), ("In quotes", b'Transfer-Encoding: "chunked"\r\n'),
    ("With a parameter", b"Transfer-Encoding: chunked;a=b\r\n"),
    ("With a vertical tab", b"Transfer-Encoding: \x0bchunked\r\n"),
    ("With NUL", b"Transfer-Encoding: chunked\0\r\n"),
    ("With CR", b"Transfer-Encoding: chunked\r\r\n"),
    ("A space before the colon", b"Transfer-Encoding : chunked\r\n"),
    ("Beside Content-Length, hidden by a vertical tab",
     b"Content-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n"),
    ("Beside Content-Length, hidden by a name's space",
     b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n"),
    ("Beside Content-Length, hidden by CR", b"Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked\r\n"),
    ("Beside Content-Length, hidden by LF",
     b"Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked\r\n"),
]:
    refuse("9112 6.1", f"Transfer-Encoding: {title}", post(fields, CHUNKS + HIDDEN))
either("9112 6.1", "Transfer-Encoding: folded",
       post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKS), has(b"hello"))
either("9112 6.1", "Transfer-Encoding: gzip, chunked",
       post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS), has(b"gzip"))
refuse("9112 6.1", "Transfer-Encoding of HTTP/1.0",
       b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS)
either("9112 6.3", "GET with a body", get(fields=b"Content-Length: %d\r\n" % len(HIDDEN)) + HIDDEN,
       has(HIDDEN))

# Chunks (RFC 9112, section 7.1).


def chunked(body):
    return post(b"Transfer-Encoding: chunked\r\n", body)


for title, body in [
    ("Leading zeros", b"0005\r\nhello\r\n0\r\n\r\n"), ("Capitals", b"A\r\nhellohello\r\n0\r\n\r\n"),
    ("An extension", b"5;a=b\r\nhello\r\n0;c\r\n\r\n"),
    ("An extension in quotes", b'5;a="b;c"\r\nhello\r\n0\r\n\r\n'),
]:
    passes("9112 7.1", f"Chunks: {title}", chunked(body), has(b"hello"))
passes("9112 7.1.1", "Chunk extensions end here", chunked(b"5;secret=1\r\nhello\r\n0\r\n\r\n"),
       lacks(b"secret"))
for title, body in [
    ("0x", b"0x5\r\nhello\r\n0\r\n\r\n"), ("A sign", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("A minus", b"-5\r\nhello\r\n0\r\n\r\n"), ("No size", b"\r\nhello\r\n0\r\n\r\n"),
    ("No digits", b";a\r\nhello\r\n0\r\n\r\n"), ("Not hexadecimal", b"5g\r\nhello\r\n0\r\n\r\n"),
    ("2^64 + 5", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("A space before", b" 5\r\nhello\r\n0\r\n\r\n"), ("An underscore", b"5_0\r\nhello\r\n0\r\n\r\n"),
    ("More data than the size", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("Less data than the size", b"7\r\nhello\r\n0\r\n\r\n"),
    ("The size's line ends with LF", b"5\nhello\r\n0\r\n\r\n"),
    ("The size's line ends with CR", b"5\rhello\r\n0\r\n\r\n"),
    ("The data ends with LF", b"5\r\nhello\n0\r\n\r\n"),
    ("An extension with LF", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("An extension with CR", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("An extension with NUL", b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
    ("The end with LF", b"5\r\nhello\r\n0\n\n"),
    ("A trailer without a colon", b"5\r\nhello\r\n0\r\nX-A\r\n\r\n"),
    ("A trailer with a space before its colon", b"5\r\nhello\r\n0\r\nX-A : b\r\n\r\n"),
    ("A folded trailer", b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
    ("A trailer with NUL", b"5\r\nhello\r\n0\r\nX-A: b\0\r\n\r\n"),
]:
    refuse("9112 7.1", f"Chunks: {title}", chunked(body + HIDDEN))
either("9112 7.1", "Chunks: A space behind the size", chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
       has(b"hello"))
either("9112 7.1.1", "An extension of 100,000 bytes",
       chunked(b"5;" + b"a" * 100000 + b"\r\nhello\r\n0\r\n\r\n"), has(b"hello"))
passes("9110 6.5.1", "Trailers that frame or route go no further",
       chunked(b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nHost: evil.test\r\nX-A: b\r\n\r\n"),
       lacks(b"evil.test", b"content-length: 9"))

# What an intermediary does (RFC 9110, section 7.6).

passes("9110 7.6.1", "What Connection names ends here",
       get(fields=b"Connection: x-hop\r\nX-Hop: secret\r\n"), lacks(b"secret"))
passes("9110 7.6.1", "Several fields of Connection",
       get(fields=b"Connection: x-a\r\nConnection: keep-alive, x-b\r\nX-A: secret\r\nX-B: secret\r\n"),
       lacks(b"secret"))
passes("9110 7.6.1", "Keep-Alive and Proxy-Connection end here",
       get(fields=b"Connection: keep-alive\r\nKeep-Alive: timeout=77\r\nProxy-Connection: secret\r\n"),
       lacks(b"timeout=77", b"proxy-connection"))
passes("9110 10.1.4", "TE ends here", get(fields=b"TE: gzip\r\nConnection: TE\r\n"), lacks(b"te: gzip"))
for name in (b"Host", b"Content-Length", b"Transfer-Encoding"):
    either("9110 7.6.1", f"Connection names {name.decode()}",
           post(b"Connection: %s\r\n" % name + (
               b"Transfer-Encoding: chunked\r\n" if name[:1] == b"T" else b"Content-Length: 5\r\n"),
               CHUNKS if name[:1] == b"T" else b"hello"),
           has(b"hello", b"\nhost: "))
passes("9110 7.6.3", "Via is extended", get(fields=b"Via: 1.0 fred\r\n"),
       lambda r, _: None if re.search(rb"via: 1\.0 fred(, |\r\nvia: )\S", r, re.I) else "it is not")
passes("9110 7.6.2", "Max-Forwards counts down",
       get(fields=b"Max-Forwards: 5\r\n").replace(b"GET", b"OPTIONS"), has(b"max-forwards: 4"))


def stays(section, title, data):
    """It is answered here, with whatever."""
    def run(address, upstream, patience):
        answer = talk(address, data, patience)
        if settled(upstream):
            return "it reached the upstream"
        return None if answer.statuses() or answer.ended else "nothing came"
    add(section, title, run)


stays("9110 7.6.2", "Max-Forwards of 0 ends here",
      get(fields=b"Max-Forwards: 0\r\n").replace(b"GET", b"OPTIONS"))
either("9110 7.8", "Upgrade: h2c goes no further", get(
    fields=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
    lacks(b"h2c", b"http2-settings"))
passes("9110 7.8", "Upgrade that Connection does not name", get(fields=b"Upgrade: websocket\r\n"),
       lacks(b"upgrade"))
passes("9110 14.2", "Range passes", get(fields=b"Range: bytes=0-1\r\nIf-Range: \"a\"\r\n"),
       has(b"range: bytes=0-1", b'if-range: "a"'))
passes("9110 2.5", "A request of HTTP/1.0 goes on as HTTP/1.1", get(version=b"HTTP/1.0"),
       has(b"GET / HTTP/1."))
passes("9112 9.3.2", "Three requests at once are answered in order",
       get(b"/1") + get(b"/2") + get(b"/3"),
       lambda r, a: None if a.statuses() == [200] * 3 else f"answered with {a.statuses()}", count=3)
passes("9112 9.3.2", "A request right behind a body",
       post(b"Content-Length: 5\r\n", b"hello") + get(b"/2"), count=2)
passes("9112 9.6", "Connection: close is honoured", get(fields=b"Connection: close\r\n"),
       lambda _, a: None if b"close" in b",".join(
           a.final()[1].get(b"connection", [])).lower() else "it is not said")


def closing(address, upstream, patience):
    answer = talk(address, get(fields=b"Connection: close\r\n") + get(b"/2"), patience, 2, True)
    if len(settled(upstream, 2)) > 1:
        return "what came behind it reached the upstream"
    return None if answer.ended else "the connection stays open"


add("9112 9.6", "Nothing is read behind Connection: close", closing)
passes("9110 10.1.1", "Expect: 100-continue",
       [post(b"Content-Length: 5\r\nExpect: 100-continue\r\n", b""), b"hello"],
       lambda _, a: None if 100 in a.statuses() else "no 100")


def old_expect(address, upstream, patience):
    data = b"POST / HTTP/1.0\r\n" + HOST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
    answer = talk(address, data, patience)
    if 100 in answer.statuses():
        return "HTTP/1.0 got 100"
    return None if answer.final()[0] == 200 else f"answered with {answer.statuses()}"


add("9110 10.1.1", "No 100 for HTTP/1.0", old_expect)


# What the upstream may answer.

def reply(section, title, answer_, check, method=b"GET", version=b"HTTP/1.1", close=True):
    def run(address, upstream, patience):
        upstream.script("/reply", answer_, close)
        data = get(b"/reply", version=version).replace(b"GET", method, 1)
        answer = talk(address, data, patience, until_end=False)
        return check(answer)
    add(section, title, run)


def bad_gateway(answer):
    """502, or broken off before the end."""
    status, _, _, whole = answer.final()
    if status in (500, 502) or answer.ended and (not status or not whole):
        return None
    return f"answered with {answer.statuses()}, whole: {whole}"


def good(status=200, body=None, fields=(), lacking=()):
    def check(answer):
        got, head, text, whole = answer.final()
        if got != status or not whole:
            return f"answered with {answer.statuses()}, whole: {whole}"
        if body is not None and text != body:
            return f"the body is {text[:80]!r}"
        for name, value in fields:
            if value not in b",".join(head.get(name, [])):
                return f"{name.decode()} is {head.get(name)}"
        for name in lacking:
            if name in head:
                return f"there is {name.decode()}: {head[name]}"
        return None
    return check


def right_or_bad(check):
    return lambda answer: bad_gateway(answer) and check(answer)


OK = b"HTTP/1.1 200 OK\r\n"
reply("9112 6.3", "Response: Content-Length", OK + b"Content-Length: 2\r\n\r\nok", good(body=b"ok"))
reply("9112 6.3", "Response: to the close", OK + b"\r\nok", good(body=b"ok"))
reply("9112 7.1", "Response: chunks", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
      good(body=b"ok"))
reply("9110 6.6.1", "Response: Date is added", OK + b"Content-Length: 2\r\n\r\nok",
      good(fields=[(b"date", b"GMT")]))
reply("9110 6.6.1", "Response: Date is kept",
      OK + b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nok",
      good(fields=[(b"date", b"1994")]))
reply("9110 7.6.1", "Response: what Connection names ends here",
      OK + b"Connection: x-hop, close\r\nX-Hop: a\r\nKeep-Alive: timeout=77\r\nContent-Length: 2\r\n\r\nok",
      good(lacking=[b"x-hop", b"keep-alive"]))
reply("9110 15.3.7", "Response: 206 passes", b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes "
      b"0-1/9\r\nContent-Length: 2\r\n\r\nok", good(206, b"ok", [(b"content-range", b"bytes 0-1/9")]))
for title, fields in [
    ("Content-Length twice, different", b"Content-Length: 2\r\nContent-Length: 3\r\n"),
    ("Content-Length: a list, different", b"Content-Length: 2, 3\r\n"),
    ("Content-Length: +2", b"Content-Length: +2\r\n"), ("Content-Length: -2", b"Content-Length: -2\r\n"),
    ("Content-Length: 2x", b"Content-Length: 2x\r\n"), ("Content-Length: 0x2", b"Content-Length: 0x2\r\n"),
    ("Content-Length that overflows", b"Content-Length: 18446744073709551618\r\n"),
    ("An unknown transfer coding", b"Transfer-Encoding: x\r\n"),
    ("chunked twice", b"Transfer-Encoding: chunked, chunked\r\n"),
    ("NUL in a value", b"X-A: b\0c\r\nContent-Length: 2\r\n"),
    ("CR in a value", b"X-A: b\rSet-Cookie: c\r\nContent-Length: 2\r\n"),
    ("A space in a name", b"X A: b\r\nContent-Length: 2\r\n"),
    ("A line without a colon", b"X-A\r\nContent-Length: 2\r\n"),
    ("An empty name", b": b\r\nContent-Length: 2\r\n"),
]:
    reply("9112 6.3" if "hunked" in title or "Length" in title else "9112 5", f"Response: {title}",
          OK + fields + b"\r\nok", right_or_bad(
              lambda a: "it passed" if a.final()[0] == 200 and (
                  b"\0" in a.raw or b"\rSet-Cookie" in a.raw or not a.final()[3] or
                  b"X A" in a.raw or len(a.final()[1].get(b"content-length", [])) > 1 or
                  b"\r\n: b" in a.raw or b"x" in b"".join(a.final()[1].get(b"content-length", [])) or
                  b"transfer-encoding" in a.final()[1] and a.final()[2] != b"ok") else None))
reply("9112 6.3", "Response: Content-Length beside Transfer-Encoding",
      OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
      right_or_bad(lambda a: good(body=b"ok")(a) or (
          "both passed" if {b"content-length", b"transfer-encoding"} <= set(a.final()[1]) else None)))
reply("9112 5.1", "Response: a space before a colon", OK + b"X-A : b\r\nContent-Length: 2\r\n\r\nok",
      right_or_bad(lambda a: "it passed" if b"X-A :" in a.raw else None))
reply("9112 5.2", "Response: a folded value", OK + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
      right_or_bad(lambda a: "it passed" if b"\r\n c" in a.raw else None))
for title, text in [
    ("Nothing", b""), ("Garbage", b"\x16\x03\x01 what?\r\n\r\n"), ("HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n"),
    ("HTTP/0.9", b"hello"), ("A status of 2 digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("A status of 4 digits", b"HTTP/1.1 2000 OK\r\n\r\n"), ("A status of letters", b"HTTP/1.1 abc OK\r\n\r\n"),
    ("A status below 100", b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
    ("A head that breaks off", OK + b"Content-Le"),
    ("A head of 2 MB", OK + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 4000) for i in range(500)) + b"\r\n"),
    ("A switch that nobody asked for",
     b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello"),
]:
    reply("9112 4", f"Response: {title}", text, bad_gateway)
for title, text in [
    ("A body that breaks off", OK + b"Content-Length: 9\r\n\r\nok"),
    ("Chunks that break off", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
    ("A chunk that breaks off", OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nok"),
    ("A chunk size that is none", OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\nok\r\n0\r\n\r\n"),
    ("A chunk size of 2^64 + 2",
     OK + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n"),
    ("A chunk longer than its size", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n"),
]:
    reply("9112 8", f"Response: {title} is not whole", text, bad_gateway)
reply("9110 9.3.2", "Response: HEAD", OK + b"Content-Length: 99\r\n\r\n",
      good(body=b"", fields=[(b"content-length", b"99")]), b"HEAD", close=False)
reply("9110 15.3.5", "Response: 204", b"HTTP/1.1 204 No Content\r\n\r\n",
      good(204, lacking=[b"transfer-encoding", b"content-length"]), close=False)
reply("9110 15.4.5", "Response: 304 with a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n"
      b"ETag: \"a\"\r\n\r\n", good(304, fields=[(b"etag", b'"a"')]), close=False)
reply("8297 2", "Response: 103 passes", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK +
      b"Content-Length: 2\r\n\r\nok", lambda a: good(body=b"ok")(a) or (
          None if 103 in a.statuses() else "103 is gone"))
reply("9110 15.2", "Response: no 1xx for HTTP/1.0", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK +
      b"Content-Length: 2\r\n\r\nok", lambda a: good(body=b"ok")(a) or (
          "103 passed" if 103 in a.statuses() else None), version=b"HTTP/1.0")
reply("9112 7.1", "Response: no chunks for HTTP/1.0",
      OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
      good(body=b"ok", lacking=[b"transfer-encoding"]), version=b"HTTP/1.0")


def desync(section, title, first, method=b"GET"):
    """What the upstream says too much is not the next one's answer."""
    def run(address, upstream, patience):
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        upstream.script("/reply", first + evil, False)
        data = get(b"/reply").replace(b"GET", method, 1)
        answer = talk(address, [data, get(b"/next")], patience, 2)
        if b"evil" in answer.raw:
            return "it reached the client"
        done = [r for r in answer.responses if r[0] >= 200]
        if len(done) > 1 and done[1][2][:6] != b"a body":
            return f"the next answer is {done[1][2][:80]!r}"
        return None if answer.statuses() or answer.ended else "nothing came"
    add(section, title, run)


desync("9112 9.2", "Response: more than Content-Length", OK + b"Content-Length: 2\r\n\r\nok")
desync("9112 9.2", "Response: more than the last chunk",
       OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
desync("9110 15.3.5", "Response: 204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 41\r\n\r\n")
desync("9110 15.4.5", "Response: 304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 41\r\n\r\n")
desync("9110 9.3.2", "Response: HEAD with a body", OK + b"Content-Length: 41\r\n\r\n", b"HEAD")
