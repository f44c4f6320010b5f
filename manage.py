#!/usr/bin/env python
"""Django's command line for Gantry: migrate, bootstrap, node, create_token and so on."""

import gc
import os
import sys

from config.linux import refusal


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    if sys.argv[1:2] in (["node"], ["callbacks"]):
        # Decides how the process uses the database; must be known before the settings are read.
        os.environ.setdefault("GANTRY_ROLE", "worker")
        # An eighth of the start would look for garbage in what has just been loaded. The command ends this.
        gc.disable()
    if sys.argv[1:2] in (["node"], ["callbacks"], ["network"]) and (
        why := refusal(f"manage.py {sys.argv[1]}")
    ):
        sys.exit(f"gantry: {why}")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
