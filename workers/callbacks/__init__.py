"""Callbacks: rows that a transition owes are written, signed, sent and decided here.

    outbox     writes them, in the transaction that owes them
    schedule   what an answer means and when the next try is due; pure
    signing    Standard Webhooks: a tenant's secrets, headers
    sending    one HTTP request under the guard
    rows       claiming receivers, recording attempts: the SQL
    turns      serving one leased receiver: send, decide, record
    deliverer  the process: lanes, hand-over, heartbeat
    operations what the API and the admin do: replay, enable, secrets, test

Must not import families, and nothing of the engine above it.
"""
