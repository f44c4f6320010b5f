"""Storages that runs fetch from and upload to: a protocol, and a module for each kind.

Only here their SDKs.
"""
