"""What the contract's tests have in common: the document, money and accounts."""

import json
import os
import urllib.parse
import urllib.request

import schemathesis
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

GATEWAY = os.environ["GATEWAY_URL"]
FAUCET = os.environ["FAUCET_URL"]
LIGHTNING_ADDRESS = os.environ["LIGHTNING_ADDRESS"]

SCHEMA = schemathesis.openapi.from_url(f"{GATEWAY}/openapi.json")

# Not among them: that whatever fits a schema succeeds and whatever does not is refused. A schema
# cannot say that a date lies in the future, and what the gateway does not know it passes over.
CHECKS = [
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]

# A model of the sandbox for each route that sells one.
MODELS = {
    "/v1/audio/speech": "demo-speech",
    "/v1/audio/transcriptions": "demo-transcribe",
    "/v1/audio/translations": "demo-transcribe",
    "/v1/chat/completions": "demo",
    "/v1/completions": "demo",
    "/v1/embeddings": "demo-embeddings",
    "/v1/images/edits": "demo-image",
    "/v1/images/generations": "demo-image",
    "/v1/messages": "demo",
    "/v1/moderations": "demo-moderation",
    "/v1/rerank": "demo-rerank",
    "/v1/responses": "demo",
}


def fetch(url, *, bearer=None, body=None):
    headers = {"Content-Type": "application/json"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as answer:
        return answer.read().decode()


def cashu_token(sats):
    return fetch(f"{FAUCET}?amount={sats}&format=B").strip()


def key(sats=500):
    """The key of a new account."""
    query = urllib.parse.urlencode({"initial_balance_token": cashu_token(sats)})
    return json.loads(fetch(f"{GATEWAY}/v1/balance/create?{query}"))["api_key"]


def call(case, **options):
    """Asks, and holds the answer against the document. Nothing may be a 500, documented or not."""
    answer = case.call(base_url=GATEWAY, timeout=60, **options)
    case.validate_response(answer, checks=CHECKS)
    assert answer.status_code != 500, answer.text
    return answer


def header(answer, name):
    """The one value of a header that must be there."""
    [value] = answer.headers[name.lower()]
    return value


def operations():
    return [result.ok() for result in SCHEMA.get_all_operations()]


def operation(method, path):
    return SCHEMA[path][method]


def named(operations_):
    return [f"{operation_.method.upper()} {operation_.path}" for operation_ in operations_]
