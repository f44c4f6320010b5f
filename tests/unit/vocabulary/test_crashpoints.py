"""Crash points: the steps that the code passes are those that ``workers.vocabulary.crashpoints`` lists."""

from __future__ import annotations

import re
from pathlib import Path

from workers.vocabulary.crashpoints import (
    API_STEPS,
    CALLBACK_STEPS,
    STAGING_STEPS,
    STEPS,
    TRANSFER_STEPS,
)

ROOT = Path(__file__).resolve().parents[3]


def test_every_step_is_listed_and_every_listed_step_is_passed() -> None:
    """Catches a step that no fault test walks, and one that is walked and can never be reached."""
    passed = {
        name
        for folder in ("config", "workers", "tasks_api", "jobs", "queues", "workqueue")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"(?<!\w)step\(\"([a-z]+\.[a-z_]+)\"\)", path.read_text())
    }
    assert passed == {*STEPS, *STAGING_STEPS, *TRANSFER_STEPS, *API_STEPS, *CALLBACK_STEPS}
