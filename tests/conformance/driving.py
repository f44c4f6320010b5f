"""Driving a runtime as the runner does: start, wait for the end, collect what it says."""

from __future__ import annotations

from dataclasses import replace

from tests.support.waiting import wait_until
from workers.launcher import control
from workers.logs.capture import STDERR, STDOUT, STREAMS
from workers.runtimes.base import PrepareFailed, Presence, Result, Runtime
from workers.vocabulary.leases import ClaimedRun

#: Seconds for anything that takes a fraction of one on a quiet machine.
PATIENCE = 90.0


def start(runtime: Runtime, run: ClaimedRun) -> None:
    runtime.prepare(run, lambda: False, lambda said: None)
    runtime.start(run, control.boottime())


def ended(runtime: Runtime, run: ClaimedRun, timeout_s: float = PATIENCE) -> Result:
    """Wait for the end, in short waits as the runner does."""
    return wait_until(
        lambda: runtime.wait(run, 0.5), timeout_s, 0.0, "it ends", lambda: runtime.presence(run)
    )


def finished(runtime: Runtime, run: ClaimedRun) -> tuple[Result, dict[int, bytes]]:
    """Start and run to the end: the result, and what each stream said."""
    start(runtime, run)
    result = ended(runtime, run)
    collected = Collected(runtime, run)
    collected.rest()
    return result, collected.text()


def code(result: Result) -> int | None:
    """The exit code as it is recorded: a shell's 128 + signal where there was none."""
    return result.code if result.code is not None else 128 + (result.signal or 0)


def adopted(run: ClaimedRun) -> ClaimedRun:
    """The run as the next worker finds it in the database."""
    return replace(run, lease=replace(run.lease, epoch=run.lease.epoch + 1), adopted=True, started_ago=1.0)


class Collected:
    """Output as the database would have it: chunks by offset, the middle deleted when told."""

    def __init__(self, runtime: Runtime, run: ClaimedRun, shipped: dict[int, int] | None = None) -> None:
        self._runtime, self._run = runtime, run
        self.output = runtime.output(run, shipped or {})
        self.chunks: dict[int, dict[int, bytes]] = {stream: {} for stream in STREAMS}
        self.truncated = False
        self.log_bytes = 0
        #: A mover's only stream of words is its stderr; here it is the first, as with those who have one.
        self._called = {STDERR: STDOUT} if runtime.kind == "transfer" else {}
        self.report = b""

    def some(self, final: bool = False) -> bool:
        """Take one shipment; True when there is more at once."""
        shipment = self.output.pending(final)
        for chunk in shipment.chunks:
            self.chunks[self._called.get(chunk.stream, chunk.stream)][chunk.offset] = chunk.data
        for stale in shipment.stale:
            held = self.chunks[self._called.get(stale.stream, stale.stream)]
            for offset in [at for at in held if at >= stale.start and at + len(held[at]) <= stale.end]:
                del held[offset]
        if (report := shipment.report) is not None:
            assert report.offset == self._run.reported + len(self.report)
            self.report += b"".join(report.lines)
        self.truncated, self.log_bytes = shipment.truncated, shipment.log_bytes
        self.output.mark(shipment)
        return shipment.more

    def rest(self) -> None:
        while self.some(final=True):
            pass

    def until(self, what: bytes, stream: int = 1) -> None:
        """Collect until a stream has said this, watching meanwhile as the runner does."""

        def said() -> bool:
            self._runtime.wait(self._run, 0.05)
            self.some()
            return what in self.text()[stream]

        wait_until(said, PATIENCE, why=f"it says {what!r}", see=self.text)

    def text(self) -> dict[int, bytes]:
        return {
            stream: b"".join(data for _, data in sorted(held.items())) for stream, held in self.chunks.items()
        }

    def shipped(self) -> dict[int, int]:
        """What the next worker reads from the database."""
        stored = {told: stream for stream, told in self._called.items()}
        return {
            stored.get(stream, stream): max(at + len(data) for at, data in held.items())
            for stream, held in self.chunks.items()
            if held
        }


def refused(runtime: Runtime, run: ClaimedRun) -> str:
    """Try to run what cannot be run: the words of the refusal. It must be told as the run's own fault.

    Within a container its init process is what cannot execute it: then it says so and ends with 126 or 127.
    """
    failed: PrepareFailed | None = None
    try:
        start(runtime, run)
    except PrepareFailed as failure:
        failed = failure
    if failed is not None:
        assert not failed.ours, f"the node takes the blame: {failed.message}"
        return failed.message
    result = ended(runtime, run)
    if result.error:
        return result.error
    assert result.code in (126, 127), f"it ran: {result}"
    collected = Collected(runtime, run)
    collected.rest()
    return b"".join(collected.text().values()).decode()


def gone(runtime: Runtime, run: ClaimedRun) -> bool:
    return runtime.presence(run) is Presence.ABSENT
