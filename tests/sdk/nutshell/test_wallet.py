"""Nutshell, the wallet of the cashu package, by its own command line: its ecash pays, in each of the
ways there are, and what comes back is its own again at the mint."""

import json
import math
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

GATEWAY = os.environ["GATEWAY_URL"]
ASKED = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Where does every satoshi go?"}],
    "max_tokens": 200,
}
MSAT_PER_SAT = 1000
ENDED_WITHIN_S = 60


def fetch(path, *, headers=(), body=None):
    """The answer as JSON, and its head."""
    all_headers = {"Content-Type": "application/json", **dict(headers)}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(GATEWAY + path, data, all_headers)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return json.load(answer), answer.headers


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


class Wallet:
    """Keeps its ecash in a home of its own, and says after every command what it has."""

    def __init__(self, home, mint):
        self.environment = os.environ | {"HOME": str(home), "TOR": "false"}
        self.command = [str(Path(sys.executable).parent / "cashu"), "--host", mint, "--yes"]
        self.sats = 0

    def says(self, *arguments):
        ran = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            cwd=self.environment["HOME"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ENDED_WITHIN_S,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        lines = ran.stdout.splitlines()
        self.sats = int([line.split()[1] for line in lines if line.startswith("Balance: ")][-1])
        return lines

    def send(self, sats, *options):
        lines = self.says("send", str(sats), *options)
        (token,) = [line for line in lines if line.startswith("cashu")]
        return token

    def receive(self, token):
        """The mint swaps what is received, so it is the wallet's alone afterwards."""
        lines = self.says("receive", token)
        assert any(line.startswith("Received ") for line in lines), lines


@pytest.fixture(scope="module")
def wallet(tmp_path_factory):
    (mint,) = fetch("/v1/info")[0]["mints"]
    wallet = Wallet(tmp_path_factory.mktemp("home"), mint)
    # The mint's Lightning is a fake that pays every invoice.
    wallet.says("invoice", "1000")
    assert wallet.sats == 1000
    return wallet


@pytest.mark.parametrize("options", [(), ("--legacy",), ("--dleq",)])
def test_a_header_pays_for_one_request_and_the_wallet_redeems_its_change(wallet, options):
    before = wallet.sats
    token = wallet.send(100, *options)
    answer, head = fetch("/v1/chat/completions", headers={"X-Cashu": token}, body=ASKED)
    cost = answer["usage"]["cost"]["total_msats"]
    assert cost > 0
    wallet.receive(head["X-Cashu"])
    assert wallet.sats == before - math.ceil(cost / MSAT_PER_SAT)


def test_a_key_is_created_topped_up_and_refunded_into_the_wallet(wallet):
    before = wallet.sats
    token = wallet.send(60)
    created, _ = fetch("/v1/balance/create", body={"initial_balance_token": token})
    assert created["balance"] == 60 * MSAT_PER_SAT
    key = bearer(created["api_key"])
    added, _ = fetch("/v1/balance/topup", headers=key, body={"cashu_token": wallet.send(40)})
    assert added == {"msats": 40 * MSAT_PER_SAT}
    answer, _ = fetch("/v1/chat/completions", headers=key, body=ASKED)
    cost = answer["usage"]["cost"]["total_msats"]
    refund, _ = fetch("/v1/balance/refund", headers=key, body={})
    assert int(refund["sats"]) == 100 - math.ceil(cost / MSAT_PER_SAT)
    wallet.receive(refund["token"])
    assert wallet.sats == before - math.ceil(cost / MSAT_PER_SAT)
