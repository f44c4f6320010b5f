"""/api/v1/queues/{type}/simulate over HTTP; what it says is tested in tests/integration/queues."""

from __future__ import annotations

from typing import Any

import pytest

from queues.models import Entry
from queues.operators import serializers
from tests.integration.conftest import Api, keys
from tests.integration.queues.operators.conftest import BASE, Declared
from tests.support.fixtures import Account, make_account

SIMULATE = f"{BASE}/vm/simulate"


def asked(api: Api, who: Account, body: object, status: int = 200) -> dict[str, Any]:
    got, answer, _ = api(who, "POST", SIMULATE, body)
    assert got == status, answer
    found: dict[str, Any] = answer
    return found


def test_a_reader_may_ask_and_nothing_changes(api: Api, reader: Account, declared: Declared) -> None:
    declared("vm", "rack-1", h1=8)
    found = asked(
        api,
        reader,
        {
            "submit": [
                {"owner_id": "y", "data": {"instances": [{"VCPU": 6}]}},
                {"owner_id": "y", "data": {"instances": [{"VCPU": 6}]}},
            ]
        },
    )
    assert found["runs_now"] == ["simulated-0"]
    assert [(each["request_id"], each["position"]) for each in found["entries"]] == [("simulated-1", 1)]
    assert set(found) == keys(serializers.SimulatedSerializer)
    more = asked(
        api,
        reader,
        {
            "submit": [{"owner_id": "y", "data": {"instances": [{"VCPU": 6}]}}],
            "hosts": [{"aggregate": "rack-2", "name": "h", "VCPU": 64}],
            "quotas": {"y": {"VCPU": 4}},
        },
    )
    assert (more["runs_now"], more["entries"][0]["position"]) == ([], 1)
    assert not Entry.objects.exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"submit": {}}, "submit"),
        ({"submit": [1]}, "submit[0]"),
        ({"submit": [{"owner_id": "y", "data": {}}]}, "submit[0].data.instances"),
        ({"move": [{"priority": 1}]}, "move[0].request_id"),
        ({"move": [{"request_id": "a"}]}, "move[0].priority"),
        ({"withdraw": [7]}, "withdraw[0]"),
        ({"quotas": []}, "quotas"),
        ({"quotas": {"y": {"VCPU": "much"}}}, "quotas.y.VCPU"),
        ({"hosts": [{"VCPU": 1}]}, "hosts[0].aggregate"),
        ({"withdraw": ["a"] * 101}, "withdraw"),
    ],
)
def test_what_is_wrong_is_named(api: Api, reader: Account, body: object, field: str) -> None:
    found = asked(api, reader, body, 400)["error"]
    assert found["field"] == field
    assert field.removesuffix(".priority") in found["message"]


def test_other_tenants_are_not_seen(api: Api, reader: Account, declared: Declared) -> None:
    """Catches another tenant's request in a simulation, and one that can be withdrawn in it."""
    declared("vm", "rack-1", h1=8)
    stranger = make_account("another", scopes=("read", "submit"))
    entry = {
        "request_id": "theirs",
        "owner_id": "z",
        "callback": "urn:z",
        "data": {"instances": [{"VCPU": 2}]},
    }
    assert api(stranger, "POST", "/v1/vm/", entry)[0] == 200
    found = asked(api, reader, {})
    assert (found["runs_now"], found["entries"]) == ([], [])
    assert "theirs" in asked(api, reader, {"withdraw": ["theirs"]}, 404)["error"]["message"]
