"""manage.py create_user NAME: somebody who presents tokens."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from workers.api.tenancy import shapes
from workers.management.speaking import SpeakingCommand
from workers.models import Membership
from workers.tenants import tenancy


class Command(SpeakingCommand):
    help = "Make a user. Without a password it uses tokens only."

    def parameters(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--email", default="")
        parser.add_argument(
            "--tenant",
            action="append",
            default=[],
            help="a tenant to belong to; the first is the default one",
        )
        parser.add_argument(
            "--superuser", action="store_true", help="may use /admin/ and act as operator there"
        )
        parser.add_argument(
            "--password-env",
            metavar="VARIABLE",
            help="take the password for /admin/ from this environment variable",
        )

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        password = ""
        if options["password_env"]:
            password = os.environ.get(options["password_env"], "")
            if not password:
                raise CommandError(f"the environment variable {options['password_env']} is empty or not set")
        with transaction.atomic():
            user = tenancy.create_user(
                options["name"], password=password, email=options["email"], superuser=options["superuser"]
            )
            for tenant in options["tenant"]:
                tenancy.add_member(tenant, options["name"])
        memberships = list(Membership.objects.filter(user=user).select_related("tenant"))
        text = f"User {user.get_username()} is made"
        text += f", in {', '.join(options['tenant'])}." if options["tenant"] else ", in no tenant yet."
        return text, shapes.user(user, memberships)
