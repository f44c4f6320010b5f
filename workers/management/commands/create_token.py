"""manage.py create_token USER: a credential, shown once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from workers.api.tenancy import shapes
from workers.management.speaking import SpeakingCommand
from workers.tenants import tenancy
from workers.tenants.identity import SCOPES


class Command(SpeakingCommand):
    help = "Make a token for a user. It is shown this once and stored nowhere."

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument("user")
        parser.add_argument("--name", default="made on the command line", help="what the token is for")
        parser.add_argument(
            "--scope",
            action="append",
            choices=SCOPES,
            help="may be repeated; read and submit without it",
        )
        parser.add_argument("--days", type=float, help="how long it works; without it, until it is revoked")

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        days = options["days"]
        row, value = tenancy.create_token(
            tenancy.find_user(options["user"]),
            name=options["name"],
            scopes=options["scope"] or ("read", "submit"),
            expires_in_s=None if days is None else round(days * 86_400),
        )
        until = f" until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else ""
        scopes = ", ".join(row.scopes)
        text = f"Token {row.pk} of {options['user']} for {scopes}{until}, shown only now: {value}"
        return text, {**shapes.token(row), "token": value}
