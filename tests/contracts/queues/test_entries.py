"""Entries: the seed's calls field by field, what is refused, what is shown. Page 50 and seed 003."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from queues.models import Entry, Queue, Tombstone, WaitingClass
from tests.contracts.queues.conftest import BODY, ELEVEN, Api, admit, data, error

#: The seed's answer to its POST; host_aggregate in it is a slip of the document (page 50).
SHOWN = '{"instances":[{"Disk":1,"Memory":1,"VCPU":1}],"project":"project id"}'
ADMITTED = '{"host_aggregate":"host1","instances":[{"Disk":1,"Memory":1,"VCPU":1}],"project":"project id"}'
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_the_seeds_post(api: Api) -> None:
    entry = data(api.post("/v1/vm/", BODY))
    assert list(entry) == [*ELEVEN, "CallbackState", "CallbackError"]
    assert isinstance(entry["ID"], int)
    assert TIME.fullmatch(entry["CreatedAt"])
    assert entry["UpdatedAt"] == entry["CreatedAt"]
    assert entry["DeletedAt"] is None
    assert (entry["RequestID"], entry["Type"], entry["OwnerID"]) == ("d", "vm", "y")
    assert (entry["Data"], entry["Callback"], entry["Status"]) == (SHOWN, "abc", "queued")
    assert len(str(entry["Priority"])) == 16
    age = datetime.now(UTC) - datetime.fromtimestamp(entry["Priority"] / 1e6, UTC)
    assert abs(age) < timedelta(minutes=1), "a clock reading in Unix microseconds"
    assert entry["CallbackState"] == "undeliverable"
    assert "http" in entry["CallbackError"]


@pytest.mark.parametrize("path", ["/v1/vm", "/v1/vm/"])
def test_a_queue_with_and_without_a_slash(api: Api, path: str) -> None:
    made = data(api.post(path, BODY))
    assert data(api.get(path)) == [made]


@pytest.mark.parametrize("path", ["/v1/vm/d", "/v1/vm/d/"])
def test_an_entry_with_and_without_a_slash(api: Api, path: str) -> None:
    data(api.post("/v1/vm/", BODY))
    assert data(api.get(path))["RequestID"] == "d"
    assert data(api.post(path, {"priority": 83334})) == {}
    assert data(api.get(path))["Priority"] == 83334
    assert data(api.get(path.rstrip("/") + "/explain"))["state"] == "queued"
    assert data(api.get(path.rstrip("/") + "/explain/"))["state"] == "queued"
    admit("d")
    assert data(api.post(path.rstrip("/") + "/confirm")) == {}
    assert data(api.post(path.rstrip("/") + "/confirm/")) == {}
    assert data(api.delete(path)) == {}


def test_the_seeds_get_of_a_running_one(api: Api) -> None:
    data(api.post("/v1/vm/", BODY))
    admit("d")
    entry = api.entry("d")
    assert (entry["Status"], entry["Data"]) == ("running", ADMITTED)
    assert entry["DeletedAt"] is None
    assert data(api.get("/v1/vm/")) == [entry]


def test_an_unused_type_is_an_empty_list(api: Api) -> None:
    assert data(api.get("/v1/anything-at.all~_/")) == []
    assert not Queue.objects.exists()


def test_a_type_without_pools_waits_and_says_so(api: Api) -> None:
    api.create("d")
    why = data(api.get("/v1/vm/d/explain"))
    assert (why["state"], why["position"]) == ("queued", 1)
    assert why["reasons"][0]["code"] == "no_pools"
    assert why["reasons"][0]["remedy"]
    error(api.get("/v1/vm/nothing/explain"), 404)
    admit("d")
    assert data(api.get("/v1/vm/d/explain"))["state"] == "running"
    api.delete("/v1/vm/d")
    assert data(api.get("/v1/vm/d/explain"))["state"] == "finished"


def test_another_type_is_another_queue(api: Api) -> None:
    api.create("a")
    api.create("a", kind="gpu", data={"V100": 2}, callback="http://r.example/a")
    assert data(api.get("/v1/gpu/a/"))["Data"] == '{"V100":2}'
    assert api.ids() == ["a"]


@pytest.mark.parametrize("name", ["request_id", "owner_id", "callback", "data"])
@pytest.mark.parametrize("value", ["absent", None, "", "  ", 5, True, [], ["x"]])
def test_what_is_required(api: Api, name: str, value: Any) -> None:
    sent = {**BODY, name: value}
    if value == "absent":
        del sent[name]
    assert name in error(api.post("/v1/vm/", sent), 400)[1]
    assert not Entry.objects.exists()
    assert not Queue.objects.exists()


@pytest.mark.parametrize("request_id", [".", "..", "a/b", "a b", "ä", "x" * 129, "a?", "%41"])
def test_request_ids_that_cannot_be(api: Api, request_id: str) -> None:
    assert "request_id" in error(api.post("/v1/vm/", {**BODY, "request_id": request_id}), 400)[1]


@pytest.mark.parametrize("request_id", ["a", "x" * 128, "A.b_c~d-9", "...", "confirm", "explain"])
def test_request_ids_that_can_be(api: Api, request_id: str) -> None:
    api.create(request_id)
    assert api.entry(request_id)["RequestID"] == request_id


def test_types_that_cannot_be(api: Api) -> None:
    for kind in ("a b", "x" * 129, "%C3%A4"):
        path = f"/v1/{kind.replace(' ', '%20')}/"
        assert "type" in error(api.post(path, BODY), 400)[1]
        error(api.get(path), 404)
    error(api.get("/v1/vm/a%20b"), 404)
    assert "request_id" in error(api.post("/v1/vm/a%20b", {"priority": 1}), 400)[1]
    error(api.delete("/v1/vm/a%20b"), 404)


@pytest.mark.parametrize(("name", "most"), [("owner_id", 255), ("callback", 8000)])
def test_the_longest(api: Api, name: str, most: int) -> None:
    assert name in error(api.post("/v1/vm/", {**BODY, name: "x" * (most + 1)}), 400)[1]
    data(api.post("/v1/vm/", {**BODY, name: "x" * most}))


def test_unknown_fields_and_what_cannot_be_set(api: Api) -> None:
    entry = api.create("d", ID=5, Priority=1, Status="running", whatever={"a": 1}, priority=3)
    assert entry["ID"] != 5
    assert entry["Priority"] > 10**15
    assert entry["Status"] == "queued"


def test_integers_of_any_size_and_other_characters_come_back(api: Api) -> None:
    big = 10**200 + 7
    text = '{"z":1.5,"b":[-0.25,null,true],"a":BIG,"ü":"說","instances":[{"VCPU":1}],"Disk":{}}'
    sent = json.dumps({**BODY, "data": 0}).replace('"data": 0', f'"data": {text}').replace("BIG", str(big))
    entry = data(api.send("POST", "/v1/vm/", sent, "application/json"))
    wanted = '{"Disk":{},"a":BIG,"b":[-0.25,null,true],"instances":[{"VCPU":1}],"z":1.5,"ü":"說"}'
    assert entry["Data"] == wanted.replace("BIG", str(big))
    assert api.entry("d")["Data"] == entry["Data"]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_are_none(api: Api, number: str) -> None:
    sent = json.dumps({**BODY, "data": 0}).replace('"data": 0', f'"data": {{"VCPU": 1, "x": {number}}}')
    error(api.send("POST", "/v1/vm/", sent, "application/json"), 400)
    sent = sent.replace('"VCPU": 1', '"instances": [{"VCPU": 1}]')
    error(api.send("POST", "/v1/vm/", sent, "application/json"), 400)
    assert not Entry.objects.exists()


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({}, "data.instances"),
        ({"instances": []}, "data.instances"),
        ({"instances": [5]}, "data.instances[0]"),
        ({"instances": [{"VCPU": -1}]}, "data.instances[0].VCPU"),
        ({"instances": [{"VCPU": 0}]}, "data.instances[0]"),
        ({"instances": [{"VCPU": 1}], "project": 5}, "data.project"),
        ({"instances": [{"VCPU": 1}], "host_aggregate": ""}, "data.host_aggregate"),
    ],
)
def test_data_of_a_vm(api: Api, sent: dict[str, Any], field: str) -> None:
    assert field in error(api.post("/v1/vm/", {**BODY, "data": sent}), 400)[1]


def test_data_of_the_other_types(api: Api) -> None:
    api.create("k", kind="kube", data={"namespace": "n", "pods": [{"cpu": "500m", "memory": "1Gi"}]})
    assert "data.pods" in error(api.post("/v1/kube/", {**BODY, "data": {"pods": [{"cpu": "x"}]}}), 400)[1]
    assert "data" in error(api.post("/v1/gpu/", {**BODY, "data": {}}), 400)[1]


def test_a_preset_aggregate_stays_in_data(api: Api) -> None:
    entry = api.create("d", data={**BODY["data"], "host_aggregate": "host1"})
    assert entry["Data"] == ADMITTED
    assert WaitingClass.objects.get().aggregate == "host1"


def test_equal_requests_are_of_one_class(api: Api) -> None:
    for name in ("a", "b"):
        api.create(name)
    api.create("c", owner_id="z")
    assert sorted(WaitingClass.objects.values_list("owner_id", "waiting")) == [("y", 2), ("z", 1)]


@pytest.mark.parametrize("status", ["queued", "running", "finished", "cancelled"])
def test_a_request_id_is_taken_as_long_as_it_is_kept(api: Api, status: str) -> None:
    api.create("d")
    if status in ("running", "finished"):
        admit("d")
    if status in ("finished", "cancelled"):
        data(api.delete("/v1/vm/d/"))
    highest = Queue.objects.get().highest
    code, message = error(api.post("/v1/vm/", {**BODY, "callback": "http://other.example/"}), 409)
    assert code == "request_id_duplicated"
    assert status in message
    assert Entry.objects.count() == 1
    assert Queue.objects.get().highest == highest, "what is refused leaves nothing"
    assert api.entry("d")["Status"] == status


def test_a_tombstone_keeps_a_request_id(api: Api) -> None:
    api.create("other")
    queue = Queue.objects.get()
    grave = Tombstone.objects.create(queue=queue, request_id="d", until=datetime.now(UTC) + timedelta(days=1))
    assert "d" in error(api.post("/v1/vm/", BODY), 409)[1]
    Tombstone.objects.filter(pk=grave.pk).update(until=datetime.now(UTC) - timedelta(days=1))
    data(api.post("/v1/vm/", BODY))


def test_a_callback_is_unique_among_what_has_not_ended(api: Api) -> None:
    data(api.post("/v1/vm/", BODY))
    code, message = error(api.post("/v1/vm/", {**BODY, "request_id": "e"}), 409)
    assert code == "callback_duplicated"
    assert "callback" in message
    assert "request d" in message
    admit("d")
    error(api.post("/v1/vm/", {**BODY, "request_id": "e"}), 409)
    assert WaitingClass.objects.get().waiting == 0
    data(api.post("/v1/gpu/", {**BODY, "data": {"a": 1}}))
    data(api.delete("/v1/vm/d"))
    data(api.post("/v1/vm/", {**BODY, "request_id": "e"}))


def test_an_idempotency_key_makes_one(api: Api) -> None:
    first = data(api.post("/v1/vm/", BODY, Idempotency_Key="k"))
    assert data(api.post("/v1/vm", BODY, Idempotency_Key="k")) == first
    assert Entry.objects.count() == 1
    assert error(api.post("/v1/vm/", {**BODY, "owner_id": "z"}, Idempotency_Key="k"), 409)


def test_the_statements_of_each_call(api: Api, remembered: None) -> None:
    """However long the queue is: there is no statement for each entry."""
    for number in range(5):
        api.create(f"w{number}")
    admit("w0")

    def asked(call: Any) -> int:
        with CaptureQueriesContext(
            connection,
        ) as found:
            data(call())
        return len([sql for sql in found if "SAVEPOINT" not in sql["sql"]])

    assert asked(lambda: api.post("/v1/vm/", BODY)) == 4
    assert asked(lambda: api.get("/v1/vm/d/")) == 1
    assert asked(lambda: api.get("/v1/vm/")) == 2
    assert asked(lambda: api.get("/v1/vm/?limit=2")) <= 3
    assert asked(lambda: api.post("/v1/vm/d", {"priority": 5})) == 6
    assert asked(lambda: api.post("/v1/vm/d", {"before": "w3"})) == 7
    assert asked(lambda: api.delete("/v1/vm/d")) == 4
    assert asked(lambda: api.post("/v1/vm/w0/confirm")) == 4
    assert asked(lambda: api.delete("/v1/vm/w0")) == 8
