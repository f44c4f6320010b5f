"""A worker reduced to its runtime: prepares and starts one run, says so, and waits to be killed."""

from __future__ import annotations

import json
import os
import sys
import time

import django


def main() -> None:
    asked = json.loads(sys.argv[1])
    os.environ.update(GANTRY_NODE_DIR=asked["node"], GANTRY_RUNTIMES=asked["kind"])
    django.setup()
    from workers.launcher import control
    from workers.leases import ClaimedRun, Lease
    from workers.node import build_runtimes

    runtime = build_runtimes()[asked["kind"]]
    runtime.renewed(control.boottime(), 600, 900)
    facts = {"tenant": "t", "tenant_id": 1, "family": "tasks", "kind": asked["kind"], "name": "conformance"}
    flags = dict.fromkeys(("never_lost", "cancel_requested", "operator_cancel", "adopted"), False)
    run = ClaimedRun(
        lease=Lease(*asked["run"], 1),
        spec=asked["spec"],
        cpu_m=asked["spec"]["cpu_m"],
        mem_mb=asked["spec"]["mem_mb"],
        retries_left=0,
        timeout_s=None,
        grace_s=1,
        started_ago=None,
        crashes=0,
        **facts,
        **flags,
    )
    runtime.prepare(run, lambda: False, lambda said: None)
    runtime.start(run, control.boottime())
    os.write(1, b"started\n")
    time.sleep(600)


if __name__ == "__main__":
    main()
