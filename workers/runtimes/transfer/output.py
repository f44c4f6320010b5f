"""A mover's output: its own words (stderr) for the log, its report (stdout) for the family's books."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from workers.logs.capture import Report, Shipment, SpoolReader

#: Most bytes of a report in one shipment; one line alone may be longer.
BUDGET: Final = 1024 * 1024


class MoverOutput:
    """Both files of an attempt; conforms to ``runtimes.base.Output``. Not for several threads at once.

    ``reported`` is how many bytes of the report are in the books already.
    """

    def __init__(self, spool: SpoolReader, report: Path, reported: int) -> None:
        self._spool = spool
        self._report = report
        self._reported = reported

    def pending(self, final: bool = False) -> Shipment:
        shipment = self._spool.pending(final)
        report, more = self._lines()
        return replace(shipment, report=report, more=shipment.more or more)

    def mark(self, shipment: Shipment) -> None:
        self._spool.mark(shipment)
        if (report := shipment.report) is not None:
            self._reported = report.offset + sum(map(len, report.lines))

    def _lines(self) -> tuple[Report | None, bool]:
        """The next whole lines, each with its end; and whether more bytes follow already.

        What follows the last end of a line was being written when the mover was killed, or still is.
        """
        try:
            file = os.open(self._report, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None, False
        try:
            data = os.pread(file, BUDGET, self._reported)
            while data and b"\n" not in data:
                piece = os.pread(file, BUDGET, self._reported + len(data))
                if not piece:
                    break
                data += piece
            size = os.fstat(file).st_size
        finally:
            os.close(file)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return None, False
        lines = tuple(line + b"\n" for line in whole[:-1].split(b"\n"))
        # What follows is more only where it holds a whole line: else the end would be waited for for ever.
        rest = size - self._reported - len(whole)
        return Report(self._reported, lines), rest > 0 and len(data) >= BUDGET
