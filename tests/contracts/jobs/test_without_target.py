"""A start without Target (ours): the running containers of the job's service, asked of the nodes."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from django.db import connections

from jobs.models import Executor
from jobs.saved import containers
from tests.contracts.jobs.conftest import (
    Api,
    Stage,
    error,
    ok,
)
from workers.models import Node, NodeRequest
from workers.node import questions


def _told(answer: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    return answer


class Answering(threading.Thread):
    """The part of the nodes' agents that answers questions, as ``workers.node.agent`` does."""

    def __init__(self, told: dict[str, Any], *, deaf: str = "") -> None:
        super().__init__(daemon=True)
        self.told, self.deaf = told, deaf
        self.asked: list[dict[str, Any]] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            for request in NodeRequest.objects.filter(answered_at=None).exclude(node__name=self.deaf):
                self.asked.append(request.payload)
                answer = self.told.get(request.node.name)
                lookups = {"containers": partial(_told, answer)} if answer is not None else {}
                questions.answer([request.pk], lambda run_id: (True, ""), lookups)
        connections.close_all()

    def __enter__(self) -> Answering:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()


@pytest.mark.django_db(transaction=True)
def test_without_target_the_services_containers_are_found(
    stage: Stage, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers.find, "__defaults__", ((), 60.0))  # all of them answer
    job = api.job()
    told = {
        "n1": {"containers": [{"id": "c1" * 32, "name": "web.1"}, {"id": "c2" * 32, "name": "web.2"}]},
        "n2": {"containers": [{"id": "c3" * 32, "name": "web.3"}, {"id": "c1" * 32, "name": "web.1"}]},
    }
    stage.node("commands-only", runtimes=["process"])
    with Answering(told) as nodes:
        started = ok(api.post(f"/api/jobs/{job['JobId']}/start", {}, Idempotency_Key="k"))
    assert nodes.asked == [{"service": "2048_2048", "app": "", "selectors": ["gantry.tenant=10002"]}] * 2
    found = api.inspect(job, started["Executors"][-1])
    assert found["Target"] == [
        {"ContainerId": "c1" * 32, "NodeId": "n1"},
        {"ContainerId": "c2" * 32, "NodeId": "n1"},
        {"ContainerId": "c3" * 32, "NodeId": "swarm-2"},
    ]
    assert {item["Status"] for item in found["Result"]} == {"STARTING"}
    with Answering({"n1": {"containers": []}, "n2": {"containers": []}}):
        again = ok(api.post(f"/api/jobs/{job['JobId']}/start", {}, Idempotency_Key="k"))
        assert again == started, "the first answer, whatever the nodes say by now"
        answer = api.post(f"/api/jobs/{job['JobId']}/start", {"Target": None})
        kind, message = error(answer, 409)
    assert (kind, "no running container of service 2048_2048" in message) == ("conflict", True)
    assert Executor.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_nodes_that_cannot_be_asked_are_told_and_asked_again_by_a_retry(
    stage: Stage, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for a busy machine: only the deaf one is waited for so long.
    monkeypatch.setattr(containers.find, "__defaults__", ((), 5.0))
    job = api.job(ServiceName="")
    stage.node("n4", detached=True)
    stage.node("n5")
    told = {"n1": {"containers": [{"id": "c1" * 32, "name": "web.1"}]}, "n2": {"error": "no engine"}}
    with Answering(told, deaf="n5") as nodes:
        executor = ok(api.post(f"/api/jobs/{job['JobId']}/start"))["Executors"][-1]
    assert nodes.asked[0] == {"service": "", "app": "2048", "selectors": ["gantry.tenant=10002"]}
    first, second, third, fourth = api.inspect(job, executor)["Result"]
    assert (first["ContainerId"], first["Status"]) == ("c1" * 32, "STARTING")
    for item, node, why in (
        (second, "swarm-2", "node n2 cannot tell: no engine"),
        (third, "n4", "node n4 has been silent"),
        (fourth, "n5", "node n5 did not answer within 5 s"),
    ):
        assert (item["ContainerId"], item["NodeId"], item["Status"]) == ("", node, "CREATE_FAILED")
        assert item["E"].startswith(why)
        assert item["E"].endswith("whether label app=2048 runs there is not known")
    stage.nodes["n1"] = Node.objects.get(name="n1")
    stage.run(job, executor)
    Node.objects.filter(name="n4").update(mode=Node.Mode.REMOVED)
    told = {"n2": {"containers": [{"id": "c2" * 32, "name": "x"}]}, "n5": {"containers": []}}
    with Answering(told):
        again = ok(api.post(f"/api/jobs/{job['JobId']}/retry/{executor}"))["Executors"][-1]
    assert api.inspect(job, again)["Target"] == [{"ContainerId": "c2" * 32, "NodeId": "swarm-2"}]


def test_no_node_that_can_execute(api: Api) -> None:
    job = api.job()
    Stage.node("n9", runtimes=["process"])
    kind, message = error(api.post(f"/api/jobs/{job['JobId']}/start", {}), 409)
    assert (kind, "no node can execute" in message) == ("conflict", True)
    assert not Executor.objects.exists()
