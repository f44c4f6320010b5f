"""Who is at the other end of a connection: the peer's address, trusted networks, and a bucket per address.

Must not import views or models.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from django.conf import settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class BadNetwork(ValueError):
    """An entry of a setting is no network; the text says which and how it is written."""


@dataclass(frozen=True)
class TrustedNetwork:
    """Peers of ``network`` may act without credentials for ``tenants``, by default for the first of them."""

    network: Network
    tenants: tuple[str, ...]


@lru_cache(maxsize=8)
def trusted_networks(entries: tuple[str, ...]) -> tuple[TrustedNetwork, ...]:
    """GANTRY_TRUSTED_NETWORKS, the narrowest network first. Raises BadNetwork."""
    found = []
    for entry in entries:
        cidr, equals, names = entry.strip().partition("=")
        tenants = tuple(name for name in names.split("+") if name)
        if not equals or not tenants:
            raise BadNetwork(
                f"GANTRY_TRUSTED_NETWORKS: {entry!r} names no tenant: write 10.0.0.0/8=default, "
                "several tenants as 10.0.0.0/8=default+lab"
            )
        found.append(TrustedNetwork(_network(cidr, "GANTRY_TRUSTED_NETWORKS"), tenants))
    return tuple(sorted(found, key=lambda item: -item.network.prefixlen))


@lru_cache(maxsize=8)
def networks(entries: tuple[str, ...], setting: str) -> tuple[Network, ...]:
    """A list of CIDRs. Raises BadNetwork naming the setting."""
    return tuple(_network(entry, setting) for entry in entries)


def _network(text: str, setting: str) -> Network:
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise BadNetwork(
            f"{setting}: {text!r} is no network: {error}. Write one as 10.0.0.0/8 or fd00::/8"
        ) from None


@lru_cache(maxsize=4096)
def address(text: str) -> Address | None:
    """The address, an IPv4 one in its IPv6 clothes unwrapped; None for no address (a unix socket)."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def peer(meta: dict[str, Any]) -> str:
    """The peer's address as text: its own, or what the nearest trusted proxy reports of it.

    From X-Forwarded-For the rightmost address counts that is not itself a trusted proxy: what stands left
    of it was written by the client.
    """
    nearest = str(meta.get("REMOTE_ADDR") or "")
    forwarded = meta.get("HTTP_X_FORWARDED_FOR")
    if forwarded is None or not settings.GANTRY_TRUSTED_PROXIES:
        return nearest
    proxies = networks(tuple(settings.GANTRY_TRUSTED_PROXIES), "GANTRY_TRUSTED_PROXIES")
    hops = [hop.strip() for hop in str(forwarded).split(",")]
    while hops and _inside(nearest, proxies):
        nearest = hops.pop()
    return nearest


def household(meta: dict[str, Any]) -> str:
    """What a limit for an address is counted by: the peer's, of an IPv6 one its /64.

    Whoever has one IPv6 address has a network of 2^64 (RFC 6177), and would have a bucket for each.
    """
    text = peer(meta)
    found = address(text)
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else text


def _inside(text: str, ranges: tuple[Network, ...]) -> bool:
    found = address(text)
    return found is not None and any(found.version == item.version and found in item for item in ranges)


def trust(peer_address: str, tenant: str) -> str | None:
    """The tenant that a peer without credentials acts for; None when its network is not trusted with it.

    ``tenant`` is the one asked for, "" for none. With nothing asked for, the narrowest network decides.
    """
    if not settings.GANTRY_TRUSTED_NETWORKS:
        return None
    found = address(peer_address)
    if found is None:
        return None
    for entry in trusted_networks(tuple(settings.GANTRY_TRUSTED_NETWORKS)):
        if found.version != entry.network.version or found not in entry.network:
            continue
        if not tenant:
            return entry.tenants[0]
        if tenant in entry.tenants:
            return tenant
    return None


def is_trusted(peer_address: str) -> bool:
    """Is the peer in any trusted network, whatever tenant it asks for?"""
    return trust(peer_address, "") is not None


class Buckets:
    """A token bucket per key: ``burst`` at once, then ``per_second``. Per process and bounded.

    Two threads that race may let one more through: it slows guessing down, it guards no invariant.
    """

    _MAX: Final = 10_000

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._rate = per_second
        self._items: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """0 when one was left and is now taken, else the seconds until the next one."""
        now = time.monotonic()
        left = self._left(key, now)
        if left < 1:
            return (1 - left) / self._rate
        if len(self._items) >= self._MAX:
            for old in list(self._items)[: self._MAX // 10]:
                self._items.pop(old, None)
        self._items[key] = (left - 1, now)
        return 0.0

    def _left(self, key: str, now: float) -> float:
        left, at = self._items.get(key, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)

    def forget(self, key: str) -> None:
        """Start afresh for a key."""
        self._items.pop(key, None)
