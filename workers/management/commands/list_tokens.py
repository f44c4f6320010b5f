"""manage.py list_tokens USER: a user's tokens, without their values."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from workers.api.tenancy import shapes
from workers.management.speaking import SpeakingCommand
from workers.models import Token
from workers.tenants import tenancy


class Command(SpeakingCommand):
    help = "List the newest 1,000 tokens of a user; their values are stored nowhere."

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument("user")

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        user = tenancy.find_user(options["user"])
        rows = [
            shapes.token(row)
            for row in Token.objects.filter(user=user).select_related("user").order_by("-pk")[:1000]
        ]
        lines = [
            f"{row['id']:>6}  {row['prefix']}...  {', '.join(row['scopes']):<29}  "
            + (
                f"revoked {row['revoked_at']}"
                if row["revoked_at"]
                else f"until {row['expires_at'] or 'revoked'}"
            )
            + f"  {row['name']}"
            for row in rows
        ]
        return "\n".join(lines) or f"User {options['user']} has no token.", {"tokens": rows}
