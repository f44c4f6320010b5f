"""A machine beyond a test engine: a network namespace of its own, joined to the engine's by a cable."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.engines import Engine
from tests.support.waiting import limit, wait_until

#: Its addresses: an ordinary one (of a network kept for documentation) and a cloud's metadata.
ADDRESS, METADATA = "198.51.100.7", "169.254.169.254"


@contextmanager
def outside(engine: Engine) -> Iterator[list[str]]:
    """Yields the beginning of a command that runs there. The engine's end of the cable is 198.51.100.1."""
    keeper = subprocess.Popen(
        ["unshare", "--net", "--kill-child=KILL", "sh", "-c", "exec sleep 1000"], start_new_session=True
    )
    there = ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", "--"]
    try:
        ours = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, check=True).stdout

        def parted() -> bool:
            found = subprocess.run(
                ["readlink", f"/proc/{keeper.pid}/ns/net"], capture_output=True, check=False
            ).stdout
            return bool(found) and found != ours

        wait_until(parted, why="the namespace is there")
        here = engine.enter("--net")
        _ip(here, "link add outside0 type veth peer name out0 netns", str(keeper.pid))
        _ip(here, "address add 198.51.100.1/24 dev outside0")
        _ip(here, "link set outside0 up")
        _ip(here, f"route add {METADATA}/32 via {ADDRESS}")
        for words in ("link set lo up", f"address add {ADDRESS}/24 dev out0", "link set out0 up"):
            _ip(there, words)
        _ip(there, f"address add {METADATA}/32 dev lo")
        _ip(there, "route add default via 198.51.100.1")
        yield there
    finally:
        keeper.kill()
        keeper.wait(limit(60))
        wait_until(
            lambda: (
                subprocess.run(
                    [*engine.enter("--net"), "ip", "link", "show", "outside0"],
                    capture_output=True,
                    check=False,
                ).returncode
            ),
            why="the cable is gone",
        )


def _ip(enter: list[str], words: str, *more: str) -> None:
    subprocess.run([*enter, "ip", *words.split(), *more], check=True, capture_output=True)


@contextmanager
def listener(enter: list[str], port: int) -> Iterator[None]:
    """Something that says "reached" to whoever connects, on every address there."""
    command = [*enter, "busybox", "nc", "-ll", "-p", str(port), "-e", "busybox", "echo", "reached"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: reach(enter, "127.0.0.1", port), why=f"port {port} listens")
            yield
        finally:
            process.kill()


def reach(enter: list[str], address: str, port: int) -> bool:
    """Does a connection from there get through?"""
    done = subprocess.run(
        [*enter, "busybox", "nc", "-w", "2", address, str(port)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=limit(90),
    )
    return b"reached" in done.stdout
