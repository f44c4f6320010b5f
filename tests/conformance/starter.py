"""A worker reduced to its runtime: prepares and starts one run, says so, and waits to be killed."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import django


def main() -> None:
    asked = json.loads(sys.argv[1])
    django.setup()
    from tests.conformance.nodes import claimed, make_runtime
    from workers.launcher import control

    runtime = make_runtime(asked["kind"], Path(asked["node"]), asked["engine"])
    runtime.renewed(control.boottime(), 600, 900)
    run = claimed(asked["kind"], asked["run_id"], asked["spec"], asked["orders"])
    runtime.prepare(run, lambda: False, lambda said: None)
    runtime.start(run, control.boottime())
    os.write(1, b"started\n")
    time.sleep(600)  # pace: until it is killed


if __name__ == "__main__":
    main()
