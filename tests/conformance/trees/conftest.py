"""Fixtures of the tests of trees: a subject, a tree of it, a folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.trees.subjects import SUBJECTS, Subject
from workers.storage.trees.base import Tree

_numbers = itertools.count(1)
#: Swift takes a tenth of a second for each request: CI asks it about names that are each odd in its own way,
#: `make test-long` about all.
_FEW = ("composed", "percent-escape", "question", "four-bytes", "newline", "byte-ff", "space-at-the-end")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A server starts once: all tests of a subject are one group. Some are left to `make test-long`."""
    for item in items:
        given = getattr(item, "callspec", None)
        subject = None if given is None else given.params.get("subject")
        if isinstance(subject, type) and issubclass(subject, Subject):
            item.add_marker(pytest.mark.xdist_group(f"tree {subject.id}"))
        found = re.fullmatch(r"test_a_name\[(?P<subject>swift|swift-s3)-(?P<name>.+)\]", item.name)
        if found and found["name"] not in _FEW:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session", params=[pytest.param(found, id=found.id) for found in SUBJECTS])
def subject(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A server that runs; one for all tests of this worker."""
    found: Subject = request.param(tmp_path_factory.mktemp(request.param.id))
    try:
        found.start()
        yield found
        found.forget_tree()
    finally:
        found.stop()


@pytest.fixture
def tree(subject: Subject) -> Tree:
    """One tree of the subject, shared by all tests."""
    return subject.tree()


@pytest.fixture
def folder(subject: Subject) -> bytes:
    """A folder of the site that is this test's own."""
    path = b"/t%04d" % next(_numbers)
    subject.folder(path)
    return path
