"""One tenant's command takes no more of a node than it may, and the others go on."""

from __future__ import annotations

from tests.support.cluster import Cluster
from tests.support.engine import output, submit, wait_final
from tests.support.fixtures import Account, make_account
from workers.models import Node
from workers.vocabulary.states import Reason, State

#: 200 MiB that belong to nobody's private memory.
SHARED = "import mmap; m = mmap.mmap(-1, 200 << 20); [m.write(b'x' * 65536) for _ in range(3200)]"


def test_a_command_that_takes_too_much_is_ended_and_says_why(cluster: Cluster, account: Account) -> None:
    """Catches: 1 GiB of shared mappings passed with mem 256, and one `dd` that holds up every tenant."""
    cluster.node(GANTRY_COMMAND_DISK_MB="8")
    other = make_account("other")
    waits = submit(other.tenant_id, "sleep 3; echo well")  # pace: it lives while the two others are ended
    fills = submit(account.tenant_id, "dd if=/dev/zero of=x bs=1M count=64; sleep 600")
    shares = submit(account.tenant_id, f'python3 -I -S -c "{SHARED}"; s=$?; sleep 2; exit $s', mem_mb=64)
    filled, shared, well = wait_final(fills, shares, waits)
    assert (filled.state, filled.reason, filled.exit_code) == (State.FAILED, Reason.DISK, 137)
    assert filled.message.startswith("Command was killed: its working folder held ")
    assert "the limit is 8 MiB; let it write less, or ask an operator" in filled.message
    assert (shared.state, shared.reason) == (State.FAILED, Reason.OOM)
    assert shared.message == "Command exited with status 137 (out of memory)"
    assert (well.state, output(waits)) == (State.SUCCEEDED, b"well\n")
    # How this machine bounds them is told: by a control group, or by looking, and then why.
    told = Node.objects.get().attributes
    assert told["command_memory"].startswith(("cgroup v", "watched: "))
    assert told["command_cpu"].startswith(("share, cgroup v", "nice: "))
