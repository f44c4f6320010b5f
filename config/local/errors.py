"""The one error of the local commands. Must not import any other part of the project."""


class LocalError(RuntimeError):
    """Something about this machine that a person has to change; the message says what and how."""
