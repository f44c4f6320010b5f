"""manage.py revoke_token ID: the token works no longer."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from workers.api.tenancy import shapes
from workers.management.speaking import SpeakingCommand
from workers.tenants import tenancy


class Command(SpeakingCommand):
    help = "End a token."

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=int, help="its number; manage.py list_tokens USER shows it")

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        row = tenancy.revoke_token(options["id"])
        text = (
            f"Token {row.pk} ({row.name}) of {row.user.get_username()} is revoked. "
            f"API processes notice it within {settings.TOKEN_CACHE_S:g} s."
        )
        return text, shapes.token(row)
