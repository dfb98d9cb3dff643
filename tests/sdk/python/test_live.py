"""The unmodified SDKs on live streams paid by a header: every chunk as it comes, then the change."""

import json
import urllib.error
import urllib.request

import pytest
from anthropic import Anthropic
from conftest import GATEWAY, HELLO, Account, cashu_token, client, cost_of
from test_payment import MSAT_PER_SAT, worth


def live(token):
    return {"X-Cashu": token, "X-Cashu-Stream": "live"}


def claimed(token):
    """The change of a payment, asked for until it is there."""
    headers = {"Content-Type": "application/json", "X-Cashu": token}
    while True:
        asked = urllib.request.Request(f"{GATEWAY}/v1/balance/refund", b"{}", headers)
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return json.load(answer)["token"]
        except urllib.error.HTTPError as refused:
            if refused.code != 425 and "in_progress" not in refused.read().decode():
                raise


def due(cost):
    return (100 * MSAT_PER_SAT - cost) // MSAT_PER_SAT * MSAT_PER_SAT


@pytest.mark.parametrize("model", ["demo", "demo-byte-by-byte", "demo-crlf"])
def test_every_chunk_comes_and_the_change_is_claimed(model):
    token = cashu_token(100)
    stream = client("unused", default_headers=live(token)).chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == Account().stream_of(model)
    assert worth(claimed(token)) == due(cost_of(chunks[-1].usage))


def test_the_change_can_be_read_from_the_stream():
    token = cashu_token(100)
    openai = client("unused", default_headers=live(token))
    with openai.chat.completions.with_streaming_response.create(
        model="demo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as response:
        lines = list(response.iter_lines())
    told = [line.removeprefix(": x-cashu ") for line in lines if line.startswith(": x-cashu ")]
    assert told == [claimed(token)]
    usage = json.loads(lines[lines.index("data: [DONE]") - 2].removeprefix("data: "))["usage"]
    assert worth(told[0]) == due(usage["cost"]["total_msats"])


def test_the_other_sdk_passes_over_the_change_too():
    token = cashu_token(100)
    anthropic = Anthropic(base_url=GATEWAY, api_key="unused", default_headers=live(token))
    with anthropic.messages.stream(model="demo", messages=HELLO, max_tokens=50) as stream:
        assert stream.get_final_text()
    assert worth(claimed(token)) < 100 * MSAT_PER_SAT
