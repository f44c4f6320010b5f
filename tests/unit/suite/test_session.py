"""What the suite's processes have from the session that starts them."""

from __future__ import annotations

import gc
import os
import sys

import pytest

from tests.support.session import keep_bytecode


def test_modules_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: every process that a test starts compiles Gantry anew."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    keep_bytecode()
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
    assert not sys.dont_write_bytecode


def test_garbage_is_collected_once_the_tests_are_known() -> None:
    """Catches: it was switched off for their collection, and stays so."""
    assert gc.isenabled()
    assert gc.get_freeze_count()
