"""What lives in a worker process: from the claim to the written outcome.

    process       puts a node's worker together, for ``manage.py node``
    agent         the loop: hears rings, claims, hands over, executes
    registration  the node's row: capacity, heartbeat, incarnation
    adoption      takes over what an earlier worker left, or nobody watches
    keeper        keeps the leases of what runs
    clearance     what a tenant's policy says now, asked right before a start
    attempt/      one attempt, from its claim to its end: runner, storing, outcomes, watch
    scribe        writes what the runners have seen, in groups
    questions     the other end of ``workers.asking``
    orphans       what is on this node and nobody's any more

Must not import the doors (api, admin, management), the face or families.
"""
