"""The fleet of deploy/loopback with deploy/prometheus, on free ports and with the sandbox's mint
and upstream.

The files are those of deploy/; what differs is said in `configuration` and `start_prometheus`.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from repository import DEPLOY, NUTGATE, ROOT, accepted, read_yaml

sys.path.append(str(ROOT / "tests/sdk"))
from with_sandbox import free_ports  # noqa: E402

# Bounds a failure; nothing is judged by how long it took.
WITHIN_S = 90
LOOK_AGAIN_S = 0.05


def until(what, is_so):
    """Waits until a question is answered with something, and answers with that."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        answer = is_so()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(LOOK_AGAIN_S)


def fetch(url, headers=None):
    """Status, head and text of an answer, whatever it is; nothing if there is nobody."""
    try:
        request = urllib.request.Request(url, headers=headers or {})
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, refusal.read().decode()
    except OSError:
        return None, None, ""


class PriceSource(ThreadingHTTPServer):
    """What a bitcoin costs, so that the dashboard has something to show."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"price": 100000}'
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/price"


class Fleet:
    def __init__(self):
        # PostgreSQL runs as nobody for root, and has to get to its directory.
        self.directory = Path(tempfile.mkdtemp())
        self.directory.chmod(0o711)
        self.state = self.directory / "state"
        self.price = PriceSource()
        ports = free_ports(11)
        self.port, self.gateway_ports, self.admin_ports = ports[0], ports[1:4], ports[4:7]
        self.redis_port, self.postgres_port, self.prometheus_port, self.closed_port = ports[7:]
        self.config = self.directory / "nutgate.yaml"
        self.config.write_text(yaml.safe_dump(self.configuration()))
        self.fleet = self.prometheus = None

    def configuration(self):
        """The shipped one with the sandbox's mint and upstream, and what the dashboard shows."""
        config = read_yaml("nutgate.fleet.yaml")
        sandbox = os.environ["GATEWAY_URL"]
        mint = json.loads(fetch(f"{sandbox}/v1/info")[2])["mints"][0]
        faucet = urllib.parse.urlsplit(os.environ["FAUCET_URL"])
        config["mints"] = [{"url": mint if isinstance(mint, str) else mint["url"]}]
        config["upstreams"][0]["base_url"] = f"http://{faucet.netloc}/v1"
        config["upstreams"][0]["models"] = {}
        nobody = f"http://127.0.0.1:{self.closed_port}/v1"
        config["upstreams"].append({"name": "nobody", "base_url": nobody, "models": {}})
        (model,) = config["models"]
        config["models"] = [model | {"id": id} for id in MODELS]
        config["btc_usd_feed"] = {
            "sources": [{"url": self.price.url, "path": "price"}],
            "sources_min": 1,
        }
        # A busy machine is not what is tried here.
        config["fleet"]["ledger_timeout"] = "10s"
        config["rate_limits"] = {
            "requests_per_minute": 1_000_000,
            "tokens_per_hour": 10**9,
            "concurrent": 1000,
        }
        return config

    def env(self):
        return {
            "CONFIG": str(self.config),
            "NUTGATE": NUTGATE,
            "UPSTREAM_API_KEY": "sk-sandbox-upstream",
            "PORT": str(self.port),
            "GATEWAY_PORTS": " ".join(map(str, self.gateway_ports)),
            "ADMIN_PORTS": " ".join(map(str, self.admin_ports)),
            "REDIS_PORT": str(self.redis_port),
            "POSTGRES_PORT": str(self.postgres_port),
        }

    def start(self):
        self.fleet = subprocess.Popen(
            [DEPLOY / "loopback", self.state],
            env=os.environ | self.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = self.fleet.stdout.readline()
        assert said == f"ready: http://127.0.0.1:{self.port}\n", said

    def stop(self):
        self.fleet.send_signal(signal.SIGINT)
        code = self.fleet.wait(WITHIN_S)
        self.fleet = None
        return code

    def start_prometheus(self):
        """With the shipped files, in a directory of its own, because it looks at them often."""
        home = self.directory / "prometheus"
        shutil.copytree(DEPLOY / "prometheus", home)
        config = home / "prometheus.yml"
        config.write_text(config.read_text().replace("15s", "1s"))
        targets = [f"127.0.0.1:{port}" for port in self.admin_ports]
        (home / "gateways.targets.yml").write_text(yaml.safe_dump([{"targets": targets}]))
        self.prometheus = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={home}/data",
                f"--web.listen-address=127.0.0.1:{self.prometheus_port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(home / "log").open("w"),
        )

    def end(self):
        if self.prometheus:
            self.prometheus.terminate()
            self.prometheus.wait(WITHIN_S)
        if self.fleet:
            self.stop()
        self.price.shutdown()
        shutil.rmtree(self.directory)

    def logs(self):
        return "".join(
            f"== {path.name}\n" + "".join(path.read_text().splitlines(keepends=True)[-20:])
            for path in sorted(self.state.glob("*.log"))
        )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def haproxy_socket(self):
        return self.state / "haproxy.sock"

    def haproxy(self, command):
        with subprocess.Popen(
            ["socat", "stdio", f"unix-connect:{self.haproxy_socket}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as socat:
            return socat.communicate(f"{command}\n")[0]

    def cashu(self, sats):
        status, _, cashu = fetch(f"{os.environ['FAUCET_URL']}?amount={sats}&format=B&unit=sat")
        assert status == 200, cashu
        return cashu.strip()

    def key(self, sats):
        cashu = self.cashu(sats)
        query = urllib.parse.urlencode({"initial_balance_token": cashu})
        status, _, text = fetch(f"{self.url}/v1/balance/create?{query}")
        assert status == 200, text
        return json.loads(text)["api_key"]

    def balance(self, key):
        status, _, text = fetch(f"{self.url}/v1/balance/info", {"authorization": f"Bearer {key}"})
        assert status == 200, text
        return json.loads(text)

    def connection(self, source="127.0.0.1"):
        address = (source, 0)
        return http.client.HTTPConnection("127.0.0.1", self.port, WITHIN_S, source_address=address)

    def series(self, number, name):
        """The sum of a metric at one gateway."""
        text = fetch(f"http://127.0.0.1:{self.admin_ports[number - 1]}/metrics")[2]
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return sum(int(value) for series, value in lines if series.split("{")[0] == name)

    def prometheus_says(self, path):
        text = fetch(f"http://127.0.0.1:{self.prometheus_port}/api/v1/{path}")[2]
        answer = json.loads(text) if text else {"status": "silent"}
        return answer["data"] if answer["status"] == "success" else None

    def audit(self):
        """`nutgate audit` beside the running fleet."""
        env = {
            "NUTGATE_LISTEN": f"127.0.0.1:{self.closed_port}",
            "NUTGATE_ADMIN": f"127.0.0.1:{self.closed_port + 1}",
            "NUTGATE_DATA": str(self.directory / "audit"),
            "NUTGATE_SECRETS": str(self.state / "secrets"),
        }
        return accepted(NUTGATE, "audit", "--config", self.config, env=env)


# What the sandbox's upstream does, by the endings of their names.
MODELS = ["demo", "demo-hangs-mid-stream", "demo-paced", "demo-500"]
