"""Django app of the project itself: registers the system checks."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "config"
    verbose_name = "Gantry"

    def ready(self) -> None:
        from config import checks  # models are loaded now, not before

        checks.registered()
