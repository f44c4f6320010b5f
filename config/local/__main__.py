"""`python -m config.local up|worker|manage|demo`: Gantry on one machine. The Makefile calls this.

Must not import Django or any app.
"""

from __future__ import annotations

import argparse
import os
import sys

from config.linux import refusal

COMMANDS = {
    "up": "the service with its own Postgres and Redis, until Ctrl-C",
    "worker": "one more node",
    "manage": "a management command with the settings of the running service, such as create_token",
    "demo": "a minute's tour in a temporary folder",
}


def main() -> int:
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        print(
            f"Gantry needs Python 3.11 to 3.14, this is {sys.version.split()[0]} ({sys.executable}): "
            "run it through make, which finds the right one",
            file=sys.stderr,
        )
        return 2
    parser = argparse.ArgumentParser(prog="python -m config.local", description="Gantry on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, description=text, add_help=name != "manage")
    known, rest = parser.parse_known_args()
    command = known.command
    if rest and command != "manage":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    servers_elsewhere = os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL")
    if (why := refusal(f"`make {command}`")) and not (command == "manage" and servers_elsewhere):
        print(f"gantry: {why}", file=sys.stderr)
        return 2
    # After the version check: these need the packages of the right Python.
    from config.local.data import REPOSITORY, DataFolder
    from config.local.demo import demo
    from config.local.errors import LocalError
    from config.local.supervisor import Supervisor
    from config.local.terminal import complain

    try:
        if command == "demo":
            return demo()
        if command == "manage":
            data = DataFolder()
            environment = data.environment(data.running())
            os.chdir(REPOSITORY)
            os.execve(sys.executable, [sys.executable, "manage.py", *rest], environment)
        supervisor = Supervisor(DataFolder())
        return supervisor.up() if command == "up" else supervisor.worker()
    except LocalError as error:
        complain(f"gantry: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
