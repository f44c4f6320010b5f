"""What a run fetches before it starts and stores when it has succeeded. Pure; stands in its spec as JSON.

A place in a storage is a URL whose path is percent-encoded: ``swift://<container>/<object>`` in the storage
that ``store`` numbers (an index into the spec's ``stores``), or ``http(s)://...`` without one. Paths in the
run's working folder are relative and use ``/``; folders in them are made when they are missing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

#: Stands for whatever is secret: user name and password of an address, the key of a store.
HIDDEN = "***"


@dataclass(frozen=True, kw_only=True)
class _Stored:
    def to_json(self) -> dict[str, Any]:
        """The JSON object in a spec."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read it back; keys that a newer release wrote are ignored."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, kw_only=True)
class Store(_Stored):
    """How an object storage is reached, and as whom.

    ``auth_version`` is "1" (tempauth), "2" or "3" (Keystone), "" = told by ``auth_url``. ``user`` may be
    account:user with version 1; without a colon the account is ``tenant``. ``key`` is the password; in a
    stored spec it is ``HIDDEN`` and kept as a secret (``workers.runs.run_secrets``).
    """

    kind: str = "swift"
    auth_url: str
    auth_version: str = ""
    user: str
    tenant: str
    user_domain: str = "Default"
    project_domain: str = "Default"
    key: str = HIDDEN

    def __repr__(self) -> str:
        return f"Store({self.kind}, {self.auth_url!r}, {self.user!r}, {self.tenant!r})"


@dataclass(frozen=True, kw_only=True)
class Input(_Stored):
    """A file that is fetched into the working folder before the run starts.

    ``checksum`` ("md5:<hex>") and ``size`` in bytes are what is expected; empty and None = whatever is there.
    ``wait_until`` (Unix seconds): until then the run waits for an input that is not there yet.
    """

    url: str
    path: str
    store: int | None = None
    checksum: str = ""
    size: int | None = None
    wait_until: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Output(_Stored):
    """A file, or what the run wrote to its standard output, that is stored when it ended with exit code 0.

    ``path`` is the file in the working folder; empty with ``stream`` "stdout", which is then kept whole on
    the node whatever the log's cap. ``make_container``: a missing container is made. ``content_type`` empty:
    it is guessed from the object's name.
    """

    url: str
    path: str = ""
    stream: str = ""
    store: int | None = None
    content_type: str = ""
    make_container: bool = False
