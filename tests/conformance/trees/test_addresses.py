"""Sites that a client has made are reached at addresses that the guard lets through, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.conformance.trees.handling import fails
from tests.conformance.trees.subjects import Subject, where
from workers.storage.trees.base import Trouble
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Protocol

_HTTP = where(only=lambda found: found.protocol in (Protocol.WEBDAV, Protocol.S3))


@_HTTP
def test_an_address_that_the_guard_refuses(subject: Subject, folder: bytes, settings: Any) -> None:
    settings.GANTRY_SITE_ALLOW_NETWORKS = []
    for host in ("127.0.0.1", "localhost"):
        with fails(Trouble.REFUSED, words="GANTRY_SITE_ALLOW_NETWORKS"):
            tree = open_tree(replace(subject.reach(), host=host))
            try:
                tree.stat(folder)
            finally:
                tree.close()


@_HTTP
def test_an_operators_site_is_not_asked_about(subject: Subject, folder: bytes, settings: Any) -> None:
    settings.GANTRY_SITE_ALLOW_NETWORKS = []
    tree = open_tree(replace(subject.reach(), guarded=False))
    try:
        assert tree.stat(folder).is_folder
    finally:
        tree.close()


@where(only=lambda found: bool(found.protocol is Protocol.WEBDAV))
def test_a_certificate_of_nobody_that_is_trusted(subject: Subject) -> None:
    tree = open_tree(replace(subject.reach(), cas=()))
    try:
        with fails(Trouble.AWAY, words="certificate"):
            tree.stat(b"/")
    finally:
        tree.close()
