"""What the queues family stores."""

from queues.models.capacity import Aggregate, Booking, Host, HostResource, OwnerHolding, TypePolicy
from queues.models.entries import Entry, Queue, Tombstone, WaitingClass
from queues.models.estimates import Calibration, Told

__all__ = [
    "Aggregate",
    "Booking",
    "Calibration",
    "Entry",
    "Host",
    "HostResource",
    "OwnerHolding",
    "Queue",
    "Told",
    "Tombstone",
    "TypePolicy",
    "WaitingClass",
]
