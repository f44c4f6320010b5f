"""A mover and its batches, as a worker starts them: orders in a file, a report in another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django.conf import settings

from tests.conformance.trees.subjects import Subject
from tests.support.cluster import ROOT
from tests.support.waiting import limit
from workers.runtimes.transfer.runtime import MOVER, SETTINGS
from workers.storage.trees.parts import is_part
from workers.vocabulary.transfers.names import name_to_wire
from workers.vocabulary.transfers.orders import Order, Orders
from workers.vocabulary.transfers.reach import Reach

TAG = "gantry-7"
Line = dict[str, Any]


def ALL(subject: type[Subject]) -> bool:  # noqa: N802 (as a constant: where(only=ALL))
    """Every storage: for what differs between them. What the kernel lacks in a test's own process no mover
    lacks."""
    return subject.id != "local-walked"


@dataclass
class Report:
    """What a mover told, and how it ended."""

    code: int
    lines: list[Line]
    words: str = field(repr=False)

    @property
    def ends(self) -> dict[int, Line]:
        """The end of each element, by its number; each once."""
        found = [line for line in self.lines if line["r"] == "end"]
        assert len({line["n"] for line in found}) == len(found), found
        return {line["n"]: line for line in found}

    @property
    def end(self) -> Line:
        """Of the only element."""
        (found,) = self.ends.values()
        return found

    def done(self) -> Line:
        """The only element has succeeded."""
        assert self.code == 0, self
        assert self.end["ok"], self.end["log"]
        return self.end

    def failed(self, again: bool | None = None) -> Line:
        """The only element has not."""
        assert self.code == 0, self
        assert not self.end["ok"], self.end["log"]
        assert again is None or self.end["again"] is again, self.end
        return self.end

    def listing(self) -> list[tuple[str, list[list[Any]]]]:
        """(folder, names with what is told of them) in the order of the lines; escaped ones begin "x:"."""
        found: list[tuple[str, list[list[Any]]]] = []
        for line in (line for line in self.lines if line["r"] == "folder"):
            mark = "x:" if line.get("x") else ""
            rows = [[mark + row[0], *row[1:]] for row in line["e"]]
            if line.get("first"):
                found.append((line["d"], rows))
            else:
                found[-1][1].extend(rows)
        return found


class Running:
    """A mover that has been started."""

    def __init__(self, folder: Path, orders: Orders, env: dict[str, str], under: list[str]) -> None:
        """``under``: what comes before its command."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._orders = folder / "orders"
        told = {
            "orders": orders.to_json(),
            "settings": {name: getattr(settings, name) for name in SETTINGS},
        }
        self._orders.write_text(json.dumps(told))
        with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as words:
            self.process = subprocess.Popen(
                [*under, *MOVER, str(self._orders)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=words,
            )

    def told(self) -> list[Line]:
        """The whole lines of its report so far."""
        data = (self.folder / "stdout").read_bytes()
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def ended(self, timeout_s: float = 60) -> Report:
        """Wait for its end."""
        code = self.process.wait(limit(timeout_s))
        assert not self._orders.exists(), "orders hold secrets"
        words = (self.folder / "stderr").read_text()
        assert "Traceback" not in words, words
        return Report(code, self.told(), words)

    def kill(self) -> list[Line]:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(limit(60))
        return self.told()


class Mover:
    """Batches between folders of one subject's site."""

    def __init__(self, home: Path, subject: Subject, folder: bytes) -> None:
        self.home = home
        self.subject = subject
        self.folder = folder
        self._running: list[Running] = []

    def next_folder(self) -> Path:
        """Where the next mover that is started has its files."""
        return self.home / f"mover-{len(self._running) + 1}"

    def close(self) -> None:
        """End what a test that failed has left."""
        for running in self._running:
            running.kill()

    def at(self, name: bytes) -> bytes:
        """A path of this test, in the site."""
        return self.folder + b"/" + name

    def order(self, act: str, src: bytes, dst: bytes = b"", n: int = 1, **more: Any) -> Order:
        """``src`` and ``dst`` are names below this test's folder."""
        (source, odd), (target, odder) = (
            name_to_wire(self.at(src)),
            name_to_wire(self.at(dst) if dst else b""),
        )
        escaped = odd or odder
        if escaped:
            source, target = (
                text if bad else text.replace("\\", "\\\\") for text, bad in ((source, odd), (target, odder))
            )
        return Order(n=n, act=act, src=source, dst=target, escaped=escaped, **more)

    def start(
        self,
        *elements: Order,
        env: dict[str, str] | None = None,
        under: list[str] | None = None,
        **more: Any,
    ) -> Running:
        reach: Reach = self.subject.reach()
        # Another one by its name: what is copied passes through the mover's hands.
        there = replace(reach, site="there")
        given: dict[str, Any] = {
            "job": 7, "job_act": elements[0].act if elements else "COPY", "tag": TAG, "host": "here",
            "source": reach, "target": there,
        }  # fmt: skip
        orders = Orders(**{**given, "elements": elements, **more})
        running = Running(self.next_folder(), orders, env or {}, under or [])
        self._running.append(running)
        return running

    def run(self, *elements: Order, **more: Any) -> Report:
        return self.start(*elements, **more).ended()

    def copy(self, src: bytes, dst: bytes, env: dict[str, str] | None = None, **more: Any) -> Report:
        """One file, as one attempt; ``options`` are the batch's, the rest the order's."""
        options, rate = more.pop("options", {}), more.pop("rate", None)
        order = self.order("COPY", src, dst, **more)
        return self.run(order, env=env, options=options, rate=rate, dst=more.get("top", ""))

    # --- what is there -------------------------------------------------------------------------------

    def put(self, name: bytes, content: bytes, **more: Any) -> None:
        self.subject.put(self.at(name), content, **more)

    def get(self, name: bytes) -> bytes | None:
        return self.subject.get(self.at(name))

    def names(self, name: bytes = b"") -> set[bytes]:
        return self.subject.names(self.at(name) if name else self.folder)

    def parts(self, name: bytes = b"") -> set[bytes]:
        """What is not whole yet in a folder."""
        return {found for found in self.names(name) if is_part(found) or found.endswith(b".part")}
