"""The unmodified OpenAI SDK beyond chat: every kind of thing it can buy, and what that costs."""

import io
import wave

import openai as sdk
import pytest
from conftest import Account, cashu_token, client, cost_of, price_of

# Ten tokens where it is a message, seven where it is only text.
QUESTION = "Where does every satoshi go?"
MSAT_PER_IMAGE = 4000
MSAT_PER_SECOND = 1000
MSAT_PER_CHARACTER = 100
MSAT_PER_MODERATION = 1000
MSAT_PER_SAT = 1000


def recording(seconds):
    """A WAV file of silence, as an upload."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 1, 8000, 0, "NONE", ""))
        out.writeframes(bytes(8000 * seconds))
    return ("silence.wav", file.getvalue(), "audio/wav")


def test_a_response_costs_what_it_says():
    account = Account()
    response = client(account.key).responses.create(model="demo", input=QUESTION)
    assert response.status == "completed"
    assert response.output_text.startswith("Every satoshi")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 20)
    assert account.balance - account.settled() == cost_of(response.usage) == price_of(10, 20)


def test_instructions_and_an_output_limit_of_a_response_are_kept():
    account = Account()
    response = client(account.key).responses.create(
        model="demo",
        instructions="Be brief.",
        input=[{"role": "user", "content": QUESTION}],
        max_output_tokens=5,
    )
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "Every satoshi that came in"
    # 37 characters in two messages.
    assert account.balance - account.settled() == price_of(10 + 6, 5)


def test_a_streamed_response_says_the_same_event_by_event():
    account = Account()
    openai = client(account.key)
    whole = openai.responses.create(model="demo", input=QUESTION)
    between = account.settled()
    with openai.responses.stream(model="demo", input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 20
    assert final.output_text == whole.output_text
    assert final.usage.output_tokens == 20
    assert between - account.settled() == price_of(10, 20)


def test_a_response_that_reasons_pays_for_what_it_does_not_show():
    account = Account()
    response = client(account.key).responses.create(model="demo-reasoning", input=QUESTION)
    assert response.usage.output_tokens_details.reasoning_tokens == 10
    assert len(response.output_text.split()) == 10
    assert account.balance - account.settled() == price_of(10, 20)


def test_a_completion_of_the_old_kind_pays_for_all_its_choices():
    account = Account()
    completion = client(account.key).completions.create(
        model="demo", prompt=QUESTION, n=2, max_tokens=4
    )
    assert [choice.text for choice in completion.choices] == ["Every satoshi that came"] * 2
    assert account.balance - account.settled() == cost_of(completion.usage) == price_of(7, 8)


def test_embeddings_are_the_same_vectors_in_the_encoding_that_the_sdk_prefers():
    account = Account()
    openai = client(account.key)
    # Without a word about it, the SDK asks for base64 and decodes it.
    preferred = openai.embeddings.create(model="demo-embeddings", input=[QUESTION, QUESTION])
    assert account.balance - account.settled() == cost_of(preferred.usage) == price_of(14)
    plain = openai.embeddings.create(
        model="demo-embeddings", input=[QUESTION, QUESTION], encoding_format="float"
    )
    assert [entry.index for entry in preferred.data] == [0, 1]
    assert [entry.embedding for entry in preferred.data] == [entry.embedding for entry in plain.data]
    assert preferred.data[0].embedding[:4] == [0.5, -0.25, 0.125, -1.0]


def test_an_embedding_is_paid_by_ecash_and_the_change_comes_back():
    openai = client("unused", default_headers={"X-Cashu": cashu_token(100)})
    raw = openai.embeddings.with_raw_response.create(model="demo-embeddings", input=QUESTION)
    due = 100 * MSAT_PER_SAT - cost_of(raw.parse().usage)
    change = Account(sats=1).top_up(raw.headers["x-cashu"])
    assert change == due // MSAT_PER_SAT * MSAT_PER_SAT


def test_images_are_paid_by_the_piece():
    account = Account()
    images = client(account.key).images.generate(model="demo-image", prompt="A nut.", n=2)
    assert len(images.data) == 2 and all(image.url for image in images.data)
    assert account.balance - account.settled() == 2 * MSAT_PER_IMAGE


def test_images_that_report_their_usage_are_paid_by_it():
    account = Account()
    images = client(account.key).images.generate(
        model="demo-image-usage", prompt="A nut.", quality="low"
    )
    assert images.data[0].b64_json
    assert (images.usage.input_tokens, images.usage.output_tokens) == (2, 100)
    assert account.balance - account.settled() == cost_of(images.usage) == price_of(2, 100)


def test_an_image_is_uploaded_to_be_edited():
    account = Account()
    picture = ("nut.png", b"\x89PNG\r\n\x1a\n" + bytes(1000), "image/png")
    images = client(account.key).images.edit(model="demo-image", prompt="Crack it.", image=picture)
    assert len(images.data) == 1
    assert account.balance - account.settled() == MSAT_PER_IMAGE


def test_a_recording_is_uploaded_and_paid_by_its_seconds():
    account = Account()
    transcript = client(account.key).audio.transcriptions.create(
        model="demo-transcribe", file=recording(seconds=3)
    )
    assert transcript.text.startswith("Every satoshi")
    assert transcript.usage.seconds == 3
    assert account.balance - account.settled() == 3 * MSAT_PER_SECOND


# The SDK warns that OpenAI will not translate for ever. The route is sold all the same.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_translation_is_paid_by_its_seconds_too():
    account = Account()
    translation = client(account.key).audio.translations.create(
        model="demo-transcribe", file=recording(seconds=2)
    )
    assert translation.text.startswith("Every satoshi")
    assert account.balance - account.settled() == 2 * MSAT_PER_SECOND


def test_a_streamed_transcript_is_paid_by_the_usage_at_its_end():
    account = Account()
    stream = client(account.key).audio.transcriptions.create(
        model="demo-by-tokens", file=recording(seconds=3), stream=True
    )
    events = list(stream)
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert account.balance - account.settled() == price_of(30, 20)


def test_speech_is_downloaded_as_it_is_made_and_paid_by_its_characters(tmp_path):
    account = Account()
    file = tmp_path / "speech.mp3"
    speech = client(account.key).audio.speech.with_streaming_response.create(
        model="demo-speech", input=QUESTION, voice="alloy"
    )
    with speech as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        answer.stream_to_file(file)
    assert file.read_bytes()[:3] == b"\xff\xfe\xfd"
    assert file.stat().st_size == 100 * len(QUESTION)
    assert account.balance - account.settled() == len(QUESTION) * MSAT_PER_CHARACTER


def test_a_moderation_flags_and_is_paid_by_the_request():
    account = Account()
    moderation = client(account.key).moderations.create(
        model="demo-moderation", input=["Peace.", "Nothing but violence."]
    )
    assert [result.flagged for result in moderation.results] == [False, True]
    assert moderation.results[1].categories.violence
    assert account.balance - account.settled() == MSAT_PER_MODERATION


REFUSED = [
    ("no-such-model", sdk.NotFoundError),
    ("demo-400", sdk.BadRequestError),
    ("demo-429", sdk.RateLimitError),
    ("demo-401", sdk.InternalServerError),
]
ASKED = {
    "responses": lambda openai, model: openai.responses.create(model=model, input=QUESTION),
    "completions": lambda openai, model: openai.completions.create(model=model, prompt=QUESTION),
    "embeddings": lambda openai, model: openai.embeddings.create(model=model, input=QUESTION),
    "moderations": lambda openai, model: openai.moderations.create(model=model, input=QUESTION),
}


@pytest.mark.parametrize(("model", "error"), REFUSED)
@pytest.mark.parametrize("route", ASKED)
def test_an_error_has_the_class_of_its_status_and_costs_nothing(route, model, error):
    account = Account(sats=200)
    with pytest.raises(error) as raised:
        ASKED[route](client(account.key), model)
    assert raised.value.request_id
    assert "sk-sandbox-upstream" not in str(raised.value.body)
    assert account.settled() == account.balance
