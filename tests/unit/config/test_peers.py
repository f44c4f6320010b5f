"""Addresses, trusted networks and buckets: who is at the other end."""

from __future__ import annotations

import pytest

from config.http import peers


@pytest.fixture
def behind_proxy(settings: object) -> None:
    settings.GANTRY_TRUSTED_PROXIES = ["10.0.0.0/8", "127.0.0.1/32"]  # type: ignore[attr-defined]


def test_peer_is_the_connections_own_address_without_a_trusted_proxy() -> None:
    assert peers.peer({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "10.1.1.1"}) == "192.0.2.1"


@pytest.mark.parametrize(
    ("remote", "forwarded", "found"),
    [
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "1.2.3.4, 198.51.100.7, 10.2.2.2", "198.51.100.7"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("127.0.0.1", "10.9.9.9", "10.9.9.9"),
        ("127.0.0.1", "nonsense", "nonsense"),
    ],
)
def test_peer_behind_proxies_is_the_rightmost_stranger(
    behind_proxy: None, remote: str, forwarded: str, found: str
) -> None:
    assert peers.peer({"REMOTE_ADDR": remote, "HTTP_X_FORWARDED_FOR": forwarded}) == found


@pytest.mark.parametrize(
    ("address", "asked", "tenant"),
    [
        ("10.1.2.3", "", "lab"),
        ("10.1.2.3", "ops", "ops"),
        ("10.9.9.9", "", "default"),
        ("10.9.9.9", "ops", None),
        ("::ffff:10.9.9.9", "", "default"),
        ("fd00::5", "", "six"),
        ("192.0.2.1", "", None),
        ("", "", None),
        ("/run/socket", "default", None),
    ],
)
def test_trust_takes_the_narrowest_network_that_names_the_tenant(
    settings: object, address: str, asked: str, tenant: str | None
) -> None:
    settings.GANTRY_TRUSTED_NETWORKS = [  # type: ignore[attr-defined]
        "10.0.0.0/8=default+other",
        "10.1.0.0/16=lab+ops",
        "fd00::/8=six",
    ]
    assert peers.trust(address, asked) == tenant


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("10.0.0.0/8", "names no tenant"),
        ("10.0.0.0/8=", "names no tenant"),
        ("10.0.0.1/8=default", "has host bits set"),
        ("everywhere=default", "'everywhere' is no network"),
    ],
)
def test_an_unreadable_entry_says_what_is_wrong_and_how_it_is_written(entry: str, says: str) -> None:
    with pytest.raises(peers.BadNetwork, match=says) as caught:
        peers.trusted_networks((entry,))
    assert "GANTRY_TRUSTED_NETWORKS" in str(caught.value)


def test_bucket_lets_a_burst_through_then_makes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("config.http.peers.time.monotonic", lambda: now[0])
    buckets = peers.Buckets(burst=2, per_second=0.5)
    assert [buckets.take("a"), buckets.take("a")] == [0.0, 0.0]
    assert buckets.take("a") == pytest.approx(2.0)
    assert buckets.take("b") == 0.0
    now[0] += 2.0
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0
    buckets.forget("a")
    assert buckets.take("a") == 0.0


def test_buckets_stay_bounded() -> None:
    buckets = peers.Buckets(burst=1, per_second=1)
    for number in range(30_000):
        buckets.take(str(number))
    assert len(buckets._items) <= 10_000


@pytest.mark.parametrize(
    ("remote", "found"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb:1:2:3", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_is_one_peer_for_limits(remote: str, found: str) -> None:
    assert peers.household({"REMOTE_ADDR": remote}) == found
