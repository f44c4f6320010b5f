"""Who owns work, and what they may: tenants, users, tokens, policies, limits, records of what was done.

Must not import what runs work: runs, scheduling, runtimes, the node's side.
"""
