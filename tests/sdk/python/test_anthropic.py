"""The unmodified Anthropic SDK: it sees what it would see at Anthropic, and what it cost."""

import anthropic as sdk
import pytest
from conftest import GATEWAY, Account, cost_of, price_of

ASKED = {
    "model": "demo",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Where does every satoshi go?"}],
}


def client(api_key, **options):
    """The SDK adds the path's `/v1` itself, and sends the key in `x-api-key`."""
    return sdk.Anthropic(base_url=GATEWAY, api_key=api_key, max_retries=0, timeout=30, **options)


def test_a_message_costs_what_it_says():
    account = Account()
    message = client(account.key).messages.create(**ASKED)
    assert message.content[0].text.startswith("Every satoshi")
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 20)
    assert account.balance - account.settled() == cost_of(message.usage) == price_of(10, 20)


def test_a_key_may_also_come_as_a_bearer():
    account = Account()
    anthropic = sdk.Anthropic(base_url=GATEWAY, auth_token=account.key, max_retries=0, timeout=30)
    message = anthropic.messages.create(**ASKED)
    assert message.usage.output_tokens == 20
    assert account.balance - account.settled() == price_of(10, 20)


def test_a_system_prompt_and_an_output_limit_are_kept():
    account = Account()
    asked = ASKED | {"system": "Be brief.", "max_tokens": 5}
    message = client(account.key).messages.create(**asked)
    assert message.content[0].text == "Every satoshi that came in"
    assert message.stop_reason == "max_tokens"
    # 37 characters in two messages.
    assert account.balance - account.settled() == price_of(10 + 6, 5)


def test_a_streamed_message_says_the_same():
    account = Account()
    anthropic = client(account.key)
    whole = anthropic.messages.create(**ASKED)
    between = account.settled()
    with anthropic.messages.stream(**ASKED) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text
    assert (final.usage.input_tokens, final.usage.output_tokens) == (10, 20)
    assert between - account.settled() == price_of(10, 20)


def test_a_streamed_message_has_the_events_of_the_api_in_their_order():
    account = Account()
    kinds = [event.type for event in client(account.key).messages.create(**ASKED, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert kinds.count("content_block_delta") == 20
    assert account.balance - account.settled() == price_of(10, 20)


@pytest.mark.parametrize("stream", [False, True])
def test_input_that_went_through_a_cache_is_counted_once(stream):
    account = Account()
    anthropic = client(account.key)
    asked = ASKED | {"model": "demo-cached"}
    if stream:
        with anthropic.messages.stream(**asked) as events:
            usage = events.get_final_message().usage
    else:
        usage = anthropic.messages.create(**asked).usage
    counts = (
        usage.input_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
    )
    assert counts == (3, 5, 2)
    assert account.balance - account.settled() == price_of(10, 20)


def test_a_key_that_does_not_exist_is_an_authentication_error():
    with pytest.raises(sdk.AuthenticationError):
        client("sk-" + "0" * 32).messages.create(**ASKED)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("no-such-model", sdk.NotFoundError),
        ("demo-400", sdk.BadRequestError),
        ("demo-429", sdk.RateLimitError),
        ("demo-500", sdk.InternalServerError),
        ("demo-401", sdk.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_has_the_class_of_its_status_and_costs_nothing(model, error, stream):
    account = Account(sats=200)
    with pytest.raises(error) as raised:
        client(account.key).messages.create(**ASKED | {"model": model}, stream=stream)
    assert "sk-sandbox-upstream" not in str(raised.value.body)
    assert account.settled() == account.balance
