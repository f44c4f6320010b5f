"""The one guard for every address that a client can name: uris, callbacks, and what later families add.

    urls      is this URL well formed? Pure
    guard     may these resolved addresses be reached? Pure but for the settings
    http      an HTTP request that connects to the checked address and nowhere else
    sessions  the same for SDKs that speak through `requests` (imported by who needs it: it loads requests)

Sources: shared contract, "Addresses a client can name"; reliability, SSRF. Must not import models, services
or runtimes.
"""

from workers.addresses.guard import allowed_networks, permitted, refusal
from workers.addresses.http import AddressFailed, Deadline, Response, open_url, system_resolver
from workers.addresses.urls import Target, parse

__all__ = [
    "AddressFailed",
    "Deadline",
    "Response",
    "Target",
    "allowed_networks",
    "open_url",
    "parse",
    "permitted",
    "refusal",
    "system_resolver",
]
