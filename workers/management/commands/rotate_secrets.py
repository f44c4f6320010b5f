"""manage.py rotate_secrets: encrypt every stored secret with the first of GANTRY_SECRET_KEYS."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from workers import secrets
from workers.models import Secret


class Command(BaseCommand):
    help = (
        "Encrypt every stored secret with the first of GANTRY_SECRET_KEYS. Put the new key in front of the "
        "old ones, restart all processes, run this, then remove the old keys. Safe to interrupt and repeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--after", type=int, default=0, help="go on after this secret's id")
        parser.add_argument("--batch", type=int, default=500, help="secrets read at once (500)")

    def handle(self, *args: Any, **options: Any) -> None:
        total = Secret.objects.filter(pk__gt=options["after"]).count()
        done = secrets.Rotation()
        try:
            for done in secrets.rotate(after=options["after"], batch=max(1, options["batch"])):
                seen = done.rotated + done.current + len(done.unreadable)
                self.stdout.write(f"{seen} of {total}, up to secret {done.last_id}")
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{done.rotated} encrypted with the first key, {done.current} were already, "
            f"{len(done.unreadable)} unreadable."
        )
        if done.unreadable:
            some = ", ".join(map(str, done.unreadable[:20])) + (", ..." if len(done.unreadable) > 20 else "")
            raise CommandError(
                f"{len(done.unreadable)} secrets cannot be read with any key of GANTRY_SECRET_KEYS and were "
                f"left as they are: {some}. Add the key with which they were stored and run this again."
            )
        if options["after"] == 0:
            self.stdout.write("The older keys can be removed from GANTRY_SECRET_KEYS now.")
