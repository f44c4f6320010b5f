"""Operators' pages of the queues family: what waits and in which order, what there is, policies, quotas."""

from queues.admin import capacity, entries

__all__ = ["capacity", "entries"]
