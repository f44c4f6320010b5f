"""Watches the nodes' books all the time while work flows, and feeds endless streams of it."""

from __future__ import annotations

from collections import defaultdict
from types import TracebackType
from typing import Self

from django.db import connection

from tests.integration.engine_rows import BOOKS
from tests.support.engine import submit
from tests.support.watching import Again
from workers.models import Run
from workers.vocabulary.states import FINAL


class Sampler(Again):
    """A thread that compares, a hundred times a second, what is reserved with what there is.

    The tasks that are watched last 0.3 s at least, so none comes and goes unseen.

    The sum is taken from the running runs and their shapes, not from the node's own columns; the columns must
    equal that sum. Each sample is one statement, so it is the truth of one moment.
    """

    def __init__(self) -> None:
        super().__init__(self._look, 0.01)
        self.peak: dict[str, int] = defaultdict(int)
        self.wrong: list[str] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            assert self.wrong == []
            assert self.count > 20, f"only {self.count} samples: they prove nothing"

    def _look(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(BOOKS)
            for row in cursor.fetchall():
                self._check(*row)

    def _check(
        self,
        name: str,
        cpu: int,
        cpu_used: int,
        cpu_sum: int,
        mem: int,
        mem_used: int,
        mem_sum: int,
        slots_used: int,
        runs: int,
    ) -> None:
        self.peak[name] = max(self.peak[name], cpu_sum)
        if cpu_sum > cpu or mem_sum > mem:
            self.wrong.append(
                f"{name} is oversubscribed: {cpu_sum} of {cpu} CPU/1000, {mem_sum} of {mem} MiB"
            )
        if (cpu_used, mem_used, slots_used) != (cpu_sum, mem_sum, runs):
            self.wrong.append(
                f"{name}: columns {cpu_used, mem_used, slots_used}, runs {cpu_sum, mem_sum, runs}"
            )


class Stream(Again):
    """An endless stream of small tasks: there are always about ``depth`` of them that have not ended.

    They last from 0.3 to 0.7 s, so that a node's CPUs never become free all at once by chance.
    """

    def __init__(self, tenant_id: int, depth: int = 40) -> None:
        super().__init__(self._top_up, 0.02)
        self.run_ids: list[int] = []
        self._tenant_id = tenant_id
        self._depth = depth

    def __enter__(self) -> Self:
        self._top_up()
        return super().__enter__()

    def _top_up(self) -> None:
        open_runs = (
            Run.objects.filter(pk__in=self.run_ids[-4 * self._depth :]).exclude(state__in=FINAL).count()
        )
        for _ in range(self._depth - open_runs):
            lasts = 0.3 + 0.05 * (len(self.run_ids) * 5 % 9)
            self.run_ids.append(submit(self._tenant_id, f"sleep {lasts:.2f}", cpu=1))

    @property
    def ended(self) -> int:
        """How many have ended."""
        return Run.objects.filter(pk__in=self.run_ids, state__in=FINAL).count()
