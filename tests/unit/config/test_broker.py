"""The broker's password: used to connect, told to nobody."""

from __future__ import annotations

import pytest
from kombu import Connection

from config.celery import app

PASSWORD = "s3cret-of-redis"


@pytest.mark.parametrize(
    "url", [f"redis+socket://:{PASSWORD}@/tmp/redis.sock?virtual_host=3", f"redis://:{PASSWORD}@h:1/3"]
)
def test_what_a_connection_tells_of_itself_has_no_password(url: str) -> None:
    """Celery's ``stats`` is ``info()`` without its password; Flower shows that."""
    connection = app.amqp.Connection(url)
    told = {name: value for name, value in connection.info().items() if name != "password"}
    assert PASSWORD not in repr(told)
    assert PASSWORD not in connection.as_uri()
    assert PASSWORD in connection.as_uri(include_password=True), "Flower itself connects by it"
    assert connection.clone().as_uri(include_password=True) == connection.as_uri(include_password=True)


def test_the_plain_one_tells_it() -> None:
    """Why there is a class of ours: else it may go."""
    plain = Connection(f"redis+socket://:{PASSWORD}@/tmp/redis.sock")
    assert PASSWORD in plain.info()["hostname"]
