"""Which URLs are well formed, and what they are made of. Pure: asks no settings. Must not import guard."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from workers.vocabulary.errors import InvalidInput

Address = IPv4Address | IPv6Address

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
LONGEST_URL: Final = 8192

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
        # Not quoted: it may be a password, before a slash, ? or # of its own or a host that was forgotten.
        hidden = "@" in parts.path + parts.query + parts.fragment
        hint = " (percent-encode / ? # in a user name or password)" if hidden else ", or a host with a port"
        raise wrong(f"what stands before the path is not a host{hint}")
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
        raise wrong("what stands in brackets is not an IPv6 address") from None


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
