"""The unmodified SDK, paid by ecash: as its key, or request by request in a header."""

import hashlib
import json

import openai as sdk
import pytest
from conftest import GATEWAY, HELLO, Account, cashu_token, client, cost_of, fetch

MSAT_PER_SAT = 1000


def paying(token, **options):
    return client("unused", default_headers={"X-Cashu": token}, **options)


def worth(change):
    """What the change is worth to somebody else, in msat: redeemed into a new account."""
    return Account(sats=1).top_up(change)


@pytest.mark.parametrize("form", ["A", "B"])
def test_a_cashu_token_is_a_key(form):
    token = cashu_token(500, form)
    openai = client(token)
    first = openai.chat.completions.create(model="demo", messages=HELLO)
    second = openai.chat.completions.create(model="demo", messages=HELLO)
    key = "sk-" + hashlib.sha256(token.encode()).hexdigest()[:32]
    by_key = client(key).chat.completions.create(model="demo", messages=HELLO)
    spent = sum(cost_of(answer.usage) for answer in (first, second, by_key))
    info = json.loads(fetch(f"{GATEWAY}/v1/balance/info", bearer=token))
    assert info["api_key"] == key
    assert info["balance"] + info["reserved"] == 500 * MSAT_PER_SAT - spent


@pytest.mark.parametrize("form", ["A", "B"])
def test_a_header_pays_for_one_request_and_the_change_comes_back(form):
    token = cashu_token(100, form)
    raw = paying(token).chat.completions.with_raw_response.create(model="demo", messages=HELLO)
    cost = cost_of(raw.parse().usage)
    assert int(raw.headers["x-routstr-cost-msats"]) == cost > 0
    due = 100 * MSAT_PER_SAT - cost
    assert worth(raw.headers["x-cashu"]) == due // MSAT_PER_SAT * MSAT_PER_SAT


def test_a_stream_paid_by_header_brings_its_change_in_the_head():
    raw = paying(cashu_token(100)).chat.completions.with_raw_response.create(
        model="demo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    change = raw.headers["x-cashu"]
    chunks = list(raw.parse())
    due = 100 * MSAT_PER_SAT - cost_of(chunks[-1].usage)
    assert worth(change) == due // MSAT_PER_SAT * MSAT_PER_SAT


def test_a_refused_request_gives_the_same_token_back():
    token = cashu_token(100)
    with pytest.raises(sdk.NotFoundError) as refused:
        paying(token).chat.completions.create(model="no-such-model", messages=HELLO)
    assert refused.value.response.headers["x-cashu"] == token
    assert worth(token) == 100 * MSAT_PER_SAT


@pytest.mark.parametrize("model", ["demo-429", "demo-500", "demo-401", "demo-400"])
def test_a_failed_request_is_repaid_in_full_and_not_sent_again(model):
    openai = paying(cashu_token(100)).with_options(max_retries=2)
    with pytest.raises(sdk.APIStatusError) as failed:
        openai.chat.completions.create(model=model, messages=HELLO)
    headers = failed.value.response.headers
    assert headers["x-should-retry"] == "false"
    assert worth(headers["x-cashu"]) == 100 * MSAT_PER_SAT


def test_a_spent_token_is_a_bad_request():
    token = cashu_token(100)
    worth(token)
    with pytest.raises(sdk.BadRequestError) as refused:
        paying(token).chat.completions.create(model="demo", messages=HELLO)
    assert refused.value.code == "cashu_token_already_spent"
