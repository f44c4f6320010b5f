"""Connections to the broker that do not tell its password: Celery's ``stats`` and so Flower show ``info()``.

Of a unix socket the whole URL, password included, is the host name there. Used by name:
``Celery(amqp=...)``. Must not import the engine.
"""

from __future__ import annotations

from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection
from kombu.utils.url import maybe_sanitize_url


class QuietConnection(Connection):
    """A connection whose description has asterisks for the password, wherever it stands."""

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = super().info()
        found["hostname"] = maybe_sanitize_url(found.get("hostname") or "")
        return found


class QuietAmqp(AMQP):
    """Makes such connections."""

    Connection = QuietConnection
    BrokerConnection = QuietConnection
