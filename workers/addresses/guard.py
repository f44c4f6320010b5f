"""Which resolved addresses may be reached. Resolves nothing, sends nothing; asks the settings, and the kernel
which addresses are this machine's own."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from workers.addresses.urls import Address
from workers.vocabulary.errors import AddressRefused

log = structlog.get_logger(__name__)

Network = IPv4Network | IPv6Network

#: What an address is for; each has an allow-list of its own.
PURPOSES: Final = ("uri", "callback", "swift", "site", "queue", "registry")

#: Cloud metadata services: they hand out the machine's own credentials. An allow-list opens them only by an
#: entry for exactly this address.
METADATA: Final = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Google, Azure, OpenStack and most others
        "169.254.170.2",  # AWS containers
        "169.254.170.23",
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure, a public address
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)

#: IANA's special-purpose registries and what Python's ipaddress calls global nevertheless.
_DENIED: Final[list[tuple[Network, str]]] = [
    (ip_network(text), why)
    for text, why in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "a provider's internal network"),
        ("127.0.0.0/8", "this machine (loopback)"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.88.99.0/24", "a relay"),
        ("192.168.0.0/16", "a private network"),
        ("198.18.0.0/15", "reserved for measurements"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "this host"),
        ("::1/128", "this machine (loopback)"),
        ("64:ff9b:1::/48", "a private network (translated)"),
        ("100::/64", "reserved"),
        ("2001::/23", "reserved (tunnels)"),
        ("2001:db8::/32", "reserved for documentation"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "reserved"),
        ("fc00::/7", "a private network"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "a private network (site-local)"),
        ("ff00::/8", "multicast"),
    )
]
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
_NAT64: Final = ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ip_network("::/96")
#: Third quarter of an ISATAP address (RFC 5214), whose last quarter is an IPv4 address.
_ISATAP: Final = {0x00005EFE: True, 0x02005EFE: True}


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64 or address in _COMPATIBLE or _ISATAP.get(int(address) >> 32 & 0xFFFFFFFF):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def unwrapped(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one (::ffff:a.b.c.d) as what it is, one with a zone (%eth0)
    without it; others as they are."""
    if not isinstance(address, IPv6Address):
        return address
    if address.scope_id is not None:
        address = IPv6Address(int(address))
    return address if address.ipv4_mapped is None else address.ipv4_mapped


def refusal(address: Address) -> str | None:
    """Why the address is not reached unless an operator allows it; None when it is an ordinary public one."""
    address = unwrapped(address)
    if address in METADATA:
        return "a cloud's metadata service"
    for network, why in _DENIED:
        if address in network:
            return why
    if isinstance(address, IPv6Address):
        for inner in _embedded(address):
            if (why_not := refusal(inner)) is not None:
                return f"{why_not}, wrapped in IPv6"
        if address not in _GLOBAL_UNICAST and address not in _NAT64:
            return "reserved"
        if address.sixtofour is not None:
            return None  # judged by what it wraps; patch releases of Python differ about the wrapping itself
    if not address.is_global or address.is_multicast:
        return "not a public address"
    return None


def own(address: Address) -> bool:
    """Is it one of this machine's own? Sends nothing: towards itself a machine speaks from that very address.

    Not asked by binding to it, which net.ipv4.ip_nonlocal_bind permits for any.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return unwrapped(ip_address(probe.getsockname()[0])) == address
    except OSError:
        return False  # no way leads there


@lru_cache(maxsize=16)
def _networks(setting: str, texts: tuple[str, ...]) -> tuple[Network, ...]:
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text.strip()))
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{setting}: {text!r} is no network ({error}); write 10.1.0.0/16"
            ) from None
    return tuple(networks)


def setting_of(purpose: str) -> str:
    """Name of the setting that opens networks for a purpose, one of ``PURPOSES``."""
    return f"GANTRY_{purpose.upper()}_ALLOW_NETWORKS"


def allowed_networks(purpose: str) -> tuple[Network, ...]:
    """The networks that the operator has opened. ImproperlyConfigured names the setting and the bad entry."""
    setting = setting_of(purpose)
    return _networks(setting, tuple(getattr(settings, setting)))


def _allowed(address: Address, networks: Iterable[Network]) -> bool:
    """Metadata services need an entry of their own: nobody who opens 0.0.0.0/0 means them."""
    return any(
        address in network and (address not in METADATA or network.num_addresses == 1) for network in networks
    )


def permitted(host: str, found: Iterable[str], purpose: str) -> list[Address]:
    """Those of the resolved addresses that may be connected to, in their order; AddressRefused if none.

    A name that also leads to a refused address is refused as a whole, unless the operator has allowed one of
    its addresses: then the others are left out.
    """
    networks = allowed_networks(purpose)
    good: list[Address] = []
    vouched, denied = False, ""
    for address in (unwrapped(ip_address(text)) for text in found):
        allowed = _allowed(address, networks)
        why = None if allowed else refusal(address) or ("this machine" if own(address) else None)
        if why is None:
            good.append(address)
            vouched = vouched or allowed
        else:
            denied = why
            log.info("address.refused", host=host, address=str(address), why=why, purpose=purpose)
    if good and (vouched or not denied):
        return good
    # The address itself is for the log only: clients need not learn what internal names resolve to.
    raise AddressRefused(
        f"{host} is refused: it leads to {denied or 'no address'}. "
        f"An operator can open its network with {setting_of(purpose)}"
    )
