"""What a policy may say of where a type's capacity comes from. Pure; options: queues.providers.options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from queues.providers import options as provider_options
from workers.vocabulary.errors import InvalidInput

Options = Mapping[str, Any]

#: Without a row.
MODE: Final = "strict"
PROVIDER: Final = "pools"
AVAILABLE: Final = ("pools", "placement", "kubernetes")


def available(name: object) -> str:
    """The name of a provider. InvalidInput says which there are."""
    if not isinstance(name, str) or name not in AVAILABLE:
        raise InvalidInput(
            f"provider: {str(name)[:40]!r} is not available here; available: {', '.join(AVAILABLE)}",
            field="provider",
        )
    return name


def check(provider: str, options: Options) -> None:
    """InvalidInput names the option that is wrong; ``secret`` is one of them."""
    if provider == PROVIDER:
        for name in options:
            raise InvalidInput(
                f"{name[:60]}: the provider pools has no such option; pools are declared by POST .../pools",
                field=name[:60],
            )
        return
    try:
        provider_options.check(provider, options)
    except InvalidInput as error:
        # A policy has them beside mode and provider.
        field = (error.field or "").removeprefix("options.")
        raise InvalidInput(error.message.removeprefix("options."), field=field or None) from None
