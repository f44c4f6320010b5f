"""What is not stored as an output."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.runtimes.base import Places
from workers.runtimes.staging import OutputFailed, Plan, store_outputs
from workers.vocabulary.staging import Output


def test_a_stdout_that_lacks_bytes_is_no_output(tmp_path: Path) -> None:
    """Catches a part of a run's output that is stored as all of it, since the node's disk was full."""
    (tmp_path / "stdout").write_bytes(b"the beginning")
    places = Places(tmp_path, tmp_path, {"stdout": tmp_path / "stdout"}, ["stdout"])
    plan = Plan(outputs=[Output(url="http://192.0.2.1/told", stream="stdout")])

    with pytest.raises(OutputFailed, match="its stdout is not whole"):
        store_outputs(plan, places, "1-1-1", tick=lambda: None, commit=lambda: None, tell=lambda text: None)
