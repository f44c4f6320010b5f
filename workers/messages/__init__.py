"""What goes through the broker: messages only wake, they carry ids and decide nothing.

    doorbell   there may be something to do: coalesced rings, heard by agents and deliverers
    handover   what a process has claimed, through its own Celery queue or, when the broker is slow, directly

Knows the vocabulary only.
"""
