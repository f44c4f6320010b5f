"""Which URLs are well formed, and which addresses may be reached. Resolves nothing, connects nowhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from workers.vocabulary.errors import AddressRefused, InvalidInput

log = structlog.get_logger(__name__)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: What an address is for; each has an allow-list of its own.
PURPOSES: Final = ("uri", "callback", "swift", "site")

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
LONGEST_URL: Final = 8192

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

#: Ports on which no web server is found, but services that take a request's lines for commands of their own
#: (the "bad ports" of the Fetch standard, and stores of the same kind).
_NO_WEB_PORTS: Final = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103),
        *(104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513),
        *(514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719),
        *(1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669),
        *(6679, 6697, 10080, 11211),
    )
)

_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
#: [IPv6 address] or name, and a port. Not urlsplit's own reading, which ignores what stands beside brackets.
_PLACE = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::([0-9]{0,5}))?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True)
class Target:
    """A URL, taken apart. ``host`` is ASCII, lower case, without brackets or final dot."""

    scheme: str
    host: str
    port: int
    #: Path and query, percent-encoded.
    path: str
    #: Value of an Authorization header, from the URL's user name and password.
    authorization: str | None = field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For messages and logs: without user name, password and query, which may be secrets."""
        path, mark, _ = self.path.partition("?")
        return f"{self.scheme}://{self.authority}{path[:200]}{'?...' if mark else ''}"

    @property
    def literal(self) -> Address | None:
        """The host, if it is an address and no name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


def parse(
    url: str,
    *,
    field: str | None = None,
    schemes: Sequence[str] = ("http", "https"),
    credentials: bool = False,
) -> Target:
    """Take a URL apart, without any look-up. InvalidInput (naming ``field``) says what is wrong with it.

    ``credentials``: a user name and password in it are allowed and become an Authorization header.
    """

    def wrong(what: str) -> InvalidInput:
        return InvalidInput(f"{field or 'address'}: {what}", field=field)

    if len(url) > LONGEST_URL:
        raise wrong(f"it is longer than {LONGEST_URL} characters")
    if _FORBIDDEN.search(url):
        raise wrong("it has a space, a backslash or a control character in it: percent-encode them")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise wrong("it is not a URL: look at its host and port") from None
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        raise wrong(f"it has to begin with {' or '.join(f'{name}://' for name in schemes)}")
    userinfo, at, place = parts.netloc.rpartition("@")
    if "@" in userinfo:
        raise wrong("it has more than one @ before the path")
    if at and not credentials:
        raise wrong("leave the user name and password out of it")
    match = _PLACE.fullmatch(place)
    if match is None:
        # With an @ further on, this may be a password that has a slash, ? or # in it: it is not quoted.
        hidden = "@" in parts.path + parts.query + parts.fragment
        raise wrong(
            "what stands before the path is not a host (percent-encode / ? # in a user name or password)"
            if hidden
            else f"{place[:60]!r} is not a host, or a host with a port"
        )
    host = _named(match[2], wrong) if match[1] is None else _bracketed(match[1], wrong)
    port = int(match[3]) if match[3] else DEFAULT_PORTS.get(scheme, 0)
    if not 0 < port < 65536:
        raise wrong(f"port {port} does not exist")
    if port in _NO_WEB_PORTS and scheme in DEFAULT_PORTS:
        raise wrong(f"port {port} is another service's, not a web server's")
    path = quote(parts.path or "/", safe="%/:=&~+!$,;'@()*") + (
        "?" + quote(parts.query, safe="%/:=&?~+!$,;'@()*[]") if parts.query else ""
    )
    basic = base64.b64encode(unquote_to_bytes(userinfo)).decode() if userinfo else ""
    return Target(scheme, host, port, path, f"Basic {basic}" if basic else None)


def _bracketed(host: str, wrong: Callable[[str], InvalidInput]) -> str:
    if "%" in host:
        raise wrong("it names a network interface in its address: leave out the % and what follows")
    try:
        return str(IPv6Address(host))
    except ValueError:
        raise wrong(f"[{host[:60]}] is not an IPv6 address") from None


def _named(host: str, wrong: Callable[[str], InvalidInput]) -> str:
    """A host name or an IPv4 address in its one usual form."""
    if not host:
        raise wrong("it has no host")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise wrong("its host is not a name that can be looked up") from None
    host = host.lower().removesuffix(".")
    if not _HOST.fullmatch(host):
        raise wrong(f"its host {host[:60]!r} is not a name that can be looked up")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise wrong(f"write its host {host[:60]} as four decimal numbers, like 192.0.2.7") from None
    return host


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
        why = None if allowed else refusal(address)
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
