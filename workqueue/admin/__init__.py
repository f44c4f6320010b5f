"""Operators' pages of the workqueue: sites with limits, bans, links; jobs with what runs and what waits."""

from workqueue.admin import jobs, sites

__all__ = ["jobs", "sites"]
