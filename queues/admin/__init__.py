"""Operators' pages of the queues family: what waits and in which order, what there is, policies,
quotas, how right estimates are."""

from queues.admin import capacity, entries, estimates, quotas

__all__ = ["capacity", "entries", "estimates", "quotas"]
