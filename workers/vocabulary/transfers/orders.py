"""What a mover is told to do, and what it reports: the words between a family's book and the mover. Pure.

The report is a file of lines, one JSON object each (ASCII, ended by a newline), that only grows:

    {"r": "begin", "n": 3, "attempt": 2, "at": s, "version": "...", "size": bytes, "part": true|false,
        "dst": "..."}
        it has begun; ``version`` is the source's, ``part``: from here on it may leave a part at the target;
        ``dst``, here and in its end: it goes elsewhere than it was told, into a folder of the order's dst.
        Left out for elements that have ended within the same half second.
    {"r": "move", "n": 3, "moved": bytes, "instant": bytes/s, "elapsed": s}      progress, once a second at
    most {"r": "folder", "n": 0, "d": folder, "e": [[name, mode, size, mtime, nlink, uid, gid, atime,
    ctime], ...], "first": true, "last": true, "x": true}
        names of a LIST; ``folder`` as asked (``~`` stays), without a trailing slash unless it is "/". One
        folder comes in one or more such lines (at most 1,000 names each), ``first`` and ``last`` among
        them; folders in the order of the elements to be: COPY by path length, REMOVE by path length
        descending, LIST as they are walked. "x" (escaped): names and folder are in the form of
        ``names.name_to_wire``. Times in s. For a job that is no REMOVE a link to a file has the file's
        mode and size.
    {"r": "end", "n": 3, "attempt": 2, "ok": true, "code": 0, "log": "...", "again": true, "at": s,
        "elapsed": s, "moved": bytes, "size": bytes, "mtime": s, "checksum": "adler32:...", "names": count,
        "part": false, "avoid": "src"|"dst"|""}
        it has ended. ``code``: 0 or an errno-like number; ``again``: another try may help; ``part``: one is
        left at the target; ``avoid``: that side's endpoint is to blame. What does not apply is left out.
    {"r": "note", "text": "..."}                                                 for the run's message
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from workers.vocabulary.transfers.reach import Act, Reach

#: Options of a job that a mover knows (contract page 40, extra_opts), checked by the family.
OPTIONS: Final = (
    "depth",
    "overwrite",
    "parent",
    "checksum",
    "timeout",
    "preserve",
    "limit",
    "nbstreams",
    "permissions",
    "verbosity",
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """One element. Paths as the client wrote them, or joined to what it wrote: they begin with ``/`` or
    ``~`` or are relative, in the form of ``names.name_to_wire`` where ``escaped``.

    ``attempt`` counts from 1. ``part``: the attempt that may have left a part, or one after it may, if it
    was over before it told anything; ``version``: the source's when that part was begun ("" = unknown: begin
    anew). ``committed``: an earlier attempt may have made the file visible without anybody hearing of it.
    ``last``: no try is left, nothing may stay behind. ``size`` is the listing's, -1 where unknown. A REMOVE
    of a folder has a ``src`` that ends in "/"; a COPY of one makes the empty folder.
    """

    n: int
    act: str
    src: str
    dst: str = ""
    escaped: bool = False
    size: int = -1
    attempt: int = 1
    part: int | None = None
    version: str = ""
    committed: bool = False
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class Orders:
    """A batch. ``job_act`` is the job's type: a LIST for a COPY is told in another order than one for a
    REMOVE.

    ``dst`` is the job's own destination of a COPY ("" otherwise; ``dst_escaped`` as in ``Order``): an
    element whose ``dst`` is this one is a single file, which keeps its name where that is a folder.
    ``streams`` files at once, ``rate`` bytes/s over all of them (None: free). ``tag`` begins the tags of
    parts: ``<installation>-<job>``; an element's tag is ``<tag>-<n>``. ``sweep`` are parts to be removed:
    elements that have ended for good, each with the attempt that may have left one.
    """

    job: int
    job_act: str
    tag: str
    host: str
    source: Reach
    target: Reach | None = None
    dst: str = ""
    dst_escaped: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    streams: int = 4
    rate: float | None = None
    elements: tuple[Order, ...] = ()
    sweep: tuple[Order, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read it back; keys that a newer release wrote are ignored."""
        known = {item.name for item in fields(cls)}
        kept = {key: value for key, value in data.items() if key in known}
        kept["source"] = Reach.from_json(data["source"])
        kept["target"] = Reach.from_json(data["target"]) if data.get("target") else None
        kept["elements"] = tuple(_order(item) for item in data.get("elements") or ())
        kept["sweep"] = tuple(_order(item) for item in data.get("sweep") or ())
        return cls(**kept)

    def secrets(self) -> list[str]:
        """What must never be seen in a log."""
        found = self.source.credentials.secrets()
        return found + (self.target.credentials.secrets() if self.target else [])


def _order(data: dict[str, Any]) -> Order:
    known = {item.name for item in fields(Order)}
    order = Order(**{key: value for key, value in data.items() if key in known})
    Act(order.act)
    return order
