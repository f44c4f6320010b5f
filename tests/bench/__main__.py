"""``python -m tests.bench [--long] [MARK ...]``: marks 1 to 11, 13 to 19; a table.

Servers are the embedded ones with their usual durability (fsync on).
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from config.local.servers import EmbeddedPostgres, EmbeddedRedis

#: What the caller's shell says about another service or engine is not for the benchmarks.
_OTHERS = ("DOCKER_", "GANTRY_", "DJANGO_", "CELERY_")


def _forget_the_callers_service() -> None:
    for name in [name for name in os.environ if name.startswith(_OTHERS)]:
        del os.environ[name]


def main() -> int:
    """Start the servers, set the environment, measure, stop."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("marks", nargs="*", help="1 to 11 and 13 to 19; all but 14 by default")
    options.add_argument("--long", action="store_true", help="more and longer rounds")
    given = options.parse_args()
    _forget_the_callers_service()
    folder = Path(tempfile.mkdtemp(prefix="gbs-", dir="/tmp"))
    folder.chmod(0o711)
    postgres, redis = EmbeddedPostgres(folder / "pg"), EmbeddedRedis(folder / "redis")
    postgres.start()
    redis.start()
    os.environ.update(
        DATABASE_URL=postgres.url,
        REDIS_URL=redis.url,
        DJANGO_SETTINGS_MODULE="config.settings",
        DJANGO_SECRET_KEY=secrets.token_urlsafe(50),
        GANTRY_SECRET_KEYS="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        GANTRY_DATA_DIR=str(folder / "data"),
        GANTRY_TENANT_REQUESTS_PER_S="1000000",  # both sides ask the same limiter
        GANTRY_BOOTSTRAP_TOKEN="gnt_benchbenchbenchbenchbenchbenchbenchbench",
    )
    try:
        for command in (["migrate"], ["bootstrap"]):
            subprocess.run([sys.executable, "manage.py", *command], check=True, stdout=subprocess.DEVNULL)
        from tests.bench import marks

        return marks.run(
            given.marks
            or ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "13", "15", "16", "17", "18", "19"],
            long=given.long,
        )
    finally:
        redis.kill()
        postgres.stop("immediate")
        subprocess.run(["rm", "-rf", str(folder)], check=False)


if __name__ == "__main__":
    sys.exit(main())
