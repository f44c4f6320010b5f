"""Nobody is left out."""

from __future__ import annotations

from importlib.util import find_spec

from tests.conformance.trees.subjects import SUBJECTS
from workers.storage.trees import opening
from workers.vocabulary.transfers.reach import Protocol


def test_every_tree_has_a_subject() -> None:
    spoken = {protocol for protocol, name in opening._MODULES.items() if find_spec(name) is not None}
    assert {found.protocol for found in SUBJECTS} == spoken <= set(Protocol)
