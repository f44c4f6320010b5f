"""What an operator has opened or closed for a tenant: the keys of ``Tenant.policy`` and their defaults.

Dangerous things are off unless an operator opens them. Must not import services or anything above them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

from workers.errors import InvalidInput
from workers.models import Tenant

#: Key -> (default, what it opens).
KEYS: Final[dict[str, tuple[bool, str]]] = {
    "commands": (True, "run shell commands as processes of a node"),
    "privileged": (False, "start containers with every privilege of the host's root"),
    "host_network": (False, "give containers the host's network"),
    "host_ports": (False, "publish containers on fixed ports of the host"),
    "volumes": (False, "mount folders of the host into containers"),
    "parameters": (False, "pass options to the Docker Engine as they are"),
    "exec_privileged": (False, "execute inside containers with every privilege of the host's root"),
}
#: Keys whose value is a list of words. ``exec_targets``: the containers that exec may enter, as labels
#: (name=value, or name); "all" is every container. Without it those labelled gantry.tenant=<tenant>.
LISTS: Final[dict[str, re.Pattern[str]]] = {"exec_targets": re.compile(r"[!-<>-~]{1,128}(=[!-~]{0,127})?")}

_cache: dict[int, tuple[float, frozenset[str]]] = {}
_CACHE_MAX: Final = 10_000
_CACHE_S: Final = 5.0


def allowed(policy: Mapping[str, Any]) -> frozenset[str]:
    """The keys that are on in a stored policy; unknown keys and other values than true count for nothing."""
    return frozenset(key for key, (default, _) in KEYS.items() if policy.get(key, default) is True)


def of(tenant_id: int) -> frozenset[str]:
    """What is on for a tenant; at most 5 s old. A request has it already: ``Identity.allowed``."""
    now = time.monotonic()
    known = _cache.get(tenant_id)
    if known is not None and known[0] > now:
        return known[1]
    stored = Tenant.objects.values_list("policy", flat=True).filter(pk=tenant_id).first()
    answer = allowed(stored or {}) if stored is not None else frozenset()
    if len(_cache) >= _CACHE_MAX:
        _cache.clear()
    _cache[tenant_id] = (now + _CACHE_S, answer)
    return answer


def exec_targets(tenant_id: int) -> list[str]:
    """The selectors of the containers that a tenant's execs may enter, as they are now."""
    name, stored = Tenant.objects.values_list("name", "policy").get(pk=tenant_id)
    given = stored.get("exec_targets")
    return list(given) if isinstance(given, list) and given else [f"gantry.tenant={name}"]


def forget() -> None:
    """Drop what this process remembers: after a change."""
    _cache.clear()


def checked(policy: object) -> dict[str, Any]:
    """A policy as an operator gives it, or InvalidInput naming the key that is wrong."""
    if not isinstance(policy, dict):
        raise InvalidInput('policy must be an object such as {"commands": false}', field="policy")
    for key, value in policy.items():
        if key in LISTS:
            _check_words(key, value)
            continue
        if key not in KEYS:
            known = ", ".join((*KEYS, *LISTS))
            raise InvalidInput(f"policy has no key {key!r}: the keys are {known}", field="policy")
        if not isinstance(value, bool):
            raise InvalidInput(f"policy.{key} must be true or false", field="policy")
    return dict(policy)


def _check_words(key: str, value: object) -> None:
    words = value if isinstance(value, list) else [None]
    if not all(isinstance(word, str) and LISTS[key].fullmatch(word) for word in words):
        raise InvalidInput(
            f'policy.{key} must be a list of labels such as ["team=blue"], or ["all"]', field="policy"
        )
