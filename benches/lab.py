"""What the comparison, the soak and the fairness test share: proxies and an origin on loopback, on free
ports, in a temporary folder, each on its own CPU; what is started is ended by its process id."""
import atexit, os, re, resource, shutil, socket, ssl, subprocess, sys, tempfile, time

SUITE = "TLS_AES_128_GCM_SHA256"
TICKS = os.sysconf("SC_CLK_TCK")
STARTED = []


def find(name, fallback=None):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    name = name.removesuffix("-full")
    return shutil.which(os.environ.get(name.upper() + "_BIN") or fallback or name, path=path)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tree(pid):
    """A process and all that it started."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in f.read().split():
                    found += tree(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def cpu_seconds(pid):
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            total += sum(int(fields[i]) for i in (11, 12, 13, 14))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total / TICKS


def kib(pid):
    """The proportional share of memory, so that what forked processes share counts once."""
    total = 0
    for process in tree(pid):
        try:
            with open(f"/proc/{process}/smaps_rollup") as f:
                total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
        except (OSError, AttributeError):
            pass
    return total


def stop(process):
    family = tree(process.pid)[1:]
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    for pid in family:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
    STARTED.remove(process)


atexit.register(lambda: [stop(process) for process in list(STARTED)])


def pinned(cpu, argv, first=False):
    """On this core; `first`: before whatever else would run there, where that may be asked for."""
    may = first and shutil.which("chrt") and os.geteuid() == 0
    return (["taskset", "-c", str(cpu)] if os.cpu_count() > 1 else []) + (["chrt", "-f", "1"] if may else []) + argv


def start(argv, cpu, folder, first=False):
    with open(f"{folder}/log", "ab") as log:
        process = subprocess.Popen(pinned(cpu, argv, first), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env={**os.environ, "HOME": folder, "GOMAXPROCS": "1"})
    STARTED.append(process)
    return process


class Site:
    """Where one peer listens, and what with."""

    def __init__(self, base, name, origin):
        self.dir = f"{base}/{name}"
        os.makedirs(self.dir, exist_ok=True)
        self.port, self.admin, self.origin = free_port(), free_port(), origin
        self.crt, self.key, self.pem = f"{base}/site.crt", f"{base}/site.key", f"{base}/site.pem"

    def write(self, name, text):
        with open(f"{self.dir}/{name}", "w") as f:
            f.write(text)
        return f"{self.dir}/{name}"


def staunch(s, exe, threads=1, log='"off"', tls=f'versions = ["1.3"]\ncipher_suites = ["{SUITE}"]', site=None):
    site = site or f'upstream = "http://{s.origin}"'
    return [exe, "run", "--config", s.write("staunch.toml", f"""
state_dir = "{s.dir}/state"
[listen]
https = ["127.0.0.1:{s.port}"]
admin = "127.0.0.1:{s.admin}"
[workers]
threads = {threads}
[drain]
notice = "0s"
deadline = "2s"
[log]
access = {{ to = {log} }}
[tls]
{tls}
[[certificate]]
chain = "{s.crt}"
key = "{s.key}"
[[site]]
names = ["localhost"]
{site}
""")]


def staunch_full(s, exe):
    """With what many sites have: an access log, rules, ids, compression, several servers."""
    return staunch(s, exe, log=f'"{s.dir}/access"', tls='versions = ["1.2", "1.3"]', site=f"""
upstream = "servers"
hsts = "730d"
request_id = "X-Request-Id"
compression = ["zstd", "br", "gzip"]
rate = 1000000
[site.request_headers]
remove = ["X-Debug"]
set = {{ "X-Real-IP" = "{{client_address}}" }}
[site.response_headers]
remove = ["Server"]
set = {{ "X-Frame-Options" = "DENY" }}
[[site.route]]
regex = '^/img/(?<name>.+)[.]png$'
rewrite = "/{{name}}"
[[site.route]]
path = "/api/"
replace_prefix = "/"
[upstream.servers]
servers = ["http://{s.origin}", "http://{s.origin.replace('127.0.0.1', 'localhost')}"]
balance = "least-requests"
""")


def nginx(s, exe):
    old = tuple(map(int, version([exe, "-v"]).split(".")[:2])) < (1, 25)
    return [exe, "-e", "stderr", "-p", s.dir, "-c", s.write("nginx.conf", f"""
worker_processes 1; daemon off; pid {s.dir}/pid; error_log stderr error; worker_rlimit_nofile 65536;
{'user root;' if os.geteuid() == 0 else ''}
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on; client_max_body_size 0;
  client_body_temp_path {s.dir}; proxy_temp_path {s.dir}; fastcgi_temp_path {s.dir}; uwsgi_temp_path {s.dir}; scgi_temp_path {s.dir};
  ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {SUITE}; http2_max_concurrent_streams 256;
  upstream o {{ server {s.origin}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{s.port} ssl {'http2' if old else ''} backlog=8192; {'' if old else 'http2 on;'}
    server_name localhost; ssl_certificate {s.crt}; ssl_certificate_key {s.key};
    location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https; proxy_request_buffering off; proxy_max_temp_file_size 0; }}
  }}
}}
""")]


def haproxy(s, exe):
    return [exe, "-W", "-db", "-f", s.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites {SUITE}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
  option forwardfor
frontend f
  bind 127.0.0.1:{s.port} ssl crt {s.pem} alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto https
  default_backend o
backend o
  server o {s.origin} pool-max-conn 256
""")]


def h2o(s, exe):
    return [exe, "-c", s.write("h2o.yaml", f"""
num-threads: 1
max-connections: 20000
http1-request-timeout: 3600
proxy.timeout.keepalive: 600000
proxy.preserve-host: ON
hosts:
  "localhost:{s.port}":
    listen: {{ host: 127.0.0.1, port: {s.port}, ssl: {{ certificate-file: {s.crt}, key-file: {s.key} }} }}
    paths: {{ "/": {{ proxy.reverse.url: "http://{s.origin}/" }} }}
""")]


def hitch(s, exe):
    host, port = s.origin.split(":")
    return [exe, "--config", s.write("hitch.conf", f"""
frontend = "[127.0.0.1]:{s.port}"
backend = "[{host}]:{port}"
workers = 1
daemon = off
tls-protos = TLSv1.3
ciphersuites = "{SUITE}"
write-proxy-v2 = off
pem-file = "{s.pem}"
{'user = "root"' if os.geteuid() == 0 else ''}
""")]


def caddy(s, exe):
    return [exe, "run", "--adapter", "caddyfile", "--config", s.write("Caddyfile", f"""
{{
  admin off
  auto_https off
}}
https://localhost:{s.port} {{
  bind 127.0.0.1
  tls {s.crt} {s.key}
  reverse_proxy {s.origin} {{
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
""")]


PEERS = {"staunch": (staunch, ["--version"]), "staunch-full": (staunch_full, ["--version"]), "nginx": (nginx, ["-v"]), "haproxy": (haproxy, ["-v"]),
         "h2o": (h2o, ["--version"]), "hitch": (hitch, ["--version"]), "caddy": (caddy, ["version"])}
BYTES_ONLY = {"hitch"}  # does not look at HTTP, so it has no HTTP/2 of its own


def version(argv):
    run = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    found = re.search(r"\d+\.\d+[\w.\-]*", run.stdout + run.stderr)
    return found.group(0) if found else "?"


def serves(port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as raw, context.wrap_socket(raw, server_hostname="localhost") as tls:
            tls.sendall(b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b" 200 " in tls.recv(4096)
    except OSError:
        return False


def prepare(base, first=False):
    """Certificate and origin."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{base}/site.key", "-out", f"{base}/site.crt"], check=True, capture_output=True)
    with open(f"{base}/site.pem", "w") as pem:
        for part in ("crt", "key"):
            with open(f"{base}/site.{part}") as f:
                pem.write(f.read())
    return origin(base, "origin", first)


def origin(base, name, first=False):
    """A server that proxies are put before."""
    site = Site(base, name, "")
    os.makedirs(f"{site.dir}/www")
    for name, size in (("1k", 1 << 10), ("64m", 64 << 20)):
        with open(f"{site.dir}/www/{name}", "wb") as f:
            f.write(os.urandom(1 << 10) * (size >> 10))
    with open(f"{site.dir}/www/text", "w") as f:
        f.write("".join(f"{n} times {n} is {n * n}.\n" for n in range(4000))[:64 << 10])
    conf = site.write("nginx.conf", f"""
worker_processes 1; daemon off; pid {site.dir}/pid; error_log stderr error;
{'user root;' if os.geteuid() == 0 else ''}
events {{ worker_connections 4096; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000000; open_file_cache max=10; client_body_temp_path {site.dir}; proxy_temp_path {site.dir};
  fastcgi_temp_path {site.dir}; uwsgi_temp_path {site.dir}; scgi_temp_path {site.dir};
  server {{ listen 127.0.0.1:{site.port} backlog=4096; root {site.dir}/www;
    location = /upload {{ client_max_body_size 0; client_body_buffer_size 2m; proxy_pass http://127.0.0.1:{site.port}/done; proxy_pass_request_body off; proxy_set_header Content-Length ""; }}
    location = /done {{ return 204; }} }} }}
""")
    start([find("nginx"), "-e", "stderr", "-p", site.dir, "-c", conf], 1, site.dir, first)
    return f"127.0.0.1:{site.port}"


def workplace(prefix):
    """A folder that goes away at the end; and as many descriptors as there may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, most), most))
    base = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, base, True)
    os.chmod(base, 0o755)
    return base


def launch(name, exe, base, origin):
    """Starts a peer; its process and site, or `None` where it does not serve."""
    site = Site(base, name, origin)
    process = start(PEERS[name][0](site, exe), 0, site.dir)
    until = time.time() + 15
    while not serves(site.port) and time.time() < until and process.poll() is None:
        time.sleep(0.1)
    if serves(site.port):
        return process, site
    with open(f"{site.dir}/log", errors="replace") as log:
        print(f"{name} is left out: it does not serve: {log.read()[-300:]}", file=sys.stderr)
    return None


def micros(text):
    """None where too few requests came to an end to tell."""
    found = re.match(r"([\d.]+)(us|ms|s)", text)
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]] if found else None


def wrk(path, connections, *options):
    """A load of HTTP/1.1: how much was done, p50, p99 (µs), whether some of it failed."""
    def load(port, secs):
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{secs}s", "--timeout", "20s", "--latency", *options, f"https://localhost:{port}{path}"]
        out = subprocess.run(pinned(1, argv), capture_output=True, text=True, timeout=secs + 60).stdout
        bad = re.search(r"Non-2xx.*|Socket errors.*", out)
        done = int(re.search(r"(\d+) requests in", out).group(1))
        if path == "/64m":  # transfers do not end with the run: bytes count
            amount, unit = re.search(r"([\d.]+)(MB|GB) read", out).groups()
            done = float(amount) * (1024 if unit == "GB" else 1)
        of = lambda share: micros(re.search(share + r"%\s+(\S+)", out).group(1))
        return done, of("50"), of("99"), bool(bad)
    return load
