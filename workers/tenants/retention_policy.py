"""How long a tenant's ended runs and their output are kept: its own times over the installation's.

The keys of ``Tenant.retention``: {"runs_d": 30, "logs_d": 7, "families": {"tasks": {"logs_d": 3}}}, in days;
0 = for ever. Must not import anything but models and errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings

from workers.models import Run, Tenant
from workers.vocabulary.errors import InvalidInput

KEYS: Final = ("runs_d", "logs_d")
MOST: Final = 36_500


@dataclass(frozen=True, slots=True)
class Kept:
    """Days after a run's end; 0 = for ever. Output is never kept longer than its run."""

    runs_d: int
    logs_d: int

    @property
    def output_d(self) -> int:
        """Days after which the output goes."""
        return min((days for days in (self.runs_d, self.logs_d) if days > 0), default=0)


def effective(stored: Mapping[str, Any], family: str) -> Kept:
    """What holds for a tenant's runs of a family: the family's own, else the tenant's, else the settings."""
    families = stored.get("families")
    own = families.get(family) if isinstance(families, dict) else None
    levels = [level for level in (own, stored) if isinstance(level, dict)]
    chosen = {"runs_d": settings.GANTRY_KEEP_RUNS_D, "logs_d": settings.GANTRY_KEEP_LOGS_D}
    for key in KEYS:
        for level in levels:
            days = level.get(key)
            if isinstance(days, int) and not isinstance(days, bool) and days >= 0:
                chosen[key] = days
                break
    return Kept(**chosen)


def stored() -> dict[int, Mapping[str, Any]]:
    """The tenants that have times of their own."""
    return dict(Tenant.objects.exclude(retention={}).values_list("pk", "retention"))


def deleted_lines(run_ids: Iterable[int]) -> dict[int, str]:
    """What stands for output that retention has deleted (contract page 00); run id -> a line."""
    rows = Run.objects.filter(pk__in=list(run_ids), log_pruned_at__isnull=False)
    return {
        run_id: f"[... deleted on {at:%Y-%m-%d %H:%M:%S} UTC: {_kept(effective(own, family).output_d)} ...]\n"
        for run_id, at, family, own in rows.values_list("pk", "log_pruned_at", "family", "tenant__retention")
    }


def _kept(days: int) -> str:
    """A sentence. The time may have been changed since."""
    if not days:
        return "output is kept for ever now, but was not then"
    return f"output is kept for {days} {'day' if days == 1 else 'days'} after a run's end"


def checked(retention: object) -> dict[str, Any]:
    """Times as an operator gives them, or InvalidInput naming the key that is wrong."""
    if not isinstance(retention, dict):
        raise InvalidInput(
            'retention must be an object such as {"runs_d": 30, "families": {"tasks": {"logs_d": 3}}}',
            field="retention",
        )
    _check_days(retention, "retention", (*KEYS, "families"))
    families = retention.get("families", {})
    if not isinstance(families, dict):
        raise InvalidInput("retention.families must be an object, a family's name each", field="retention")
    for family, days in families.items():
        if family not in settings.GANTRY_FAMILIES:
            raise InvalidInput(
                f"retention.families has no family {family!r}: "
                f"there are {', '.join(settings.GANTRY_FAMILIES)}",
                field="retention",
            )
        if not isinstance(days, dict):
            raise InvalidInput(f"retention.families.{family} must be an object", field="retention")
        _check_days(days, f"retention.families.{family}", KEYS)
    return dict(retention)


def _check_days(given: Mapping[str, Any], where: str, keys: tuple[str, ...]) -> None:
    for key, value in given.items():
        if key not in keys:
            raise InvalidInput(
                f"{where} has no key {key!r}: the keys are {', '.join(keys)}", field="retention"
            )
        if key in KEYS and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST):
            raise InvalidInput(
                f"{where}.{key} must be a whole number of days from 0 (for ever) to {MOST}", field="retention"
            )
