"""Images as a node has them: one call each for what comes and for what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine import images
from workers.runtimes.engine.client import Engine
from workers.runtimes.engine.image import Image


def as_node(settings: Any, folder: Path, retry_s: float) -> None:
    """This test is a node, with its ledger below ``folder``; ``retry_s``: for a registry that is away."""
    settings.GANTRY_NODE_DIR = folder / "node"
    settings.GANTRY_REGISTRY_RETRY_S = retry_s


def ensure(engine: Engine, image: str, **given: Any) -> Image:
    """``images.ensure`` without credentials, asking the registry, for a run that nobody cancels."""
    asked: dict[str, Any] = {
        "pull": "always",
        "credentials": None,
        "tell": lambda words: None,
        "cancelled": lambda: False,
        "deadline_s": 300.0,
    }
    return images.ensure(engine, image, **{**asked, **given})


def refused(engine: Engine, image: str, **given: Any) -> PrepareFailed:
    """The same where it fails."""
    with pytest.raises(PrepareFailed) as caught:
        ensure(engine, image, **given)
    return caught.value
