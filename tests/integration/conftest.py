"""What tests share: a way to call the HTTP API, a node whose worker is the test, a tenant's rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from tests.contracts.tasks.conftest import Stage
from tests.integration.engine_rows import World
from tests.support.cluster import PATIENT, Cluster
from tests.support.fixtures import Account
from workers.models import Node


class Api:
    """``api(account, "GET", path, body, Header_Name="...")`` -> (status, body, response)."""

    def __init__(self) -> None:
        self.client = Client()

    def __call__(self, who: Account, method: str, path: str, body: object = None, **headers: str) -> Any:
        sent = {**who.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        data = b"" if body is None else json.dumps(body).encode()
        response = self.client.generic(method, path, data, "application/json" if data else "", headers=sent)
        if response.streaming:
            return response.status_code, response.getvalue(), response
        return response.status_code, response.json(), response


def keys(serializer: type[Any]) -> set[str]:
    """The documented fields of a shape."""
    return set(serializer().fields)


@pytest.fixture
def api() -> Api:
    """The API as a client meets it."""
    return Api()


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    """The one of every test, in no hurry to give up nodes because the machine stood still for seconds."""
    cluster.env |= PATIENT
    return cluster


@pytest.fixture
def stage(db: None) -> Stage:
    """A node whose worker is this test."""
    return Stage()


@pytest.fixture
def world(db: None) -> World:
    """A tenant and its shape, moved by the transitions alone."""
    return World()


@pytest.fixture
def node(world: World) -> Node:
    """A node of that world with a worker that has just been heard."""
    return world.node()
