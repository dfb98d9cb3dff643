"""The pages that show the document, in a real browser that can reach nothing but the gateway."""

import http.server
import os
import shutil
import subprocess
import threading

import pytest
from conftest import GATEWAY, operations

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def shown(url, folder):
    """The page when its scripts have run, and what it said on its console."""
    command = [
        BROWSER,
        "--headless",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        f"--user-data-dir={folder}",
        # Nobody else has an address.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--enable-logging=stderr",
        "--virtual-time-budget=30000",
        "--dump-dom",
        url,
    ]
    # The browser's own sandbox does not let root in.
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, console


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_a_page_shows_every_operation_and_breaks_no_rule_of_its_policy(page, tmp_path):
    text, console = shown(f"{GATEWAY}/{page}", tmp_path)
    assert console == []
    for operation in operations():
        shows = {"docs": f'data-path="{operation.path}"', "redoc": f">{operation.path}<"}
        assert shows[page] in text, operation.path


class Forbidden(http.server.BaseHTTPRequestHandler):
    """A page whose script its policy forbids."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<script>document.title = 'ran'</script>")

    def log_message(self, *_):
        pass


def test_a_broken_policy_would_be_seen(tmp_path):
    server = http.server.HTTPServer(("127.0.0.1", 0), Forbidden)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        _, console = shown(f"http://127.0.0.1:{server.server_port}/", tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert any("Content Security Policy" in line for line in console)
