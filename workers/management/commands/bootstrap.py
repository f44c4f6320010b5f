"""manage.py bootstrap: the first tenant, its user and a token with every scope. Safe at every start."""

from __future__ import annotations

import os
from typing import Any

from workers.management.speaking import SpeakingCommand
from workers.tenants import tenancy


class Command(SpeakingCommand):
    help = (
        "Make the first tenant (default), its user (admin) and a token with every scope, as far as they are "
        "missing. GANTRY_BOOTSTRAP_TOKEN and GANTRY_ADMIN_PASSWORD are taken if given; what is made up is "
        "shown this once."
    )

    def work(self, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        made = tenancy.bootstrap(
            given_token=os.environ.get("GANTRY_BOOTSTRAP_TOKEN", ""),
            given_password=os.environ.get("GANTRY_ADMIN_PASSWORD", ""),
        )
        lines = [f"Tenant {made.tenant} and user {made.user} are there."]
        if made.token:
            lines.append(f"Token of {made.user} with every scope (shown only now): {made.token}")
        if made.password:
            lines.append(f"Password of {made.user} for /admin/ (shown only now): {made.password}")
        if made.warning:
            lines.append(f"Warning: {made.warning}")
        data = {
            "tenant": made.tenant,
            "user": made.user,
            "token": made.token or None,
            "password": made.password or None,
            "warning": made.warning or None,
        }
        return "\n".join(lines), data
