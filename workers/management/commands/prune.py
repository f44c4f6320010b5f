"""manage.py prune: delete now what is older than it is kept. The reconciler does it little by little."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from workers.tenants import retention_policy
from workers.upkeep import retention


class Command(BaseCommand):
    help = "Delete runs, logs, idempotency keys and other records that are older than they are kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch", type=int, default=500, help="rows of each kind in one transaction (500)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(
            f"Ended runs are kept {_days(settings.GANTRY_KEEP_RUNS_D)} (GANTRY_KEEP_RUNS_D), "
            f"their logs {_days(settings.GANTRY_KEEP_LOGS_D)} (GANTRY_KEEP_LOGS_D)."
        )
        if others := len(retention_policy.stored()):
            self.stdout.write(f"{others} tenants have other times.")
        total: Counter[str] = Counter()
        for counts in retention.prune_all(max(1, options["batch"])):
            total.update(counts)
            if any(counts.values()) and options["verbosity"] > 1:
                self.stdout.write("  " + _told(counts))
        self.stdout.write(f"Deleted: {_told(total)}.")


def _days(days: int) -> str:
    return f"{days} days" if days > 0 else "for ever"


def _told(counts: dict[str, int]) -> str:
    names = {"logs": "log chunks", "idempotency_keys": "idempotency keys", "node_requests": "node requests"}
    names |= {"audit": "entries of the audit log", "usage": "rows of the usage report"}
    return (
        ", ".join(f"{count} {names.get(what, what)}" for what, count in counts.items() if count) or "nothing"
    )
