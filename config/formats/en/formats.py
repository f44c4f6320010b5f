"""Times to the second, and short enough for a column.

Django asks its own English formats before the settings: a DATETIME_FORMAT there changes nothing.
"""

from __future__ import annotations

DATETIME_FORMAT = "Y-m-d H:i:s"
