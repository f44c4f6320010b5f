"""Batches of file operations between sites (workqueue family).

runtime  the protocol, for batches: each is a process of the mover
output   the mover's own words for the log, its report for the family's books
mover/   the process itself
"""
