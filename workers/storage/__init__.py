"""Storages: where runs' inputs come from and outputs go to. Only here their SDKs."""

from __future__ import annotations

from collections.abc import Callable

from workers.storage.base import Storage
from workers.vocabulary.staging import Store


def open_storage(url: str, store: Store | None, tick: Callable[[], None]) -> Storage:
    raise NotImplementedError


def path_in(url: str) -> str:
    raise NotImplementedError
