"""A pytest plugin: writes what became of every test to a file, a line of JSON for each phase of it.

    -p tests.tools.outcomes --outcomes FILE

A line is there when its phase has ended, so that somebody knows it who was not killed with pytest. The last
ones are the plan. Read by tests.tools.judge.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

#: Of what a failed test printed, so much from the end.
_TAIL = 6000


class Outcomes:
    """In the process that sees every report."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _add(self, **line: Any) -> None:
        with self._path.open("a") as out:
            out.write(json.dumps(line) + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        text = ""
        if report.failed:
            sections = "".join(f"--- {name} ---\n{content[-_TAIL:]}\n" for name, content in report.sections)
            text = f"{report.longreprtext}\n{sections}".strip()
        self._add(
            test=report.nodeid,
            phase=report.when,
            outcome="xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome,
            began=report.start,
            ended=report.stop,
            seconds=report.duration,
            # A worker that died of its test cannot tell: the load is then what it is now.
            load=getattr(report, "load", os.getloadavg()[0]),
            text=text,
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(broken=report.nodeid, text=report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self._add(broken="pytest", text=str(excrepr))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        # Not before pytest has loaded it as a plugin, or its assertions would not be rewritten.
        from tests.support import passes

        if not session.config.option.collectonly:
            for place in passes.plan(session.config):
                self._add(planned=asdict(place))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="a file for what becomes of every test")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("outcomes")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(path), "outcomes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.load = os.getloadavg()[0]  # type: ignore[attr-defined] # travels with the report
    return report
