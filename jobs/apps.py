"""Django app of the jobs families: saved jobs (``jobs.saved``) and runtask (``jobs.runtask``)."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"
    verbose_name = "Jobs"
