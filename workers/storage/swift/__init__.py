"""OpenStack Swift, with swiftclient; its own authentication (v1) and Keystone's v2.0 and v3 by keystoneauth.

    errors      what is said when something fails, and that SDKs log nothing
    auth        tokens, and which version an address speaks
    connection  a guarded connection with a token that is renewed
    names       of segments
    listing     containers and manifests
    reading     a content that is checked while it passes
    writing     an upload as one object
    segments    an upload in segments, and their manifest
    storage     the protocol of workers.storage.base

Only here is swiftclient imported.
"""

from workers.storage.swift.storage import SwiftStorage, check

__all__ = ["SwiftStorage", "check"]
