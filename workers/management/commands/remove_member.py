"""manage.py remove_member TENANT USER: the user may no longer act for the tenant."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from workers.management.speaking import SpeakingCommand
from workers.tenants import tenancy


class Command(SpeakingCommand):
    help = "Take a user out of a tenant. API processes notice it within GANTRY_TOKEN_CACHE_S seconds."

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument("tenant")
        parser.add_argument("user")

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        tenancy.remove_member(options["tenant"], options["user"])
        data = {"tenant": options["tenant"], "user": options["user"]}
        return f"User {options['user']} is no longer in tenant {options['tenant']}.", data
