"""Where a type's capacity may come from, by name: what a policy may say of each provider. Pure.

The table decides what ``PUT .../policy`` accepts; a provider joins by a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from workers.vocabulary.errors import InvalidInput

Options = Mapping[str, Any]

#: Without a row.
MODE: Final = "strict"
PROVIDER: Final = "pools"


@dataclass(frozen=True)
class Provider:
    """``checked``: options as sent -> as stored (InvalidInput); ``shown``: stored -> without secrets."""

    checked: Callable[[Options], dict[str, Any]]
    shown: Callable[[Options], dict[str, Any]]


def _none(options: Options) -> dict[str, Any]:
    for name in options:
        raise InvalidInput(
            f"{name[:60]}: the provider pools has no such option; pools are declared by POST .../pools",
            field=name[:60],
        )
    return {}


def _nothing(options: Options) -> dict[str, Any]:
    return {}


AVAILABLE: Final[Mapping[str, Provider]] = {"pools": Provider(_none, _nothing)}


def available(name: object) -> Provider:
    """The provider of that name. InvalidInput says which there are."""
    found = AVAILABLE.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidInput(
            f"provider: {str(name)[:40]!r} is not available here; available: {', '.join(AVAILABLE)}",
            field="provider",
        )
    return found


def shown(provider: str, options: Options) -> dict[str, Any]:
    """What of a stored policy's options may be shown; of a provider that is not served here nothing."""
    found = AVAILABLE.get(provider)
    return found.shown(options) if found is not None else {}
