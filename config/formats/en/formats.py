"""Times to the second, and short enough for a column. A DATETIME_FORMAT in the settings would not be asked."""

from __future__ import annotations

DATETIME_FORMAT = "Y-m-d H:i:s"
