"""Commands as processes of the node.

runtime  the protocol, for commands
client   the worker's side of the resident launcher: start, stop, ask, wait
link     starting a launcher, and one connection to it
records  what passes between the two, as typed records
"""
