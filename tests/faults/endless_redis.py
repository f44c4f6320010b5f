"""Settings of an API whose every wait for Redis lasts an hour: what it answers meanwhile waited for none."""

from __future__ import annotations

from config.http import throttles
from config.settings import *  # noqa: F403

REDIS_TIMEOUT_S = 3600.0
vars(throttles)["_PATIENCE_S"] = 3600.0
