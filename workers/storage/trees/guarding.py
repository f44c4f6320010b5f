"""Where a site's host may be connected to: looked up once for each connection, checked, then connected to as
checked. For SDKs that open their connections by a hook of ours (httpx, urllib3); Host and TLS name stay those
of the site."""

from __future__ import annotations

import ssl
from functools import lru_cache
from ipaddress import ip_address

from workers.addresses import Deadline, parse, permitted, system_resolver
from workers.addresses.http import CONNECT_S, MAX_ADDRESSES, look_up, tls_context


def reachable(host: str, port: int, *, guarded: bool, scheme: str = "http") -> list[str]:
    """The addresses to try, in their order. Raises AddressRefused, InvalidInput (a port that is another
    service's), OSError (no such name)."""
    host = host.strip("[]")
    place = f"[{host}]" if ":" in host else host
    if guarded:
        host = parse(f"{scheme}://{place}:{port}/").host
    try:
        found = [str(ip_address(host))]
    except ValueError:
        found = look_up(system_resolver, host, Deadline(CONNECT_S))
    if guarded:
        found = [str(address) for address in permitted(host, found, "site")]
    return found[:MAX_ADDRESSES]


@lru_cache(maxsize=16)
def trusting(cas: tuple[str, ...]) -> ssl.SSLContext:
    """TLS for those authorities (PEM), else for those of the machine. Raises ssl.SSLError where they are
    none."""
    return tls_context("\n".join(cas))
