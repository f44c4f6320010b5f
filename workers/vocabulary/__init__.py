"""Words that everybody uses: states, specifications, errors, leases, families. The lowest room.

Must not import anything of the project.
"""
