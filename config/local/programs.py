"""What the supervisor runs: API, worker, callbacks, Flower, management commands; and one small HTTP GET.

Must not import Django or any app.
"""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from config import start
from config.local.children import Child, ending
from config.local.data import REPOSITORY, DataFolder
from config.local.errors import LocalError


def api(data: DataFolder, environment: dict[str, str], port: int) -> Child:
    return Child(
        name="api",
        command=start.api_command("127.0.0.1", port),
        environment={**environment, "GANTRY_ROLE": "web"},
        log=data.log / "api.log",
        grace=12,
        own_group=True,
    )


def worker(data: DataFolder, environment: dict[str, str], log: str) -> Child:
    return Child(
        name="worker",
        command=start.manage_command("node"),
        environment={**environment, "GANTRY_ROLE": "worker"},
        log=data.log / f"{log}.log",
        grace=15,
        own_group=False,
    )


def callbacks(data: DataFolder, environment: dict[str, str]) -> Child:
    return Child(
        name="callbacks",
        command=start.manage_command("callbacks"),
        environment={**environment, "GANTRY_ROLE": "worker"},
        log=data.log / "callbacks.log",
        grace=10,
        own_group=False,
    )


def flower(data: DataFolder, environment: dict[str, str], port: int) -> Child:
    return Child(
        name="flower",
        command=start.flower_command("127.0.0.1", port),
        # Not an argument: every user of the machine can list those.
        environment={**environment, "FLOWER_BASIC_AUTH": f"gantry:{data.flower_password()}"},
        log=data.log / "flower.log",
        grace=5,
        own_group=True,
    )


def manage(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, give_up: Callable[[], bool]
) -> str:
    """A management command's standard output; what it complains about goes to `log`, its end into the error.

    Ends it as soon as `give_up` says so; then the output is worth nothing.
    """
    process = subprocess.Popen(
        start.manage_command(*arguments),
        cwd=REPOSITORY,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    output = errors = None
    with process:
        while output is None or errors is None:
            try:
                output, errors = process.communicate(timeout=0.1)
            except subprocess.TimeoutExpired:
                if give_up():
                    process.terminate()
    log.write_text(errors)
    if process.returncode != 0 and not give_up():
        lines = [line for line in (errors or output).splitlines() if line.strip(" ^~")]
        last = "\n".join(lines[-3:])
        raise LocalError(
            f"manage.py {' '.join(arguments)} {ending(process.returncode)}; the end of {log}:\n{last}"
        )
    return output


def fetch(url: str, headers: dict[str, str] | None = None, timeout: float = 3.0) -> tuple[int, str]:
    """GET without proxies: status (0: no answer) and body or reason."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=timeout) as response:  # noqa: S310
            return response.status, response.read(65_536).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(65_536).decode(errors="replace")
    except (OSError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))
