"""Storages that runs fetch from and upload to; only here their SDKs.

base     the protocol
opening  the storage of an address
http     http(s) addresses, for reading
swift/   OpenStack Swift
"""

from workers.storage.opening import open_storage, path_of

__all__ = ["open_storage", "path_of"]
