"""The Django project. The Celery application is config.celery.app; the web process does without it."""
