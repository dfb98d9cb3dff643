"""Deliveries verify with the library of Standard Webhooks, and with nothing but a hash."""

import hashlib
import hmac
import http.server
import json
import queue
import threading

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from conftest import GATEWAY, Account, cashu_token, fetch

DELIVERED_WITHIN_S = 20


@pytest.fixture
def endpoint():
    """An address on this machine, and what is posted to it."""
    posted = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            posted.put((dict(self.headers.items()), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", posted
    server.shutdown()
    server.server_close()
    thread.join()


def registered(account, url, **fields):
    body = {"url": url, "events": ["balance.topup"], **fields}
    return json.loads(fetch(f"{GATEWAY}/v1/webhooks", bearer=account.key, body=body))


def test_a_delivery_verifies_by_a_secret_that_was_made_here(endpoint):
    url, posted = endpoint
    account = Account()
    webhook = Webhook(registered(account, url)["secret"])
    account.top_up(cashu_token(20))
    headers, body = posted.get(timeout=DELIVERED_WITHIN_S)
    headers = {name.lower(): value for name, value in headers.items()}
    event = webhook.verify(body, headers)
    assert event["type"] == "balance.topup"
    assert event["id"] == headers["webhook-id"]
    assert event["data"]["amount_msats"] == 20_000
    with pytest.raises(WebhookVerificationError):
        webhook.verify(body.replace(b"20000", b"90000"), headers)


def test_a_delivery_verifies_by_a_secret_of_the_owner(endpoint):
    url, posted = endpoint
    account = Account()
    secret = "a secret that is no base64"
    assert "secret" not in registered(account, url, secret=secret)
    account.top_up(cashu_token(20))
    headers, body = posted.get(timeout=DELIVERED_WITHIN_S)
    headers = {name.lower(): value for name, value in headers.items()}
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-webhook-signature"] == f"sha256={expected}"
    Webhook(secret.encode()).verify(body, headers)
