"""Base of the operators' commands: one answer, for a person or, with --json, for a program."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from workers.vocabulary.errors import EngineError

#: What to do when the database does not answer, for whoever called manage.py in a folder of ``make up``.
_WHERE = 'DATABASE_URL says where the database is. Of a service started by make up: make manage ARGS="..."'


class SpeakingCommand(BaseCommand):
    """``work`` does it and returns (what to say to a person, the same for a program)."""

    requires_system_checks = ()  # their warnings would stand between the answers

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="answer with one JSON object")
        self.parameters(parser)

    def parameters(self, parser: CommandParser) -> None:
        """The command's own arguments."""

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Do it."""
        raise CommandError(f"{type(self).__module__} does nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            text, data = self.work(options)
        except EngineError as error:
            raise CommandError(error.message) from None
        except OperationalError as error:
            raise CommandError(f"{str(error).strip()}\n{_WHERE}") from None
        self.stdout.write(json.dumps(data) if options["json"] else text)
