"""Commands of manage.py for operators; ``speaking`` is how they answer people and programs."""
