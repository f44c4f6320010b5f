"""The one guard for every address that a client can name: uris, callbacks, and what later families add.

    guard     is this URL well formed, and may these resolved addresses be reached? Pure but for the settings
    http      an HTTP request that connects to the checked address and nowhere else

Sources: shared contract, "Addresses a client can name"; reliability, SSRF. Must not import models, services
or runtimes.
"""

from workers.addresses.guard import Target, allowed_networks, parse, permitted, refusal
from workers.addresses.http import AddressFailed, Deadline, Response, open_url, system_resolver

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
