"""Answers of the running gateway against the document: what succeeds, and what is refused."""

import io
import json
import wave

import pytest
from conftest import (
    LIGHTNING_ADDRESS,
    MODELS,
    call,
    cashu_token,
    header,
    key,
    named,
    operation,
    operations,
)

HELLO = [{"role": "user", "content": "Where does every satoshi go?"}]
TEXT = {"input": "Where does every satoshi go?"}


def recording():
    """Three seconds, which cost three sats."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 1, 8000, 0, "NONE", ""))
        out.writeframes(bytes(3 * 8000))
    return file.getvalue()


# What each route that sells needs besides its model, and as what it is sent.
SOLD = {
    "/v1/audio/speech": TEXT | {"voice": "alloy"},
    "/v1/audio/transcriptions": None,
    "/v1/audio/translations": None,
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Where"},
    "/v1/embeddings": TEXT,
    "/v1/images/edits": None,
    "/v1/images/generations": {"prompt": "A nut"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 20},
    "/v1/moderations": TEXT,
    "/v1/rerank": {"query": "Where?", "documents": ["here", "there"]},
    "/v1/responses": TEXT,
}
FORMS = {
    "/v1/audio/transcriptions": ({}, {"file": ("a.wav", recording(), "audio/wav")}),
    "/v1/audio/translations": ({}, {"file": ("a.wav", recording(), "audio/wav")}),
    "/v1/images/edits": ({"prompt": "A nut"}, {"image": ("a.png", b"png", "image/png")}),
}
STREAMED = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/images/generations",
    "/v1/messages",
    "/v1/responses",
]


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def ask(method, path, *, status=200, headers=None, ids=None, query=None, body=None):
    """Asks as the document describes it. Credentials are those given and no others."""
    if path == "/v1/messages":
        headers = (headers or {}) | {"anthropic-version": "2023-06-01"}
    parts = {"path_parameters": ids, "query": query, "headers": headers}
    if body is not None:
        parts |= {"body": body, "media_type": "application/json"}
    answer = call(operation(method, path).Case(**parts))
    assert answer.status_code == status, answer.text
    return answer


def buy(path, headers, *, status=200, model=None, **more):
    model = model or MODELS[path]
    if path not in FORMS:
        body = SOLD[path] | {"model": model} | more
        return ask("POST", path, status=status, headers=headers, body=body)
    fields, files = FORMS[path]
    case = operation("POST", path).Case(headers=headers, media_type="multipart/form-data")
    answer = call(case, data=fields | {"model": model}, files=files)
    assert answer.status_code == status, answer.text
    return answer


@pytest.fixture(scope="module")
def payer():
    return bearer(key(10_000))


@pytest.mark.parametrize("path", SOLD)
def test_what_is_sold_is_answered_as_documented(path, payer):
    buy(path, payer)
    paid = buy(path, {"X-Cashu": cashu_token(500)})
    assert header(paid, "X-Cashu").startswith(("cashuA", "cashuB"))


@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_is_answered_as_documented(path, payer):
    model = "demo-image-usage" if "images" in path else None
    answer = buy(path, payer, model=model, stream=True)
    assert header(answer, "Content-Type").startswith("text/event-stream")


REFUSED = {
    "demo-400": 400,
    "demo-401": 502,
    "demo-402": 502,
    "demo-429": 429,
    "demo-500": 502,
    "demo-html": 502,
    "demo-invalid-json": 502,
    "demo-refuses": 502,
    "no-such-model": 404,
}


@pytest.mark.parametrize("model", REFUSED)
def test_what_an_upstream_does_wrong_is_answered_as_documented(model, payer):
    buy("/v1/chat/completions", payer, model=model, status=REFUSED[model])
    ecash = {"X-Cashu": cashu_token(500)}
    back = buy("/v1/chat/completions", ecash, model=model, status=REFUSED[model])
    assert header(back, "X-Cashu").startswith(("cashuA", "cashuB"))


@pytest.mark.parametrize("path", SOLD)
def test_who_does_not_pay_is_refused_as_documented(path):
    assert header(buy(path, {}, status=401), "X-Cashu").startswith("creqA")
    buy(path, bearer("sk-" + "0" * 32), status=401)
    buy(path, {"X-Cashu": "cashuBnonsense"}, status=400)
    spent = cashu_token(1)
    created = ask("POST", "/v1/balance/create", body={"initial_balance_token": spent})
    poor = bearer(created.json()["api_key"])
    ask("POST", "/v1/balance/refund", headers=poor)
    buy(path, poor, status=402)
    buy(path, {"X-Cashu": spent}, status=400)
    # A moderation costs no more.
    if path != "/v1/moderations":
        buy(path, {"X-Cashu": cashu_token(1)}, status=402)


def test_every_other_operation_succeeds_as_documented():
    seen = set()

    def does(method, path, **options):
        answer = ask(method, path, **options)
        seen.add(f"{method} {path}")
        return answer

    for path in ["/healthz", "/docs", "/redoc", "/v1/info", "/v1/models"]:
        does("GET", path)
    # The document itself, which is left out of what there is to try.
    tag = header(ask("GET", "/openapi.json"), "ETag")
    ask("GET", "/openapi.json", headers={"If-None-Match": tag}, status=304)
    ask("GET", "/docs", headers={"If-None-Match": "*"}, status=304)
    for file in ["swagger-ui.js", "swagger-ui.css", "redoc.js"]:
        does("GET", "/docs/{file}", ids={"file": file})
    ask("GET", "/docs/{file}", ids={"file": "other.js"}, status=404)
    does("GET", "/v1/models/{id}", ids={"id": "demo"})

    created = {"initial_balance_token": cashu_token(100)}
    secret = does("POST", "/v1/balance/create", body=created).json()["api_key"]
    assert does("GET", "/v1/balance/create", query=created).json()["api_key"] == secret
    owner = bearer(secret)
    does("POST", "/v1/balance/topup", headers=owner, body={"cashu_token": cashu_token(7)})
    ask("POST", "/v1/balance/topup", headers=owner, query={"cashu_token": cashu_token(7)})
    buy("/v1/chat/completions", owner)
    terms = {"balance_limit": 5000, "balance_limit_reset": "daily", "validity_date": 4_000_000_000}
    does("POST", "/v1/balance/child-key", headers=owner, body={"count": 2} | terms)
    info = does("GET", "/v1/balance/info", headers=owner).json()
    child = info["child_keys"][0]["id"]
    does("POST", "/v1/balance/child-key/reset", headers=owner, body={"id": child})
    does("DELETE", "/v1/balance/child-key/{id}", headers=owner, ids={"id": child})
    invoice = does("POST", "/v1/lightning/invoice", body={"amount_sats": 10, "purpose": "create"})
    ids = {"id": invoice.json()["invoice_id"]}
    does("GET", "/v1/lightning/invoice/{id}/status", ids=ids)
    top_up = {"amount_sats": 10, "purpose": "topup"}
    ask("POST", "/v1/lightning/invoice", headers=owner, body=top_up)
    hook = {"url": "http://127.0.0.1:9/", "events": ["balance.topup", "key.expired"]}
    made = does("POST", "/v1/webhooks", headers=owner, body=hook, status=201).json()
    ask("POST", "/v1/webhooks", headers=owner, body=hook | {"url": "ftp://a"}, status=400)
    [listed] = does("GET", "/v1/webhooks", headers=owner).json()["data"]
    assert (listed["id"], "secret" in listed) == (made["id"], False)
    ids = {"id": made["id"]}
    does("DELETE", "/v1/webhooks/{id}", headers=owner, ids=ids, status=204)
    ask("DELETE", "/v1/webhooks/{id}", headers=owner, ids=ids, status=404)
    does("POST", "/v1/balance/refund", headers=owner, body={"amount_sats": 5})
    paid = {"amount_sats": 5, "lightning_address": LIGHTNING_ADDRESS}
    answer = ask("POST", "/v1/balance/refund", headers=owner, body=paid).json()
    assert (answer["recipient"], answer["sats"]) == (LIGHTNING_ADDRESS, "5")
    ask("POST", "/v1/balance/refund", headers=owner)
    history = does("GET", "/v1/balance/history", headers=owner, query={"limit": 2}).json()
    ask("GET", "/v1/balance/history", headers=owner, query={"cursor": history["next_cursor"]})

    others = [name for name in named(operations()) if name.split()[1] not in SOLD]
    assert sorted(seen) == sorted(others)


def test_a_child_key_is_refused_what_is_its_parents_as_documented():
    owner = bearer(key())
    made = ask("POST", "/v1/balance/child-key", headers=owner, body={"count": 1}).json()
    child = bearer(made["api_keys"][0])
    assert ask("GET", "/v1/balance/info", headers=child).json()["is_child"]
    ask("POST", "/v1/balance/child-key", headers=child, body={"count": 1}, status=403)
    ask("POST", "/v1/balance/child-key/reset", headers=child, body={"id": "x"}, status=403)
    ask("DELETE", "/v1/balance/child-key/{id}", headers=child, ids={"id": "x"}, status=403)
    ask("POST", "/v1/balance/refund", headers=child, status=403)
    ask("DELETE", "/v1/balance/child-key/{id}", headers=owner, ids={"id": "x"}, status=404)


def test_what_is_too_long_or_no_json_is_refused_as_documented(payer):
    post = operation("POST", "/v1/balance/topup")
    for text, status in [(" " * 300_000, 413), ("{", 400), ("[]", 400)]:
        case = post.Case(headers=payer)
        answer = call(case, data=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        assert json.loads(answer.text)["request_id"] == header(answer, "X-Request-ID")
