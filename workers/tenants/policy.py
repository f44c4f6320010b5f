"""What an operator has opened or closed for a tenant: the keys of ``Tenant.policy`` and their defaults.

Dangerous things are off unless an operator opens them; lists bound what is open. Must not import services or
anything above them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings

from workers.models import Tenant
from workers.tenants.bounds import NO_BOUNDS, Bounds, check_folder
from workers.vocabulary import references
from workers.vocabulary.errors import InvalidInput

#: Key -> (default, what it opens).
KEYS: Final[dict[str, tuple[bool, str]]] = {
    "commands": (True, "run shell commands as processes of a node"),
    "runtask_cm": (False, "run any command line over objects of a Swift (runtask's cm); needs commands, too"),
    "privileged": (False, "start containers with every privilege of the host's root"),
    "host_network": (False, "give containers the host's network"),
    "host_ports": (False, "publish containers on fixed ports of the host"),
    "volumes": (False, "mount folders of the host into containers"),
    "parameters": (False, "pass options to the Docker Engine as they are"),
    "pull_workers": (False, "keep its workqueue jobs for pull workers: no node of this service takes them"),
    "exec_privileged": (False, "execute inside containers with every privilege of the host's root"),
}
#: Longest list, and longest entry of one.
_ENTRIES: Final = 1000
_LONGEST: Final = 4096


_SELECTOR: Final = re.compile(r"[!-<>-~]{1,128}(=[!-~]{0,127})?")


def _check_selector(text: str) -> None:
    if not _SELECTOR.fullmatch(text):
        raise ValueError(f'{text[:200]!r} is no label: write "team=blue", "team", or "all"')


#: The lists that bound something; without the key nothing is bounded, registries by GANTRY_REGISTRIES.
_BOUNDS: Final = ("images", "volume_paths", "registries")
#: Key -> (check of one entry, what the list is). Without ``exec_targets``: gantry.tenant=<tenant>.
LISTS: Final[dict[str, tuple[Callable[[str], object], str]]] = {
    "images": (references.pattern, 'images that containers may use, e.g. "registry.example/team/*"'),
    "volume_paths": (check_folder, "folders of the host below which volumes may lie, if volumes is on"),
    "registries": (references.opening, f"registries that may be asked for images, {references.OPENINGS}"),
    "exec_targets": (_check_selector, 'labels of the containers that exec may enter, or "all"'),
}


@dataclass(frozen=True)
class Rules:
    """All that a policy says."""

    allowed: frozenset[str] = frozenset()
    bounds: Bounds = NO_BOUNDS


_cache: dict[int, tuple[float, Rules]] = {}
_CACHE_MAX: Final = 10_000
_CACHE_S: Final = 5.0


def allowed(policy: Mapping[str, Any]) -> frozenset[str]:
    """The keys that are on in a stored policy; unknown keys and other values than true count for nothing."""
    return frozenset(key for key, (default, _) in KEYS.items() if policy.get(key, default) is True)


def bounds(policy: Mapping[str, Any]) -> Bounds:
    """The lists of a stored policy; one that is no list allows nothing."""
    lists = {
        key: tuple(map(str, found)) if isinstance(found := policy[key], list) else ()
        for key in _BOUNDS
        if policy.get(key) is not None
    }
    return Bounds(**{"registries": tuple(settings.GANTRY_REGISTRIES), **lists})


def of(tenant_id: int, *, fresh: bool = False) -> Rules:
    """What is on for a tenant; at most 5 s old, or as it is now. A request has it already: ``Identity``."""
    now = time.monotonic()
    known = _cache.get(tenant_id)
    if known is not None and known[0] > now and not fresh:
        return known[1]
    stored = Tenant.objects.values_list("policy", flat=True).filter(pk=tenant_id).first()
    answer = Rules() if stored is None else Rules(allowed(stored or {}), bounds(stored or {}))
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


def refusal(rules: Rules, kind: str, spec: Mapping[str, Any]) -> str:
    """Why a stored specification may not be executed any more; "" when it may.

    The same was asked at submission, in the family's words; the policy may have changed since.
    """
    asked: list[str] = []
    if kind == "process":
        asked.append("commands")
    elif kind == "container":
        asked += [
            key
            for key, uses in (
                ("privileged", spec.get("privileged")),
                ("host_network", spec.get("network") == "HOST"),
                ("host_ports", any(item.get("host_port") for item in spec.get("ports") or ())),
                ("volumes", spec.get("volumes")),
                ("parameters", spec.get("parameters")),
            )
            if uses
        ]
    asked += [key for key in spec.get("policies") or () if isinstance(key, str)]
    for key in asked:
        if key not in rules.allowed:
            return f"the tenant's policy does not allow {key} any more"
    if kind != "container":
        return ""
    found = rules.bounds.image(str(spec.get("image", "")))
    return found or next(
        filter(
            None, (rules.bounds.volume(str(item.get("host_path", ""))) for item in spec.get("volumes") or ())
        ),
        "",
    )


def checked(policy: object) -> dict[str, Any]:
    """A policy as an operator gives it, or InvalidInput naming the key that is wrong."""
    if not isinstance(policy, dict):
        raise InvalidInput('policy must be an object such as {"commands": false}', field="policy")
    for key, value in policy.items():
        if key in LISTS:
            _check_list(key, value)
        elif key not in KEYS:
            known = ", ".join((*KEYS, *LISTS))
            raise InvalidInput(f"policy has no key {key!r}: the keys are {known}", field="policy")
        elif not isinstance(value, bool):
            raise InvalidInput(f"policy.{key} must be true or false", field="policy")
    return dict(policy)


def _check_list(key: str, value: object) -> None:
    check, what = LISTS[key]
    if not isinstance(value, list) or len(value) > _ENTRIES:
        raise InvalidInput(f"policy.{key} must be a list of at most {_ENTRIES} texts: {what}", field="policy")
    for item in value:
        if not isinstance(item, str) or len(item) > _LONGEST:
            raise InvalidInput(f"policy.{key} must be a list of texts: {what}", field="policy")
        try:
            check(item)
        except ValueError as error:
            raise InvalidInput(f"policy.{key}: {error}", field="policy") from None
