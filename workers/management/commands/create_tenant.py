"""manage.py create_tenant NAME: an owner of work."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from workers.api.tenancy import shapes
from workers.management.speaking import SpeakingCommand
from workers.tenants import policy, tenancy


class Command(SpeakingCommand):
    help = "Make a tenant."

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what clients send in X-Tenant-Id")
        parser.add_argument("--title", default="", help="its name for people")
        for word, value in (("allow", True), ("forbid", False)):
            parser.add_argument(
                f"--{word}",
                action="append",
                choices=[key for key, (default, _) in policy.KEYS.items() if default is not value],
                default=[],
                help=f"{word} one thing that the policy decides; may be repeated",
            )

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        opened = {**dict.fromkeys(options["allow"], True), **dict.fromkeys(options["forbid"], False)}
        row = tenancy.create_tenant(options["name"], title=options["title"], given_policy=opened)
        return (
            f"Tenant {row.name} is made. Put users into it with: manage.py add_member {row.name} USER",
            shapes.tenant(row),
        )
