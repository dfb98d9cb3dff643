"""A page in a real browser, on another origin than the gateway: it pays by fetch and reads its
change."""

import json
import os
import queue
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import GATEWAY, Account, cashu_token

PAGE = Path(__file__).with_name("page.html")
REPORTED_WITHIN_S = 60
MSAT_PER_SAT = 1000


class Site(BaseHTTPRequestHandler):
    """Serves the page, and takes what it reports."""

    def do_GET(self):
        page = PAGE.read_bytes() if self.path.startswith("/?") else b""
        self.answer(200 if page else 404, page)

    def do_POST(self):
        said = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"")
        self.server.reports.put(json.loads(said))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the page reported, with the tokens that it was given."""
    tokens = {name: cashu_token(100) for name in ("held", "live", "untouched")}
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    site.reports = queue.Queue()
    threading.Thread(target=site.serve_forever, daemon=True).start()
    query = urllib.parse.urlencode({"gateway": GATEWAY, **tokens})
    command = [
        "chromium",
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ]
    if os.geteuid() == 0:
        # Its sandbox needs another user than root, and the page is ours.
        command.append("--no-sandbox")
    command.append(f"http://127.0.0.1:{site.server_port}/?{query}")
    browser = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        report = site.reports.get(timeout=REPORTED_WITHIN_S)
    finally:
        browser.terminate()
        browser.wait(REPORTED_WITHIN_S)
        site.shutdown()
        site.server_close()
    assert "error" not in report, report
    assert report["origin"] != GATEWAY
    return report | {"tokens": tokens}


def worth(token):
    return Account(sats=1).top_up(token)


def test_a_page_reads_the_change_and_the_cost_of_its_answer(said):
    paid = said["paid"]
    assert paid["status"] == 200
    headers = paid["headers"]
    cost = json.loads(paid["text"])["usage"]["cost"]["total_msats"]
    assert int(headers["x-routstr-cost-msats"]) == cost > 0
    assert headers["x-cashu"] == headers["x-cashu-refund"] == said["change"]
    due = 100 * MSAT_PER_SAT - cost
    assert worth(headers["x-cashu"]) == due // MSAT_PER_SAT * MSAT_PER_SAT


def test_a_page_reads_what_is_left_of_its_limits_and_the_id_of_its_request(said):
    headers = said["paid"]["headers"]
    assert headers["x-request-id"] == headers["x-routstr-request-id"] == "a-page"
    for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit"]:
        assert headers[name]


def test_a_page_reads_a_stream_as_it_comes_and_claims_its_change(said):
    streamed, claimed = said["streamed"], said["claimed"]
    assert streamed["status"] == claimed["status"] == 200
    assert "data: [DONE]" in streamed["text"]
    refund = json.loads(claimed["text"])
    assert claimed["headers"]["x-cashu"] == refund["token"]
    # In the head of the stream where it was held for that.
    assert streamed["headers"].get("x-cashu", refund["token"]) == refund["token"]
    assert 0 < worth(refund["token"]) == int(refund["msats"]) < 100 * MSAT_PER_SAT


def test_a_page_reads_the_token_that_a_refusal_left_untouched(said):
    refused = said["refused"]
    assert refused["status"] == 404
    assert refused["headers"]["x-cashu"] == said["tokens"]["untouched"]
    assert refused["headers"]["x-should-retry"] == "false"
    assert worth(said["tokens"]["untouched"]) == 100 * MSAT_PER_SAT


def test_a_page_reads_what_it_would_have_to_pay(said):
    assert said["unpaid"]["status"] == 401
    assert said["unpaid"]["headers"]["x-cashu"].startswith("creqA")
