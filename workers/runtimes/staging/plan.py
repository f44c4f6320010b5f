"""Which files a spec names, and where they lie. Pure but for opening a storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Final

from workers.addresses import parse
from workers.runtimes.staging.uris import inputs_of, with_credentials
from workers.storage.base import Storage
from workers.storage.opening import open_storage, path_of
from workers.vocabulary.staging import Input, Output, Store

#: How long all files of http(s) servers may take together, in seconds.
_HTTP_S: Final = 3600.0


@dataclass(frozen=True)
class Plan:
    """What is fetched and stored for a run, its secrets in their places."""

    inputs: Sequence[Input] = ()
    outputs: Sequence[Output] = ()
    stores: Sequence[Store] = ()

    @classmethod
    def of(cls, spec: Mapping[str, Any], secrets: Sequence[str]) -> Plan:
        """From a stored spec and its secrets: those of uris come first, then the key of each store.

        Raises StorageFailed for uris that name no file.
        """
        places = spec.get("uri_secrets") or ()
        uris = with_credentials(spec.get("uris") or (), places, secrets[: len(places)])
        stores = [Store.from_json(item) for item in spec.get("stores") or ()]
        return cls(
            [*inputs_of(uris), *(Input.from_json(item) for item in spec.get("inputs") or ())],
            [Output.from_json(item) for item in spec.get("outputs") or ()],
            [replace(store, key=key) for store, key in zip(stores, secrets[len(places) :], strict=True)],
        )


def shown(item: Input | Output) -> str:
    """Where a file lies, for messages: without what an address carries."""
    return item.url if item.store is not None else f"uri {parse(item.url, credentials=True).shown}"


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
            if item.store is None:
                storage = open_storage(None, self._tick, total_s=_HTTP_S)
            else:
                storage = open_storage(self._plan.stores[item.store], self._tick)
            self._open[item.store] = self._stack.enter_context(closing(storage))
        return self._open[item.store], path_of(item.url)
