"""DNS rebinding: names whose answers change between two look-ups, from a name server of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django import Settings

from tests.unit.addresses.name_server import NameServer, Zone
from tests.unit.addresses.web_server import Server, redirect
from workers.addresses import AddressFailed, Deadline, open_url
from workers.addresses import http as addresses_http
from workers.vocabulary.errors import AddressRefused

pytestmark = pytest.mark.invariant


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    """On 127.0.0.1, which the operator allows; nothing else is."""
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = ["127.0.0.1/32"]
    server = Server()
    yield server
    server.close()


@pytest.fixture
def names() -> Iterator[Callable[[Zone], NameServer]]:
    started: list[NameServer] = []

    def start(zone: Zone) -> NameServer:
        started.append(NameServer(zone))
        return started[-1]

    yield start
    for item in started:
        item.close()


def get(url: str, names: NameServer, **options: Any) -> tuple[int, bytes]:
    with open_url(
        url, purpose="callback", deadline=Deadline(60), resolver=names.resolve, **options
    ) as answer:
        return answer.status, answer.body(100)


def test_the_second_answer_is_never_used(server: Server, names: Callable[[Zone], NameServer]) -> None:
    """First an allowed address, then another: one request is one question, and goes where that one said."""
    dns = names(lambda host, number: ["127.0.0.1"] if number == 0 else ["127.0.0.2"])
    assert get(server.url("/x", host="name.test"), dns) == (200, b"fine")
    assert dns.asked == ["name.test"]
    assert server.seen[0][1]["host"] == f"name.test:{server.port}"
    with pytest.raises(AddressRefused):
        get(server.url(host="name.test"), dns)
    assert len(server.seen) == 1


def test_a_name_that_was_public_when_it_was_submitted_is_judged_when_it_is_used(
    server: Server, names: Callable[[Zone], NameServer], settings: Settings
) -> None:
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = []
    dns = names(lambda host, number: ["93.184.216.34"] if number == 0 else ["127.0.0.1"])
    assert dns.resolve("name.test") == ["93.184.216.34"]
    with pytest.raises(AddressRefused, match="loopback"):
        get(server.url(host="name.test"), dns)
    assert server.seen == []


def test_a_public_and_an_internal_address_at_once_are_refused(
    server: Server, names: Callable[[Zone], NameServer], settings: Settings
) -> None:
    """Connecting to the second when the first fails would need no second look-up."""
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = []
    for found in (["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"]):
        dns = names(lambda host, number, found=found: found)  # type: ignore[misc]
        with pytest.raises(AddressRefused):
            get(server.url(host="name.test"), dns)
    assert server.seen == []


def test_a_redirect_to_a_name_that_turns_is_looked_up_and_judged_again(
    server: Server, names: Callable[[Zone], NameServer]
) -> None:
    server.answers["/go"] = redirect(server.url("/inside", host="name.test"))
    dns = names(lambda host, number: ["127.0.0.1"] if number == 0 else ["127.0.0.2"])
    with pytest.raises(AddressRefused):
        get(server.url("/go", host="name.test"), dns, redirects=3)
    assert [path for path, _ in server.seen] == ["/go"]
    assert dns.asked == ["name.test", "name.test"]


def test_of_very_many_addresses_a_few_are_tried(
    server: Server, names: Callable[[Zone], NameServer], settings: Settings
) -> None:
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = ["127.0.0.0/8"]
    dead = [f"127.0.1.{number}" for number in range(1, 60)]
    dns = names(lambda host, number: [*dead, "127.0.0.1"])
    with pytest.raises(AddressFailed, match="connection refused"):
        get(server.url(host="name.test"), dns)
    assert server.seen == []
    dns = names(lambda host, number: [*dead[: addresses_http.MAX_ADDRESSES - 1], "127.0.0.1"])
    assert get(server.url(host="name.test"), dns)[0] == 200
