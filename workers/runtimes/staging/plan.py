"""Which files a spec names, and where they lie. Pure but for opening a storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from workers.storage import open_storage, path_of
from workers.storage.base import Storage
from workers.vocabulary.staging import Input, Output, Store


@dataclass(frozen=True)
class Plan:
    """What is fetched and stored for a run, its secrets in their places."""

    inputs: Sequence[Input]
    outputs: Sequence[Output]
    stores: Sequence[Store]

    @classmethod
    def of(cls, spec: Mapping[str, Any], secrets: Sequence[str]) -> Plan:
        """From a stored spec and its secrets: those of uris come first, then the key of each store."""
        keys = secrets[len(spec.get("uri_secrets") or ()) :]
        stores = [Store.from_json(item) for item in spec.get("stores") or ()]
        return cls(
            [Input.from_json(item) for item in spec.get("inputs") or ()],
            [Output.from_json(item) for item in spec.get("outputs") or ()],
            [replace(store, key=key) for store, key in zip(stores, keys, strict=True)],
        )


class Storages:
    """The storages of a plan: each is opened when it is first needed, and all are closed at the end."""

    def __init__(self, plan: Plan, tick: Callable[[], None], stack: ExitStack) -> None:
        self._plan = plan
        self._tick = tick
        self._stack = stack
        self._open: dict[int | None, Storage] = {}

    def of(self, item: Input | Output) -> tuple[Storage, str]:
        """The storage in which a file lies, and its path there. Raises StorageFailed."""
        if item.store not in self._open:
            store = None if item.store is None else self._plan.stores[item.store]
            self._open[item.store] = self._stack.enter_context(closing(open_storage(store, self._tick)))
        return self._open[item.store], path_of(item.url)
