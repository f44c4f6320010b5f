"""What the queues family stores."""

from queues.models.capacity import Aggregate, Booking, Host, HostResource, OwnerHolding, TypePolicy
from queues.models.entries import Entry, Queue, Tombstone, WaitingClass

__all__ = [
    "Aggregate",
    "Booking",
    "Entry",
    "Host",
    "HostResource",
    "OwnerHolding",
    "Queue",
    "Tombstone",
    "TypePolicy",
    "WaitingClass",
]
