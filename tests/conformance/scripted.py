"""In a mover's place: its orders name a command, whose output is the mover's own words, and a report."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    file = Path(sys.argv[1])
    orders = json.loads(file.read_bytes())["orders"]
    file.unlink()
    os.write(1, orders["report"].encode())
    os.dup2(2, 1)
    argv = orders["argv"]
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
        os._exit(127)


main()
