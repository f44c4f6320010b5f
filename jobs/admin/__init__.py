"""Operators' pages of the jobs app; Django finds this package, which imports the pages of each dialect."""

from jobs.admin import runtask, saved

__all__ = ["runtask", "saved"]
