"""What the tests have in common: money, accounts and clients.

Nothing here changes an SDK: a client is what the SDK's own constructor makes of a base URL and a
key. Plain HTTP is the standard library's.
"""

import json
import os
import time
import urllib.parse
import urllib.request

import pytest
from openai import OpenAI

GATEWAY = os.environ["GATEWAY_URL"]
FAUCET = os.environ["FAUCET_URL"]
HELLO = [{"role": "user", "content": "Where does every satoshi go?"}]

SETTLED_WITHIN_S = 5


def fetch(url, *, bearer=None, body=None):
    headers = {"Content-Type": "application/json"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as answer:
        return answer.read().decode()


def cashu_token(sats, form="B"):
    return fetch(f"{FAUCET}?amount={sats}&format={form}").strip()


class Account:
    def __init__(self, sats=1000):
        self.cashu_token = cashu_token(sats)
        query = urllib.parse.urlencode({"initial_balance_token": self.cashu_token})
        created = json.loads(fetch(f"{GATEWAY}/v1/balance/create?{query}"))
        self.key = created["api_key"]
        self.balance = created["balance"]

    def settled(self):
        """The balance once no request is open; the settlement runs after the last byte."""
        until = time.monotonic() + SETTLED_WITHIN_S
        while True:
            info = json.loads(fetch(f"{GATEWAY}/v1/balance/info", bearer=self.key))
            if info["reserved"] == 0:
                return info["balance"]
            assert time.monotonic() < until, f"still reserved: {info}"
            time.sleep(0.01)

    def stream_of(self, model, **options):
        """The text of a stream that this account pays for."""
        stream = client(self.key).chat.completions.create(
            model=model, messages=HELLO, stream=True, **options
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    def top_up(self, token):
        body = {"cashu_token": token}
        return json.loads(fetch(f"{GATEWAY}/v1/balance/topup", bearer=self.key, body=body))["msats"]


def client(api_key, **options):
    return OpenAI(base_url=f"{GATEWAY}/v1", api_key=api_key, max_retries=0, timeout=30, **options)


def cost_of(usage):
    return usage.model_extra["cost"]["total_msats"]


def price_of(input_tokens, output_tokens=0):
    """What text costs in the sandbox, in msat."""
    return 50 * input_tokens + 200 * output_tokens


@pytest.fixture(scope="session")
def account():
    """One account for whoever only needs some balance."""
    return Account(sats=10_000)


@pytest.fixture
def openai(account):
    return client(account.key)
