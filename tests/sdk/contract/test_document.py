"""The document as an independent validator reads it."""

import json

from conftest import GATEWAY, fetch
from openapi_spec_validator import OpenAPIV30SpecValidator


def test_an_independent_validator_accepts_the_document():
    document = json.loads(fetch(f"{GATEWAY}/openapi.json"))
    assert document["openapi"].startswith("3.0.")
    assert [str(error) for error in OpenAPIV30SpecValidator(document).iter_errors()] == []
