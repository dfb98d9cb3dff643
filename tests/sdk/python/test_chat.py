"""The unmodified SDK, paid by key: it sees what it would see at OpenAI, and what it cost."""

import asyncio
import re

import openai as sdk
import pytest
from conftest import GATEWAY, HELLO, Account, client, cost_of


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_completion_costs_what_it_says():
    account = Account()
    completion = client(account.key).chat.completions.create(model="demo", messages=HELLO)
    assert completion.object == "chat.completion"
    assert completion.choices[0].message.content.startswith("Every satoshi")
    assert completion.usage.completion_tokens == 20
    assert cost_of(completion.usage) > 0
    assert account.balance - account.settled() == cost_of(completion.usage)


def test_a_request_that_is_repeated_is_answered_again_and_charged_once():
    account = Account()
    create = client(account.key).chat.completions.with_raw_response.create
    ask = {"model": "demo", "messages": HELLO, "extra_headers": {"Idempotency-Key": "order-1"}}
    first, again = create(**ask), create(**ask)
    assert first.headers.get("idempotency-replayed") is None
    assert again.headers["idempotency-replayed"] == "true"
    assert first.content == again.content
    assert account.balance - account.settled() == cost_of(again.parse().usage)
    with pytest.raises(sdk.UnprocessableEntityError) as refused:
        create(**ask, max_tokens=3)
    assert refused.value.code == "idempotency_key_reuse"


def test_an_output_limit_is_kept(openai):
    completion = openai.chat.completions.create(model="demo", messages=HELLO, max_tokens=3)
    assert completion.usage.completion_tokens == 3
    assert completion.choices[0].finish_reason == "length"


def test_a_stream_says_the_same_and_hides_usage_nobody_asked_for(openai):
    whole = openai.chat.completions.create(model="demo", messages=HELLO)
    chunks = list(openai.chat.completions.create(model="demo", messages=HELLO, stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_shows_usage_and_cost_to_who_asked():
    account = Account()
    stream = client(account.key).chat.completions.create(
        model="demo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == 1 and chunks[-1].choices == []
    assert usages[0].completion_tokens == 20
    assert account.balance - account.settled() == cost_of(usages[0])


def test_a_stream_that_hid_its_usage_is_charged_all_the_same():
    account = Account()
    openai = client(account.key)
    whole = openai.chat.completions.create(model="demo", messages=HELLO)
    between = account.settled()
    list(openai.chat.completions.create(model="demo", messages=HELLO, stream=True))
    assert between - account.settled() == cost_of(whole.usage)


def test_the_asynchronous_client_streams_many_at_once(account):
    async def stream(openai):
        chunks = await openai.chat.completions.create(model="demo", messages=HELLO, stream=True)
        return text_of([chunk async for chunk in chunks])

    async def streams():
        options = {"base_url": f"{GATEWAY}/v1", "api_key": account.key, "max_retries": 0}
        async with sdk.AsyncOpenAI(**options) as openai:
            return await asyncio.gather(*(stream(openai) for _ in range(8)))

    texts = asyncio.run(streams())
    assert len(set(texts)) == 1 and texts[0].startswith("Every satoshi")


def test_a_stream_that_breaks_is_seen_to_break(openai):
    stream = openai.chat.completions.create(
        model="demo-drops-mid-stream", messages=HELLO, stream=True
    )
    with pytest.raises(sdk.APIError):
        list(stream)


def test_a_stream_whose_money_ends_gives_all_that_was_paid_for_and_the_documented_error():
    account = Account(sats=30)
    whole = Account().stream_of("demo-long", max_tokens=256)
    stream = client(account.key).chat.completions.create(
        model="demo-long", messages=HELLO, max_tokens=256, stream=True
    )
    chunks = []
    with pytest.raises(sdk.APIError) as raised:
        for chunk in stream:
            chunks.append(chunk)
    assert type(raised.value) is sdk.APIError
    assert raised.value.code == "payment_required"
    assert raised.value.type == "insufficient_balance"
    assert 0 < len(text_of(chunks)) < len(whole) and whole.startswith(text_of(chunks))
    last = chunks[-1]
    assert last.choices[0].finish_reason == "length"
    assert (last.id, last.object, last.created, last.model) == (
        chunks[0].id,
        "chat.completion.chunk",
        chunks[0].created,
        "demo-long",
    )
    assert 0 <= account.settled() < account.balance


def test_the_models_are_listed_and_found_by_name(openai):
    names = [model.id for model in openai.models.list()]
    assert "demo" in names
    assert openai.models.retrieve("demo").id == "demo"
    with pytest.raises(sdk.NotFoundError):
        openai.models.retrieve("no-such-model")


def test_a_key_that_does_not_exist_is_an_authentication_error():
    with pytest.raises(sdk.AuthenticationError) as refused:
        client("sk-" + "0" * 32).chat.completions.create(model="demo", messages=HELLO)
    assert refused.value.code == "invalid_api_key"


def test_a_key_without_balance_is_told_what_is_missing():
    poor = Account(sats=1)
    endless = [{"role": "user", "content": "much " * 200_000}]
    with pytest.raises(sdk.APIStatusError) as refused:
        client(poor.key).chat.completions.create(model="demo", messages=endless)
    assert refused.value.status_code == 402
    details = refused.value.body["details"]
    assert details["required"] > details["available"] == poor.settled() == poor.balance


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("no-such-model", {}, sdk.NotFoundError),
        ("demo", {"max_tokens": -1}, sdk.BadRequestError),
        ("demo", {"max_tokens": "many"}, sdk.BadRequestError),
        ("demo-400", {}, sdk.BadRequestError),
        ("demo-429", {}, sdk.RateLimitError),
        ("demo-500", {}, sdk.InternalServerError),
        ("demo-401", {}, sdk.InternalServerError),
        ("demo-refuses", {}, sdk.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_has_the_class_of_its_status_and_costs_nothing(model, options, error, stream):
    account = Account(sats=200)
    with pytest.raises(error) as raised:
        client(account.key).chat.completions.create(
            model=model, messages=HELLO, stream=stream, **options
        )
    assert raised.value.request_id
    assert "sk-sandbox-upstream" not in str(raised.value.body)
    assert account.settled() == account.balance


def test_what_is_left_of_the_limits_is_read_as_at_openai():
    completions = client(Account().key).chat.completions.with_raw_response
    for made in (1, 2):
        answer = completions.create(model="demo", messages=HELLO)
        limit = int(answer.headers["x-ratelimit-limit-requests"])
        assert int(answer.headers["x-ratelimit-remaining-requests"]) == limit - made
        assert re.fullmatch(r"(1m)?\d+s", answer.headers["x-ratelimit-reset-requests"])
        left = int(answer.headers["x-ratelimit-remaining-tokens"])
        assert 0 < left < int(answer.headers["x-ratelimit-limit-tokens"])


def test_a_rate_limit_says_when_to_come_back(openai):
    with pytest.raises(sdk.RateLimitError) as raised:
        openai.chat.completions.create(model="demo-429", messages=HELLO)
    assert int(raised.value.response.headers["retry-after"]) > 0
