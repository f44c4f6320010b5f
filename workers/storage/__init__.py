"""Storages that runs fetch from and upload to, and the trees of sites; only here their SDKs.

base     the protocol
opening  the storage of an address
http     http(s) addresses, for reading
swift/   OpenStack Swift
trees/   sites: file operations between them

Nothing is loaded here: a mover that needs one tree must not pay for the rest.
"""
