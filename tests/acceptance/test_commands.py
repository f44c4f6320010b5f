"""What a command finds around it: a fresh environment, its own user and folder, limits, and nothing else.

As root each run is a stranger on the machine. Started by an ordinary user, a worker cannot do that: then the
tests assert what the service promises instead, that it says so and serves trusted tenants only.
"""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import PATIENT, Cluster, Process, spare_neighbours
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account, make_account
from tests.support.invariants import assert_invariants
from tests.support.session import POSTGRES, REDIS
from tests.support.waiting import wait_until
from workers import services
from workers.models import Node, Run
from workers.runtimes.launched.records import DEFAULT_PATH
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.account

ROOT = os.geteuid() == 0


def submit_argv(tenant_id: int, *argv: str, env: dict[str, str] | None = None, **more: Any) -> int:
    """A run without a shell around it."""
    spec = ProcessSpec(argv=list(argv), env=env or {}, cpu_m=100, mem_mb=more.pop("mem_mb", 64))
    return services.submit(
        services.Submission(tenant_id=tenant_id, family="tasks", spec=spec, name="t", **more)
    )


def lines(run_id: int) -> list[str]:
    (ended,) = wait_final(run_id)
    assert ended.state == State.SUCCEEDED, f"{ended.message}: {output(run_id, stream=2)!r}"
    return output(run_id).decode().splitlines()


def test_what_is_around_a_command(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Everything that leaves a node as it is, on one node; each step says what it catches."""
    canary = f"/{secrets.token_hex(16)}"
    worker = cluster.node(CANARY=canary, GANTRY_CANARY=canary, LD_LIBRARY_PATH=canary, PYTHONPATH=canary)
    the_environment_is_fresh(cluster, account, canary)
    a_command_may_replace_what_it_was_given(account)
    where_it_stands(cluster, account)
    nothing_of_its_folder_is_left(cluster, account)
    each_run_is_a_user_of_its_own(cluster, account, shared_folder)
    who_is_served_without_root(account)
    a_command_reaches_no_process_but_its_own(cluster, account, worker, shared_folder)
    the_embedded_servers_are_closed(account)
    limits_as_the_command_sees_them(account)
    memory_beyond_the_limit_is_refused(account)
    odd_text_arrives_as_it_was_sent(account)
    what_cannot_be_executed_says_why_and_is_not_tried_again(cluster, account)
    how_it_ended_is_told(account)


# --- environment --------------------------------------------------------------------------------------------


def the_environment_is_fresh(cluster: Cluster, account: Account, canary: str) -> None:
    """Catches: anything of the worker's environment in a command's, above all its passwords and keys.

    A canary stands for what an operator may have exported before starting the worker.
    """
    asked = submit_argv(account.tenant_id, "/usr/bin/env", "-0", env={"MINE": "1", "EMPTY": "", "LANG": "C"})
    every = submit(account.tenant_id, "cat /proc/[0-9]*/environ 2>/dev/null; exit 0", env={"MINE": "seen"})
    wait_final(asked, every)
    found = dict(item.split("=", 1) for item in output(asked).decode().rstrip("\0").split("\0"))
    home = found.pop("HOME")
    assert found == {
        "PATH": DEFAULT_PATH, "TMPDIR": f"{home}/tmp", "LANG": "C", "MINE": "1", "EMPTY": "",
    }  # fmt: skip
    assert Path(home).name == f"{asked}-1"
    seen = output(every)
    assert b"MINE=seen" in seen
    if ROOT:
        for secret in (canary, os.environ["DATABASE_URL"], os.environ["GANTRY_SECRET_KEYS"], "REDIS_URL"):
            assert secret.encode() not in seen
    assert_invariants(cluster)


def a_command_may_replace_what_it_was_given(account: Account) -> None:
    run_id = submit(account.tenant_id, 'echo "$PATH $HOME"', env={"PATH": "/bin", "HOME": "/nowhere"})
    assert lines(run_id) == ["/bin /nowhere"]


def where_it_stands(cluster: Cluster, account: Account) -> None:
    """Catches: a working folder that is shared, an inherited descriptor, mask, input, terminal or signal."""
    look = """test "$PWD" = "$HOME" && echo at home; umask; cat; ls /proc/self/fd | wc -l
        touch mine tmp/mine; ls; grep SigBlk /proc/self/status; grep SigIgn /proc/self/status; tty"""
    run_id = submit(account.tenant_id, look)
    wait_final(run_id)
    told = [line.strip() for line in output(run_id).decode().splitlines()]
    assert told[:2] == ["at home", "0022"]
    assert told[2] == "4", "beside its three streams and the folder that ls reads, something is open"
    assert told[3:5] == ["mine", "tmp"]
    blocked, ignored = (int(line.split()[1], 16) for line in told[5:7])
    # 32 and 33 are the C library's own; nobody can set them.
    assert (blocked, ignored & ~(0b11 << 31)) == (0, 0)
    assert told[7] == "not a tty"
    assert_invariants(cluster)


def nothing_of_its_folder_is_left(cluster: Cluster, account: Account) -> None:
    """Catches: a scratch folder that cannot be removed because the command closed it (I4)."""
    stubborn = (
        "mkdir -p a/b; touch a/b/c; chmod 000 a/b/c a/b a; mkfifo pipe; ln -s /etc/passwd link; chmod 555 ."
    )
    wait_final(submit(account.tenant_id, stubborn))
    assert_invariants(cluster)
    assert Path("/etc/passwd").exists()


# --- its own user -------------------------------------------------------------------------------------------


def each_run_is_a_user_of_its_own(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches: two runs of one user, who could kill each other; a run that is root or could become it."""
    ask = "id -u; id -G; grep -E 'NoNewPrivs|CapEff|CapPrm|CapBnd' /proc/self/status"
    gate = shared_folder / "gate"
    hold = f"until test -e {gate}; do sleep 0.1; done"  # all are there at the same time
    run_ids = [submit(account.tenant_id, f"{ask}; {hold}") for _ in range(4)]
    for run_id in run_ids:
        wait_started(run_id)
    gate.touch()
    told = [lines(run_id) for run_id in run_ids]
    uids = [int(item[0]) for item in told]
    if ROOT:
        assert len(set(uids)) == 4
        assert min(uids) > 65_535, "a uid that the machine's own accounts may have"
        assert [item[1].split() for item in told] == [[str(uid)] for uid in uids]
        for item in told:
            assert {line.split()[0]: line.split()[1] for line in item[2:] if "CapBnd" not in line} == {
                "NoNewPrivs:": "1", "CapEff:": "0" * 16, "CapPrm:": "0" * 16,
            }  # fmt: skip
    else:
        assert set(uids) == {os.geteuid()}
    assert Node.objects.get().isolates_users == ROOT
    assert_invariants(cluster)


def who_is_served_without_root(account: Account) -> None:
    """As root every tenant; as an ordinary user only one that is trusted with that user's account."""
    other = make_account("untrusted", trusted=False)
    run_id = submit(other.tenant_id, "echo served")
    if ROOT:
        assert lines(run_id) == ["served"]
        return
    wait_final(submit(account.tenant_id, "true"))
    assert run(run_id).state == State.PENDING
    told: Any = services.explain(other.tenant_id, run_id)["reasons"]
    assert told[0]["message"] == "node n1 runs commands as its own user, which this tenant may not use"
    services.cancel(other.tenant_id, run_id)


def test_an_operator_can_forbid_commands_without_root(cluster: Cluster, account: Account) -> None:
    """GANTRY_COMMANDS_UNISOLATED=0: no commands where they could not be isolated. As root it is idle."""
    node = cluster.node(GANTRY_COMMANDS_UNISOLATED="0")
    run_id = submit(account.tenant_id, "echo served")
    if ROOT:
        assert lines(run_id) == ["served"]
        return
    assert "GANTRY_COMMANDS_UNISOLATED=0 forbids commands as its user" in node.text()
    told: Any = services.explain(account.tenant_id, run_id)["reasons"]
    assert told[0]["message"] == "no node offers the process runtime"


# --- closed doors -------------------------------------------------------------------------------------------


@pytest.fixture
def plain_cluster(transactional_db: None) -> Iterator[Cluster]:
    """A cluster outside of /tmp: there each run sees folders of its own, which would hide an open door."""
    folder = Path(tempfile.mkdtemp(prefix="gantry-", dir="/var/lib" if ROOT else "/tmp"))
    folder.chmod(0o711)
    running = Cluster(folder, dict(os.environ), dict(PATIENT))
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def open_doors(tenant_id: int, *doors: str) -> list[str]:
    """Those of some shell conditions that are true for a command; many are for the worker's own user."""
    script = "\n".join(
        f"if {door} >/dev/null 2>&1; then echo {number}; fi" for number, door in enumerate(doors)
    )
    *told, last = lines(submit(tenant_id, f"{script}\necho tried"))
    assert last == "tried"
    return [doors[int(number)] for number in told]


def sockets_below(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_socket()]
    assert found, f"there is no socket below {folder}: this test looks at the wrong place"
    return found


def test_closed_doors(plain_cluster: Cluster, account: Account, stranger: Account) -> None:
    plain_cluster.node()
    the_nodes_own_folder_is_closed(plain_cluster, account)
    other_runs_are_closed(plain_cluster, account, stranger)


def the_nodes_own_folder_is_closed(plain_cluster: Cluster, account: Account) -> None:
    """Catches: control files or the launcher's socket within reach; a command could start things as root."""
    victim = submit(account.tenant_id, "sleep 600", grace_s=0)
    wait_started(victim)
    node = plain_cluster.folder / "n1"
    control = node / "launcher" / "runs" / f"{victim}-1"
    doors = [f"ls {node}", f"ls {node}/scratch", f"ls {node}/launcher"]
    doors += [f"cat {node}/worker.lock", f"ls {control}", f"cat {control}/started", f"cat {control}/stdout"]
    if ROOT:
        doors += [f"touch {node}/x", f"touch {node}/scratch/x", f"touch {node}/launcher/x"]
    doors += [f"test {kind} {path}" for path in sockets_below(node / "launcher") for kind in ("-r", "-w")]
    found = open_doors(account.tenant_id, *doors)
    assert not ROOT or found == []
    assert node.stat().st_mode & 0o077 == (0o011 if ROOT else 0)
    services.cancel(account.tenant_id, victim)
    assert_invariants(plain_cluster)


def other_runs_are_closed(plain_cluster: Cluster, account: Account, stranger: Account) -> None:
    """Catches: another run's folder, files in /tmp, processes, environment or output within reach."""
    secret = secrets.token_hex(8)
    hide = f"for f in mine /tmp/mine /var/tmp/mine /dev/shm/mine; do echo {secret} > $f; chmod 666 $f; done"
    if not ROOT:
        hide = f"echo {secret} > mine"  # /tmp is everybody's there
    victim = submit(stranger.tenant_id, f"{hide}; pwd; exec sleep 600", env={"SECRET": secret}, grace_s=0)
    wait_until(lambda: output(victim), why="the victim is up")
    folder = output(victim).decode().strip()
    pattern = f"[{secret[0]}]{secret[1:]}"  # does not find itself
    doors = [f"ls {folder}", f"cat {folder}/mine", f"touch {folder}/x", f"ls {Path(folder).parent}"]
    doors += [f"test -e {place}/mine" for place in ("/tmp", "/var/tmp", "/dev/shm")]
    doors += [f"grep -a {pattern} /proc/[0-9]*/{what}" for what in ("environ", "cmdline")]
    found = open_doors(account.tenant_id, *doors)
    assert not ROOT or found == []
    assert run(victim).state == State.RUNNING
    services.cancel(stranger.tenant_id, victim)
    assert_invariants(plain_cluster)


def a_command_reaches_no_process_but_its_own(
    cluster: Cluster, account: Account, worker: Process, shared_folder: Path
) -> None:
    """Catches: a command that can stop, trace or read its worker, launcher, shim or a neighbour."""
    gate = shared_folder / "gate-neighbour"
    neighbour = submit(account.tenant_id, f"until test -e {gate}; do sleep 0.1; done; echo lived")
    wait_started(neighbour)
    # Never as root, should the isolation be broken: this would take the machine with it.
    murder = 'test "$(id -u)" -gt 65535 || exit 9; kill -9 1; kill -STOP 1; kill -9 -1'
    assassin = submit(account.tenant_id, murder if ROOT else "true")
    doors = [f"kill -0 {pid}" for pid in (worker.pid, os.getpid())]
    doors += [f"cat /proc/{pid}/environ" for pid in (worker.pid, os.getpid())] + ["cat /proc/1/environ"]
    found = open_doors(account.tenant_id, *doors)
    assert not ROOT or found == []
    wait_final(assassin)
    gate.touch()
    assert lines(neighbour) == ["lived"]
    assert worker.alive
    assert_invariants(cluster)


def the_embedded_servers_are_closed(account: Account) -> None:
    """Catches: Postgres or Redis within reach: a command could write the state of every run."""
    doors = []
    for server in (POSTGRES, REDIS):
        doors += [f"ls {server.folder}", f"cat {server.folder}/password", f"cat {server.log}"]
        doors += [f"test {kind} {path}" for path in sockets_below(server.folder) for kind in ("-r", "-w")]
        assert server.folder.stat().st_mode & 0o077 == 0
        assert server.port is None
    found = open_doors(account.tenant_id, *doors)
    assert not ROOT or found == []


# --- limits -------------------------------------------------------------------------------------------------


def limits_as_the_command_sees_them(account: Account) -> None:
    """Catches: a limit that is not set, or is the worker's own."""
    told = lines(
        submit(
            account.tenant_id,
            "ulimit -c; ulimit -n; ulimit -d; ulimit -Hd; grep processes /proc/self/limits",
            mem_mb=96,
        )
    )
    hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert told[:4] == [
        "0",
        str(min(65_536, hard_files) if hard_files > 0 else 65_536),
        str(96 * 1024),
        str(96 * 1024),
    ]
    soft, hard = told[4].split()[2:4]
    assert soft == hard != "unlimited"


def memory_beyond_the_limit_is_refused(account: Account) -> None:
    """Catches: a reservation of memory that is only a number. `tail` keeps its whole input in memory."""
    greedy = submit(
        account.tenant_id, "head -c 300000000 /dev/zero | tail -c 299999999 | wc -c; exit 0", mem_mb=64
    )
    modest = submit(account.tenant_id, "head -c 30000000 /dev/zero | tail -c 29999999 | wc -c", mem_mb=256)
    assert lines(modest) == ["29999999"]
    (ended,) = wait_final(greedy)
    assert output(greedy) != b"299999999\n"
    # Refused by its own limit `tail` says so; a control group kills it, and the run's message tells.
    assert "memory" in output(greedy, stream=2).decode() + ended.message


@pytest.mark.timeout(400)
def test_a_run_cannot_take_every_process_of_the_machine(cluster: Cluster, account: Account) -> None:
    """Catches: no limit on processes. 5,000 sleeping children are asked for."""
    spare_neighbours(cluster)
    cluster.node()
    many = "i=0; while test $i -lt 5000; do sleep 600 & i=$((i+1)); done; echo all"
    run_id = submit(account.tenant_id, many, mem_mb=2048, timeout_s=250)
    (ended,) = wait_final(run_id, timeout_s=300)
    assert output(run_id) != b"all\n"
    assert b"fork" in output(run_id, stream=2)
    assert ended.state == State.FAILED
    assert_invariants(cluster)


# --- what is executed ---------------------------------------------------------------------------------------


def odd_text_arrives_as_it_was_sent(account: Account) -> None:
    """Catches: a command or variable that is quoted, cut or encoded on its way."""
    odd = (
        "".join(chr(code) for code in range(1, 256) if code != 39) + "𝄞🙂 \u202e\u2028\ufeff\uffff$(id)`id`\\"
    )
    command = submit(account.tenant_id, f"printf %s '{odd}'")
    variable = submit(account.tenant_id, 'printf %s "$ODD"', env={"ODD": odd})
    argument = submit_argv(account.tenant_id, "/usr/bin/printf", "%s", odd)
    wait_final(command, variable, argument)
    for run_id in (command, variable, argument):
        assert output(run_id) == odd.encode()


def what_cannot_be_executed_says_why_and_is_not_tried_again(cluster: Cluster, account: Account) -> None:
    """Catches: tries that are used up on what can never work; an exit code that nobody returned."""
    cases = {
        submit_argv(
            account.tenant_id, *argv, retries=3
        ): f"Command could not be started: cannot execute {why}"
        for argv, why in (
            (["no-such-program"], "'no-such-program': not found in its PATH"),
            (["/etc/passwd"], "'/etc/passwd': Permission denied"),
            (["/bin/sh", "-c", "x" * 200_000], "'/bin/sh': Argument list too long"),
        )
    }
    for ended in wait_final(*cases):
        assert (ended.state, ended.reason, ended.message) == (State.FAILED, Reason.CREATE, cases[ended.pk])
        assert (ended.attempt, ended.exit_code, ended.started_at) == (1, None, None)
    assert_invariants(cluster)


def how_it_ended_is_told(account: Account) -> None:
    """Catches: a signal that looks like an exit code, or the other way round."""
    cases = {
        submit(account.tenant_id, command): (code, f"Command exited with status {told}")
        for command, code, told in (
            ("exit 0", 0, "0"),
            ("exit 255", 255, "255"),
            ("kill -SEGV $$", 139, "139 (SIGSEGV)"),
            ("kill -KILL $$", 137, "137 (SIGKILL)"),
            ("exit 137", 137, "137"),
        )
    }
    for ended in wait_final(*cases):
        assert (ended.exit_code, ended.message) == cases[ended.pk]
        assert ended.state == (State.SUCCEEDED if ended.exit_code == 0 else State.FAILED)


@pytest.mark.timeout(400)
def test_hundreds_of_short_commands(cluster: Cluster, account: Account) -> None:
    """Catches: a run that is lost, runs twice or keeps something under load: a uid, a slot, a folder."""
    cluster.node(cpus=64, mem_mb=65_536)
    run_ids = [submit(account.tenant_id, f"echo {number}; exit {number % 3}") for number in range(300)]
    wait_final(*run_ids, timeout_s=300)
    for number, run_id in enumerate(run_ids):
        assert output(run_id) == f"{number}\n".encode()
    codes = dict(Run.objects.filter(pk__in=run_ids).values_list("id", "exit_code"))
    assert [codes[run_id] for run_id in run_ids] == [number % 3 for number in range(300)]
    assert set(Run.objects.filter(pk__in=run_ids).values_list("attempt", flat=True)) == {1}
    assert_invariants(cluster)
