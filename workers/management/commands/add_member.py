"""manage.py add_member TENANT USER: the user may act for the tenant."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from workers.management.speaking import SpeakingCommand
from workers.tenants import tenancy


class Command(SpeakingCommand):
    help = "Put a user into a tenant."

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("user")
        parser.add_argument(
            "--default", action="store_true", help="act for this tenant when a request names none"
        )

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        row = tenancy.add_member(options["tenant"], options["user"], default=options["default"])
        default = ", its default tenant" if row.is_default else ""
        data = {"tenant": options["tenant"], "user": options["user"], "default": row.is_default}
        return f"User {options['user']} is in tenant {options['tenant']}{default}.", data
