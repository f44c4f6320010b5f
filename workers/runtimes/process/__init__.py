"""Commands as processes of the node.

runtime  the protocol, for commands
"""
