"""How a file is cut for S3."""

from __future__ import annotations

import pytest

from workers.storage.trees.s3.writing import PART, part_size


@pytest.mark.parametrize("size", [-1, 0, 1, PART, 80 << 30, 5 << 40])
def test_parts_are_few_and_not_too_small(size: int) -> None:
    assert part_size(size) >= PART
    assert size <= 10_000 * part_size(size)
