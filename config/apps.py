"""Django app of the project itself: registers the system checks and what OpenAPI needs to know."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "config"
    verbose_name = "Gantry"

    def ready(self) -> None:
        from config import checks, openapi  # noqa: F401  openapi registers itself by being imported

        checks.registered()
