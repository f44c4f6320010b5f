"""What another tenant has is answered as what does not exist; ids and callbacks are each tenant's own."""

from __future__ import annotations

from queues.models import Entry
from tests.contracts.queues.conftest import BODY, Api, admit, data, error
from workers.models import Callback


def test_another_tenants_entry_is_unknown(api: Api, stranger: Api) -> None:
    data(api.post("/v1/vm/", BODY))
    was = list(Entry.objects.values())
    mine, none = [
        [
            stranger.get(f"/v1/vm/{name}"),
            stranger.get(f"/v1/vm/{name}/explain"),
            stranger.delete(f"/v1/vm/{name}"),
            stranger.post(f"/v1/vm/{name}", {"priority": 1}),
            stranger.post(f"/v1/vm/{name}", {"before": "x"}),
            stranger.post(f"/v1/vm/{name}/confirm"),
        ]
        for name in ("d", "q")
    ]
    for answer, other in zip(mine, none, strict=True):
        code, message = error(answer, 404)
        assert (code, message.replace("request d", "request q")) == error(other, 404)
    assert list(Entry.objects.values()) == was


def test_ids_and_callbacks_are_each_tenants_own(api: Api, stranger: Api) -> None:
    first, second = data(api.post("/v1/vm/", BODY)), data(stranger.post("/v1/vm/", BODY))
    assert first["ID"] != second["ID"]
    admit_of = Entry.objects.get(pk=first["ID"])
    assert admit_of.queue_id != Entry.objects.get(pk=second["ID"]).queue_id
    data(stranger.delete("/v1/vm/d"))
    assert api.entry("d")["Status"] == "queued"


def test_callbacks_show_their_entry(api: Api, stranger: Api) -> None:
    for name in ("a", "b"):
        api.create(name)
        admit(name)
    found = api.get("/api/v1/callbacks").json()
    assert [(row["family"], row["owner"]["url"]) for row in found] == [
        ("queues", f"http://testserver/v1/vm/{name}/") for name in ("b", "a")
    ]
    entry = api.entry("a")
    assert found[1]["owner"]["id"] == str(entry["ID"])
    one = api.get(f"/api/v1/callbacks/{found[1]['id']}").json()
    assert one["owner"] == found[1]["owner"]
    assert '"request_id": "a"' in one["body"]
    assert api.get(found[1]["owner"]["url"]).json()["data"] == entry
    assert stranger.get("/api/v1/callbacks").json() == []
    Callback.objects.filter(owner_id=str(entry["ID"])).update(owner_id="999999999")
    assert api.get("/api/v1/callbacks").json()[1]["owner"] == {"id": "999999999", "url": None}
