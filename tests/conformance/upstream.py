"""The server behind all: it keeps what reaches it, byte for byte, and answers as it is told."""

import socket
import threading

BODY = b"a body of forty-four bytes, for windows' sake\n"[:44]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s" % (
    len(BODY), BODY)
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n" % len(BODY)


class Upstream:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.connections = []
        self.scripts = {}
        threading.Thread(target=self.accept, daemon=True).start()

    def script(self, path, reply, close=True):
        """What a request for this path is answered with."""
        self.scripts[path] = (reply, close)

    def forget(self):
        """Lets go of all connections and of what came over them."""
        with self.lock:
            connections, self.connections = self.connections, []
        for connection in connections:
            connection.end()

    def seen(self):
        """What came, a string for each connection."""
        with self.lock:
            return [bytes(c.received) for c in self.connections if c.received]

    def requests(self):
        """What came as whole requests, read as strictly as a simple server does."""
        with self.lock:
            return [r for c in self.connections for r in c.requests]

    def accept(self):
        while True:
            plain, _ = self.listener.accept()
            connection = Connection(self, plain)
            with self.lock:
                self.connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()


class Connection:
    def __init__(self, upstream, plain):
        self.upstream, self.socket = upstream, plain
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.requests = []

    def end(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def serve(self):
        try:
            self.run()
        except (OSError, ValueError, IndexError):
            pass
        finally:
            self.socket.close()

    def fill(self):
        data = self.socket.recv(65536)
        if not data:
            raise OSError
        self.received += data
        self.buffer += data

    def line(self):
        while b"\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\n", 1)
        self.raw += line + b"\n"
        return line.rstrip(b"\r")

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        self.raw += self.buffer[:count]
        self.buffer = self.buffer[count:]

    def run(self):
        self.buffer = b""
        while True:
            self.raw = b""
            lines = [self.line()]
            while lines[-1]:
                lines.append(self.line())
            method, path = lines[0].split(b" ")[:2]
            fields = {}
            for line in lines[1:-1]:
                name, _, value = line.partition(b":")
                fields.setdefault(name.strip().lower(), []).append(value.strip())
            if b"100-continue" in fields.get(b"expect", []):
                self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if any(b"chunked" in value.lower() for value in fields.get(b"transfer-encoding", [])):
                while True:
                    size = int(self.line().split(b";")[0], 16)
                    if not size:
                        break
                    self.take(size + 2)
                while self.line():
                    pass
            elif b"content-length" in fields:
                self.take(int(fields[b"content-length"][0]))
            self.requests.append(self.raw)
            reply, close = self.upstream.scripts.get(path.decode("latin-1"), (None, False))
            if reply is None:
                reply = EMPTY if method == b"HEAD" else ANSWER
            for piece in reply if isinstance(reply, list) else [reply]:
                self.socket.sendall(piece)
            if close:
                self.end()
                return
