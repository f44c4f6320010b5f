"""What clients send to register jobs: read into a typed value, or refused naming field and fix. Pure.

Only the documented fields count; everything else has no effect. Source: contract page 40, "POST fields".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from workers.vocabulary.errors import InvalidInput
from workqueue import fields, paths
from workqueue.jobs import options
from workqueue.models.jobs import Type

PATH_MOST: Final = 65_536
PRIORITY: Final = 5
MAX_TRIES: Final = 2
MOST_TRIES: Final = 100
#: Documented numbers of protocols.
PROTOCOLS: Final[Mapping[int, str]] = {0: "GRIDFTP", 1: "SSH", 2: "DUMMY"}
#: Name -> the name under which it is known: the documented ones, and ours in addition.
NAMES: Final[Mapping[str, str]] = {
    **{name: name for name in (*PROTOCOLS.values(), "LOCAL", "WEBDAV", "S3", "SWIFT", "XROOTD")},
    "SFTP": "SSH",
}
_TWO_PATHS: Final = (Type.COPY, Type.RENAME)


@dataclass(frozen=True)
class JobRequest:
    """A job as a client wants it; paths as sent. ``dst_siteid``: for COPY and RENAME, else None."""

    type: Type
    src_siteid: int
    dst_siteid: int | None
    src_filepath: str
    dst_filepath: str | None
    escaped: bool
    extra_opts: dict[str, Any]
    priority: int
    protocol: str
    max_tries: int


def parse(body: Mapping[str, Any], kind: Type | None = None) -> JobRequest:
    """The body of a POST; ``kind``: what the path says, None: the body's ``type`` does."""
    kind = _type(body) if kind is None else kind
    src_siteid = _site(body, "src_siteid")
    extra_opts = options.check(body.get("extra_opts"))
    escaped = extra_opts.get("escaped") is True
    src = _path(body, "src_filepath", escaped)
    dst = _path(body, "dst_filepath", escaped) if kind in _TWO_PATHS else None
    dst_siteid = _site(body, "dst_siteid") if kind is Type.COPY else None
    priority = fields.integer(body, "priority", 0, 9)
    max_tries = fields.integer(body, "max_tries", 1, MOST_TRIES)
    return JobRequest(
        type=kind,
        src_siteid=src_siteid,
        dst_siteid=src_siteid if kind is Type.RENAME else dst_siteid,
        src_filepath=src,
        dst_filepath=dst,
        escaped=escaped,
        extra_opts=extra_opts,
        priority=PRIORITY if priority is None else priority,
        protocol=_protocol(body),
        max_tries=MAX_TRIES if max_tries is None else max_tries,
    )


def refuse_root(wanted: JobRequest, default_path: str) -> None:
    """A site's root is not removed, as far as the path can tell; else the REMOVE itself refuses."""
    if wanted.type is Type.REMOVE and paths.is_root(
        wanted.src_filepath, default_path, escaped=wanted.escaped
    ):
        raise InvalidInput(
            "src_filepath is the root of the site, which is never removed: name what lies below it",
            field="src_filepath",
        )


def _type(body: Mapping[str, Any]) -> Type:
    given = body.get("type")
    if given is None:
        raise InvalidInput(f"type is missing: {_types()}", field="type")
    number = fields.whole(given)
    try:
        if number is not None:
            return Type(number)
        return Type[str(given).upper()] if isinstance(given, str) else Type(-1)
    except (ValueError, KeyError):
        raise InvalidInput(f"type must be {_types()}", field="type") from None


def _types() -> str:
    return "one of " + ", ".join(f"{kind.value} ({kind.name})" for kind in Type)


def _site(body: Mapping[str, Any], name: str) -> int:
    found = fields.integer(body, name, 0, fields.BIGGEST)
    if found is None:
        raise InvalidInput(f"{name} is missing: give the id of a site (GET /sites)", field=name)
    return found


def _path(body: Mapping[str, Any], name: str, escaped: bool) -> str:
    return paths.checked(fields.required(body, name, PATH_MOST, "give a path"), name, escaped=escaped)


def _protocol(body: Mapping[str, Any]) -> str:
    given = body.get("protocol")
    if given is None:
        return PROTOCOLS[0]
    number = fields.whole(given)
    found = PROTOCOLS.get(number) if number is not None else NAMES.get(str(given).upper())
    if found is None or isinstance(given, bool):
        known = ", ".join(f"{number} ({name})" for number, name in PROTOCOLS.items())
        raise InvalidInput(
            f"protocol must be one of {known}, or a name: {', '.join(sorted(NAMES))}", field="protocol"
        )
    return found
