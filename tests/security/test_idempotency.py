"""An Idempotency-Key is its user's alone, and no answer that showed a secret is kept or given again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import Api
from tests.support.fixtures import Account, make_account
from workers.models import CallbackSecret, IdempotencyKey, Run, Token

TASK = {"taskName": "once", "commands": "true"}
TOKEN = {"name": "x", "scopes": ["read"]}
#: Creating calls of different views.
CREATING: list[tuple[str, dict[str, Any]]] = [
    ("/v1/tasks", TASK),
    ("/api/v1/tokens", TOKEN),
    ("/api/v1/keys", {}),
    ("/api/v1/tenants", {"name": "lab"}),
]


@pytest.mark.django_db
def test_another_users_key_is_another_key(api: Api) -> None:
    """Catches the scope of the tenant alone: whoever guesses a key is handed another user's token."""
    scopes = ("read", "submit", "operate")
    ann, ben = make_account("default", scopes=scopes), make_account("default", scopes=scopes)
    for path, body in CREATING:
        first = api(ann, "POST", path, body, Idempotency_Key="k")
        second = api(ben, "POST", path, body, Idempotency_Key="k")
        assert first[0] in (200, 201), (path, first[1])
        assert first[1] != second[1], path
    assert Run.objects.count() == 2
    assert IdempotencyKey.objects.count() == 2 * len(CREATING) - 1, (
        "the second tenant is refused: its name is taken"
    )


def test_a_path_cannot_be_spelt_like_another_users(api: Api, account: Account) -> None:
    api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")
    (row,) = IdempotencyKey.objects.all()
    assert row.path.startswith("/v1/tasks (user ")


@pytest.mark.parametrize(
    ("path", "body", "value", "model"),
    [
        ("/api/v1/tokens", TOKEN, "token", Token),
        ("/api/v1/callbacks/secrets", None, "secret", CallbackSecret),
    ],
)
def test_a_value_is_shown_once_also_to_a_repetition(
    api: Api, account: Account, path: str, body: object, value: str, model: Any
) -> None:
    before = model.objects.count()
    status, made, _ = api(account, "POST", path, body, Idempotency_Key="t")
    assert (status, bool(made[value])) == (201, True)

    status, told, _ = api(account, "POST", path, body, Idempotency_Key="t")

    assert (status, told["error"]["code"]) == (409, "shown_once")
    assert f"id {made['id']};" in told["error"]["message"]
    assert model.objects.count() == before + 1
    (row,) = IdempotencyKey.objects.all()
    assert row.answer == {"id": made["id"]}
    assert made[value] not in json.dumps(told)
    assert api(account, "POST", path, {"name": "y"}, Idempotency_Key="t")[1]["error"]["code"] in (
        "required",
        "idempotency_key_reused",
    )
