"""manage.py after_restore: once after the database was restored from a backup, before all else starts."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from workers.management.speaking import SpeakingCommand
from workers.upkeep import restore


class Command(SpeakingCommand):
    help = (
        "Make a database that was restored from a backup safe to work on: ids given since are left out, what "
        "waits is kept back until no node can still run it, leases begin anew. Run it once, with the API and "
        "the callbacks stopped. From then on nodes kill what this database does not know."
    )

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--hold",
            type=float,
            metavar="SECONDS",
            help="how long waiting runs are kept back (GANTRY_NODE_LOST_AFTER_S); 0 only when you have seen "
            "that no node runs anything",
        )

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if options["hold"] is not None and options["hold"] < 0:
            raise CommandError("--hold: write seconds from 0 on")
        done = restore.after_restore(options["hold"])
        text = (
            f"The backup is {done.lost_s:.0f} s old: what was accepted since is gone. Ids go on {done.gap} "
            "further, so that none is given twice.\n"
            f"{done.running} running: their nodes say how they are; what is not there any more is recorded "
            "as lost, and not tried again by itself.\n"
            f"{done.held} waiting: kept back for {done.hold_s:.0f} s, then they run, also those that had "
            "ended since the backup.\n"
            f"{done.nodes} nodes: start their workers now. They kill what this database does not know.\n"
            "Tokens and memberships are those of the backup: revoke again what was revoked since."
        )
        return text, done.__dict__.copy()
