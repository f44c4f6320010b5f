"""Where capacity comes from, by type: declared pools (queues.pools), or an external system that is asked.

``base`` is the protocol, one module for each system beside it; ``refresh`` asks and writes what they say.
"""
