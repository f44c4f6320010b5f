"""Storing a run's outputs when it has succeeded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import structlog
from django.conf import settings

from workers.runtimes.base import Places
from workers.runtimes.staging import folder
from workers.runtimes.staging.journal import Journal
from workers.runtimes.staging.plan import Plan, Storages
from workers.runtimes.staging.progress import Progress
from workers.runtimes.staging.tries import patiently
from workers.storage.base import StorageFailed, Upload
from workers.vocabulary.crashpoints import step
from workers.vocabulary.errors import EngineError
from workers.vocabulary.staging import Output

log = structlog.get_logger(__name__)


class OutputFailed(EngineError):
    """An output cannot be stored; the message names it and says why."""

    code = "output_failed"


def store_outputs(
    plan: Plan,
    places: Places,
    name: str,
    *,
    tick: Callable[[], None],
    commit: Callable[[], None],
    tell: Callable[[str], None],
) -> None:
    """Store each output that is not stored yet; ``name`` is the attempt's own among all installations.

    All files are there, or nothing is stored. ``tick`` is called meanwhile and ``commit`` right before each
    output becomes visible; what they raise goes through, and what was sent so far is kept for the next worker
    (``discard_outputs`` removes it). Raises OutputFailed; OSError when the node's own disk fails.
    """
    journal = Journal(places.control)
    mark = f"{name}-{journal.token()}"
    with contextlib.ExitStack() as stack:
        storages = Storages(plan, tick, stack)
        files = [stack.enter_context(_opened(item, places)) for item in plan.outputs]
        for number, (item, file) in enumerate(zip(plan.outputs, files, strict=True), 1):
            if journal.stored(number) is not None:
                continue
            size = os.fstat(file).st_size
            progress = Progress(tell, "storing", number, len(plan.outputs), size)
            upload = Upload(
                file=file,
                size=size,
                mark=f"{mark}-{number}",
                content_type=item.content_type,
                make_container=item.make_container,
                moved=_moved(progress),
                commit=_commit(commit),
            )
            step("staging.before_output")
            _store(storages, item, upload, progress, tick)
            step("staging.after_output")
            journal.note_stored(number, size)


def discard_outputs(plan: Plan, places: Places, name: str, tick: Callable[[], None]) -> None:
    """Remove what uploads that did not end well have left: tried once, for each output by itself."""
    journal = Journal(places.control)
    with contextlib.ExitStack() as stack:
        storages = Storages(plan, tick, stack)
        for number, item in enumerate(plan.outputs, 1):
            if journal.stored(number) is not None:
                continue
            try:
                storage, at = storages.of(item)
                storage.discard(at, f"{name}-{journal.token()}-{number}")
            except StorageFailed as failure:
                log.warning("staging.left_over", output=item.url, error=failure.message)


def _moved(progress: Progress) -> Callable[[int], None]:
    def moved(count: int) -> None:
        progress.add(count)
        step("staging.in_output")

    return moved


def _commit(asked: Callable[[], None]) -> Callable[[], None]:
    def commit() -> None:
        step("staging.before_commit")
        asked()

    return commit


@contextlib.contextmanager
def _opened(item: Output, places: Places) -> Iterator[int]:
    """The file behind an output, open for reading. Raises OutputFailed."""
    if item.stream in places.holed:
        raise OutputFailed(
            f"its {item.stream} is not whole: there was no space for all of it on the node's disk"
        )
    if item.stream:
        file = os.open(places.streams[item.stream], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    else:
        try:
            file = folder.open_made(places.work, item.path)
        except folder.NoSuchFile as error:
            raise OutputFailed(f"it made no output file {item.path}: {error}") from error
    try:
        yield file
    finally:
        os.close(file)


def _store(
    storages: Storages, item: Output, upload: Upload, progress: Progress, tick: Callable[[], None]
) -> None:
    def once() -> None:
        progress.moved = 0
        storage, at = storages.of(item)
        storage.store(at, upload)

    progress.say()
    try:
        patiently(
            once,
            patience_s=settings.GANTRY_STAGING_PATIENCE_S,
            moved=lambda: progress.most,
            tick=tick,
            tell=progress.say,
        )
    except StorageFailed as failure:
        raise OutputFailed(f"output {item.url} could not be stored: {failure.message}") from failure
