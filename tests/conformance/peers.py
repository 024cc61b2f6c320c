"""The servers that are compared: each with the same certificate, before the same upstream."""

import os
import shutil
import socket
import subprocess
import tempfile
import time

HOST = "example.test"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Peer:
    """A running server; `port` speaks TLS."""

    def __init__(self, name, port, process):
        self.name, self.port, self.process = name, port, process

    def up(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            except OSError:
                time.sleep(0.05)
        return False

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def certificate(folder):
    chain, key = os.path.join(folder, "chain.pem"), os.path.join(folder, "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "30", "-subj", f"/CN={HOST}", "-addext",
         f"subjectAltName=DNS:{HOST},DNS:other.test", "-keyout", key, "-out", chain],
        check=True, capture_output=True)
    with open(chain, encoding="ascii") as one, open(key, encoding="ascii") as two:
        text = one.read() + two.read()
    with open(os.path.join(folder, "both.pem"), "w", encoding="ascii") as out:
        out.write(text)
    return chain, key


def launch(folder, name, command):
    with open(os.path.join(folder, f"{name}.log"), "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    return path


def staunch(binary, folder, chain, key, upstream):
    port = free_port()
    config = write(folder, "staunch.toml", f"""
state_dir = "{folder}/state"
[listen]
https = ["127.0.0.1:{port}"]
admin = ""
[[certificate]]
chain = "{chain}"
key = "{key}"
[[site]]
names = ["{HOST}"]
upstream = "http://127.0.0.1:{upstream}"
""")
    return port, launch(folder, "staunch", [binary, "run", "--config", config])


def nginx(binary, folder, chain, key, upstream):
    port = free_port()
    config = write(folder, "nginx.conf", f"""
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-f; uwsgi_temp_path {folder}/nginx-u;
    scgi_temp_path {folder}/nginx-s;
    server {{
        listen 127.0.0.1:{port} ssl http2; server_name {HOST};
        ssl_certificate {chain}; ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Host $host;
            proxy_request_buffering off;
        }}
    }}
}}
""")
    return port, launch(folder, "nginx", [binary, "-c", config, "-p", folder])


def haproxy(binary, folder, chain, key, upstream):
    port = free_port()
    config = write(folder, "haproxy.cfg", f"""
global
    nbthread 1
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
    timeout http-request 10s
frontend f
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn h2,http/1.1
    default_backend b
backend b
    server s 127.0.0.1:{upstream}
""")
    return port, launch(folder, "haproxy", [binary, "-db", "-f", config])


def h2o(binary, folder, chain, key, upstream):
    port = free_port()
    config = write(folder, "h2o.yaml", f"""
num-threads: 1
user: {"root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")}
hosts:
  default:
    listen:
      port: {port}
      host: 127.0.0.1
      ssl: {{ certificate-file: {chain}, key-file: {key} }}
    paths:
      "/":
        proxy.reverse.url: "http://127.0.0.1:{upstream}/"
        proxy.preserve-host: ON
""")
    return port, launch(folder, "h2o", [binary, "-c", config])


def caddy(binary, folder, chain, key, upstream):
    port = free_port()
    config = write(folder, "Caddyfile", f"""
{{
    admin off
    auto_https off
    storage file_system {folder}/caddy
}}
https://{HOST}:{port} {{
    bind 127.0.0.1
    tls {chain} {key}
    reverse_proxy 127.0.0.1:{upstream}
}}
""")
    command = [binary, "run", "--config", config, "--adapter", "caddyfile"]
    return port, launch(folder, "caddy", command)


KINDS = {"staunch": staunch, "nginx": nginx, "haproxy": haproxy, "h2o": h2o, "caddy": caddy}


def find(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def start(name, binary, folder, upstream):
    """The running server, or `None` where it cannot be started."""
    own = tempfile.mkdtemp(prefix=name, dir=folder)
    os.chmod(own, 0o755)
    chain, key = certificate(own)
    port, process = KINDS[name](binary, own, chain, key, upstream)
    peer = Peer(name, port, process)
    if peer.up():
        return peer
    peer.stop()
    return None
