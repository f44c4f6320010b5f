"""Streams: how many are free between two sites, and how many a link bears.

A stream is one file under way. Open batches hold the streams that they were given; a site's limits and the
link's are never exceeded, because free streams are read under the hand-out's lock. A link's streams adapt
within [2, 4 * GANTRY_LINK_STREAMS]: success first, then throughput.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workqueue.models import LinkChange, Site

LEAST: Final = 2
#: Beyond this share of failures a link has too much to bear.
FAILURES: Final = 0.05
#: So many ended attempts make a look worth anything.
WORTH: Final = 10
#: A change of throughput below this share is noise.
NOISE: Final = 0.05

_TAKEN: Final = """
    SELECT coalesce(sum(streams) FILTER (WHERE source_id = %(source)s), 0)::int,
        coalesce(sum(streams) FILTER (WHERE target_id = %(target)s), 0)::int,
        coalesce(sum(streams) FILTER (WHERE source_id = %(source)s AND target_id = %(target)s), 0)::int
    FROM workqueue_batch WHERE closed_at IS NULL AND (source_id = %(source)s OR target_id = %(target)s)
"""
_TELL: Final = """
    INSERT INTO workqueue_link AS l (streams, succeeded, failed, moved, busy_s, source_id, target_id)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (source_id, target_id) DO UPDATE SET succeeded = l.succeeded + excluded.succeeded,
        failed = l.failed + excluded.failed, moved = l.moved + excluded.moved,
        busy_s = l.busy_s + excluded.busy_s
"""
_WINDOWS: Final = """
    SELECT id, streams, succeeded, failed, moved, throughput, extract(epoch FROM now() - looked_at)::float8
    FROM workqueue_link WHERE succeeded + failed >= %s
        AND looked_at < now() - %s * interval '1 second' ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED
"""
_ADAPT: Final = """
    UPDATE workqueue_link SET streams = %(streams)s, sentence = %(sentence)s, throughput = %(throughput)s,
        succeeded = 0, failed = 0, moved = 0, busy_s = 0, looked_at = now(),
        changed_at = CASE WHEN streams <> %(streams)s THEN now() ELSE changed_at END
    WHERE id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class Room:
    """Free streams, and what binds: a sentence."""

    free: int
    most: int
    binds: str


def most_out(site: Site) -> int:
    """Streams out of a site (and of what is done there) at once."""
    return settings.GANTRY_SITE_STREAMS if site.max_active_out is None else site.max_active_out


def most_in(site: Site) -> int:
    """Streams into a site at once."""
    return settings.GANTRY_SITE_STREAMS if site.max_active_in is None else site.max_active_in


def room(cursor: CursorWrapper, source: Site, target: Site | None) -> Room:
    """How many streams are free now for what goes from ``source`` to ``target`` (None: is done at it)."""
    target_id = None if target is None else target.pk
    cursor.execute(_TAKEN, {"source": source.pk, "target": target_id})
    out, into, both = cursor.fetchone()
    limits = [(most_out(source), out, f"out of {source.name}")]
    if target is not None:
        limits.append((most_in(target), into, f"into {target.name}"))
        limits.append((link_streams(cursor, source.pk, target.pk), both, f"{source.name} to {target.name}"))
    most, taken, which = min(limits, key=lambda item: item[0] - item[1])
    return Room(
        max(0, most - taken),
        most,
        f"{taken} of at most {most} streams {which} are taken: it waits for its turn",
    )


def link_streams(cursor: CursorWrapper, source_id: int, target_id: int) -> int:
    """Streams of a link at once; one that nothing has ended on yet has the installation's."""
    cursor.execute(
        "SELECT streams FROM workqueue_link WHERE source_id = %s AND target_id = %s", [source_id, target_id]
    )
    row = cursor.fetchone()
    return int(row[0]) if row else _first()


def _first() -> int:
    return max(LEAST, int(settings.GANTRY_LINK_STREAMS))


def tell(
    cursor: CursorWrapper,
    source_id: int,
    target_id: int,
    *,
    succeeded: int,
    failed: int,
    moved: int,
    busy_s: float,
) -> None:
    """Add to the link's window what has ended. ``failed``: attempts that another try may mend."""
    if succeeded or failed:
        cursor.execute(_TELL, [_first(), succeeded, failed, moved, busy_s, source_id, target_id])


def adapt() -> dict[str, int]:
    """One look at all links whose window is long enough; returns {what: how many}."""
    changed = 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_WINDOWS, [WORTH, settings.GANTRY_LINK_LOOK_S])
        for link_id, streams, succeeded, failed, moved, before, elapsed in cursor.fetchall():
            throughput = moved / max(elapsed, 0.001)
            wanted, sentence = decide(streams, succeeded, failed, throughput, before)
            cursor.execute(
                _ADAPT,
                {"id": link_id, "streams": wanted, "sentence": sentence, "throughput": throughput},
            )
            if wanted != streams:
                changed += 1
                LinkChange.objects.create(
                    link_id=link_id, streams_before=streams, streams=wanted, sentence=sentence
                )
    return {"links_changed": changed}


def decide(streams: int, succeeded: int, failed: int, throughput: float, before: float) -> tuple[int, str]:
    """(streams from now on, why): success first, then throughput (bytes/s, this window and the one before).

    Pure. Source: the issue, "Flow control"; the rule of the large transfer services: halve on failures, feel
    the way up while it pays.
    """
    highest = 4 * _first()
    share = failed / max(1, succeeded + failed)
    now, then = _rate(throughput), _rate(before)
    if share > FAILURES:
        wanted = max(LEAST, streams // 2)
        told = f"{failed} of {succeeded + failed} attempts failed"
        return wanted, f"{told}: {_moved(streams, wanted)}"
    if not throughput or throughput > before * (1 + NOISE):
        wanted = min(highest, streams + 2)
        return wanted, f"throughput {now} after {then}: {_moved(streams, wanted)}"
    if throughput < before * (1 - NOISE):
        wanted = max(LEAST, streams - 2)
        return wanted, f"throughput fell to {now} from {then}: {_moved(streams, wanted)}"
    return streams, f"throughput steady at {now}: {_moved(streams, streams)}"


def _moved(before: int, now: int) -> str:
    return f"{now} streams, as before" if before == now else f"{now} streams instead of {before}"


def _rate(throughput: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if throughput >= size:
            return f"{throughput / size:.1f} {unit}/s"
    return f"{throughput:.0f} B/s"
