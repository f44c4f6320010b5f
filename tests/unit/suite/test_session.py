"""What the suite's processes have from the session that starts them."""

from __future__ import annotations

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
