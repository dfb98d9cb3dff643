"""Whatever a client sends that the document allows or forbids, the answer is documented.

What the document can say is tried on every field: present and absent, at its bounds and beyond
them, of every other type. The examples that are drawn besides are the same in every run.
"""

import pytest
from conftest import MODELS, SCHEMA, call, key
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "contract",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("contract")


@SCHEMA.parametrize()
def test_without_a_credential_of_ours_every_answer_is_documented(case):
    call(case)


@pytest.fixture(scope="module")
def keys():
    """One account for each operation, so that none empties or limits another's."""
    return {}


@SCHEMA.parametrize()
def test_with_a_key_every_answer_is_documented(case, keys):
    if case.operation.label not in keys:
        keys[case.operation.label] = key(2_000)
    headers = {"Authorization": f"Bearer {keys[case.operation.label]}", "X-Cashu": None}
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = MODELS[case.operation.path]
    call(case, headers=headers)
