"""A node's images: what a registry shows one tenant, no other gets from the engine's own store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import images as rig
from tests.support.engines import Engine as Rig
from tests.support.images import PASSWORD, USER, Registry
from tests.support.pulls import as_node, ensure, refused
from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine import targets
from workers.runtimes.engine.client import Address, Engine
from workers.vocabulary.references import Credentials
from workers.vocabulary.states import Reason

HOST = "127.0.0.1:5004"
MINE = Credentials(holder=f"1/{HOST}/{USER}", username=USER, password=PASSWORD)
GUESSED = Credentials(holder=f"2/{HOST}/{USER}", username=USER, password="guessed")
VALID = Credentials(holder=f"3/{HOST}/{USER}", username=USER, password=PASSWORD)


@pytest.fixture(autouse=True)
def node(settings: Any, tmp_path: Path) -> None:
    as_node(settings, tmp_path, 1.0)


def test_a_private_image_by_digest(engine: Rig, link: Engine) -> None:
    """By digest the engine answers from its own store: only the registry's answer counts."""
    with Registry(engine, port=5004, closed=True) as closed:
        rig.derive(engine, "gantry-test/private:1", "LABEL private=digest")
        name = closed.push("gantry-test/private:1", "secret/app:1")
        rig.forget(engine, name, "gantry-test/private:1")
        mine = ensure(link, name, credentials=MINE)
        assert mine.digest.startswith(f"{HOST}/secret/app@sha256:")
        for credentials in (None, GUESSED):
            for pull in ("missing", "always"):
                failure = refused(link, mine.digest, pull=pull, credentials=credentials)
                assert (failure.reason, failure.ours) == (Reason.IMAGE, False)
                assert "another's credentials" in failure.message
        assert refused(link, name, pull="missing").reason is Reason.IMAGE, "the tag is not open since"
        assert ensure(link, mine.digest, credentials=VALID).id == mine.id
        assert ensure(link, mine.digest, credentials=MINE).id == mine.id

        # Another registry that names the same image: the engine takes it from its store, unseen.
        with Registry(engine, port=5005) as evil:
            copy = evil.push(name, "copy/app:1")
            rig.forget(engine, copy)
            failure = refused(link, copy)
            assert "another registry's private image" in failure.message
        rig.forget(engine, copy, name)


@pytest.mark.parametrize("name", ["[::1]:5000/x", "x@sha256:1", "a b", "A/b"])
def test_a_malformed_image_ends_at_once(link: Engine, name: str) -> None:
    failure = refused(link, name)
    assert (failure.reason, failure.ours) == (Reason.IMAGE, False)


@pytest.mark.parametrize("asked", [".", "..", "", "a/b", "../images", "a?b", "%2e%2e"])
def test_what_is_no_containers_id_is_not_asked_of_the_engine(tmp_path: Path, asked: str) -> None:
    """Such a path would be another call. The engine of this test does not exist: asking it would say so."""
    with pytest.raises(PrepareFailed) as caught:
        targets.find(Engine(Address.parse(f"unix://{tmp_path}/none.sock")), asked, ["all"])
    assert (caught.value.reason, caught.value.ours) == (Reason.CREATE, False)
