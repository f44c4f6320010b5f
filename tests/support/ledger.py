"""Commands that leave a trace with times outside of every database; the proof that attempts never overlap.

Each line of the ledger is ``what name attempt time``: one short append, so lines of many commands do not mix.
The attempt is known by the name of its working folder, since process ids are not unique in namespaces; in a
container by its host name, and the time is the machine's uptime there, in hundredths of a second.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.support.waiting import wait_until

_ME, _NOW = "${HOME##*/}", "$(date +%s.%N)"
#: The same in a container of busybox, for ``voice``.
CONTAINER = ("$(hostname)", "$(cut -d' ' -f1 /proc/uptime)")


@dataclass(frozen=True)
class Trace:
    """The life of one attempt as its own command saw it. Times are seconds since 1970."""

    attempt: str
    began: float
    last: float
    ended: bool


def note(ledger: Path, what: str, name: str, voice: tuple[str, str] = (_ME, _NOW)) -> str:
    """Shell: append one line. ``voice``: how the shell says which attempt it is, and the time."""
    return f"echo {what} {name} {voice[0]} {voice[1]} >> {ledger}"


def ticking_command(
    ledger: Path,
    name: str,
    *,
    while_exists: Path,
    deaf: bool = False,
    first: int | None = None,
    first_until: Path | None = None,
    voice: tuple[str, str] = (_ME, _NOW),
) -> str:
    """A command that notes ten times a second that it lives, until a file is gone.

    A grandchild in a session of its own does so too: who kills only the main process is found out.
    ``deaf``: both ignore TERM. ``first``: the first attempt ends with this code, after a while or when
    the file ``first_until`` is there.
    """

    def say(what: str) -> str:
        return note(ledger, what, name, voice)

    tick = f"while test -e {while_exists}; do {say('tick')}; sleep 0.1; done"
    trap = "trap '' TERM; " if deaf else ""
    early = ""
    if first is not None:
        wait = f"until test -e {first_until}; do sleep 0.05; done" if first_until else "sleep 2"
        early = f"case {_ME} in *-1) {wait}; {say('end')}; exit {first};; esac; "
    quoted = tick.replace("'", "'\"'\"'")
    return (
        f"{trap}{say('begin')}; echo out-{name}; {early}setsid sh -c '{quoted}' & {tick}; wait; {say('end')}"
    )


def traces(ledger: Path, name: str) -> list[Trace]:
    """The attempts of a command, in the order in which they began."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in ledger.read_text().splitlines():
        what, who, attempt, at = line.split()
        if who == name:
            times[attempt][what].append(float(at))
    found = []
    for attempt, seen in times.items():
        assert len(seen["begin"]) == 1, f"I2: {attempt} of {name} began {len(seen['begin'])} times"
        last = max(at for moments in seen.values() for at in moments)
        found.append(Trace(attempt, seen["begin"][0], last, bool(seen["end"])))
    return sorted(found, key=lambda trace: trace.began)


def assert_no_overlap(ledger: Path, name: str, attempts: int) -> list[Trace]:
    """I2: so many attempts began, each once, and each was dead before the next one began."""
    # A start is recorded a moment before the command's own first word.
    wait_until(
        lambda: len(traces(ledger, name)) >= attempts,
        why=f"attempt {attempts} of {name} begins",
        see=lambda: traces(ledger, name),
    )
    found = traces(ledger, name)
    assert len(found) == attempts, f"I2: {len(found)} attempts of {name} began, not {attempts}: {found}"
    for earlier, later in pairwise(found):
        assert earlier.last < later.began, f"I2: attempts of {name} overlap: {earlier} and {later}"
    return found


def wait_begun(ledger: Path, *names: str) -> None:
    """Wait until these commands have noted their beginning."""
    wanted = {f"begin {name} " for name in names}
    wait_until(
        lambda: all(mark in ledger.read_text() for mark in wanted), why=f"{names} begin", see=ledger.read_text
    )
