"""How a site is reached and as whom, and what can be done there. Pure; travels as JSON in orders."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self


class Protocol(StrEnum):
    """How an endpoint is spoken to. SSH is SFTP on the wire."""

    LOCAL = "LOCAL"  # a folder of the node itself
    SFTP = "SFTP"
    GRIDFTP = "GRIDFTP"
    WEBDAV = "WEBDAV"
    S3 = "S3"
    SWIFT = "SWIFT"
    XROOTD = "XROOTD"


class Act(StrEnum):
    """What is done to one element."""

    LIST = "LIST"
    COPY = "COPY"
    REMOVE = "REMOVE"
    RENAME = "RENAME"
    MKDIR = "MKDIR"


@dataclass(frozen=True, kw_only=True)
class _Stored:
    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read it back; keys that a newer release wrote are ignored."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, kw_only=True)
class Credentials(_Stored):
    """Who we are at a site. Never logged; empty where there is none.

    ``username`` also the access key (S3) or ``account:user`` / ``project:user`` (Swift); ``password`` also
    the secret key; ``key`` a private key in PEM or OpenSSH form (SFTP); ``proxy`` certificate, key and
    chain in PEM (GridFTP, XRootD).
    """

    username: str = ""
    password: str = ""
    key: str = ""
    proxy: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r})"

    def secrets(self) -> list[str]:
        """What must never be seen."""
        return [text for text in (self.password, self.key, self.proxy) if text]


@dataclass(frozen=True, kw_only=True)
class Reach(_Stored):
    """One endpoint of a site, and as whom it is spoken to.

    ``path`` is where the site begins at this endpoint (LOCAL: a folder; S3: bucket[/prefix]; Swift:
    container[/prefix]; WEBDAV: a path below the host). ``port`` 0 is the protocol's own. ``options`` holds
    what a protocol needs beside: ``{"scheme": "http"}`` (WEBDAV, S3, SWIFT: https by default), ``auth_url``,
    ``auth_version``, ``tenant``, ``user_domain`` and ``project_domain`` (SWIFT, as in ``staging.Store``),
    ``region`` (S3). ``guarded``: its addresses are a client's word, so the guard of addresses asks about
    them.
    """

    protocol: str
    host: str = ""
    port: int = 0
    path: str = "/"
    default_path: str = "/"
    site_id: int = 0
    site: str = ""
    cas: tuple[str, ...] = ()
    host_keys: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    guarded: bool = True
    credentials: Credentials = field(default_factory=Credentials)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        found = super().from_json({**data, "credentials": None})
        return cls(
            **{
                **{item.name: getattr(found, item.name) for item in fields(cls)},
                "cas": tuple(found.cas),
                "host_keys": tuple(found.host_keys),
                "credentials": Credentials.from_json(data.get("credentials") or {}),
            }
        )

    @property
    def shown(self) -> str:
        """For people: ``sftp://host:22/base``; never a secret."""
        where = f"{self.host}:{self.port}" if self.port else self.host
        return f"{self.protocol.lower()}://{where}/{self.path.lstrip('/')}"
