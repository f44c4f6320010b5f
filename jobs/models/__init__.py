"""The tables of the jobs app, one module per dialect."""

from jobs.models.runtask import RuntaskDefinition, RuntaskJob
from jobs.models.saved import Executor, Job, Target

__all__ = ["Executor", "Job", "RuntaskDefinition", "RuntaskJob", "Target"]
