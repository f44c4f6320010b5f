"""A worker's claim to its node's name: compare-and-set of the incarnation, heartbeat, goodbye.

One worker per name. A worker on the same data folder takes over at once (a file lock proves that the one
before is dead); one elsewhere only when nothing can still run under the name. Must not import the runner.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from django.conf import settings
from django.db import connection, transaction

from workers.launcher import control
from workers.models import Installation, Node
from workers.models.nodes import LEFTOVERS
from workers.runs import losses
from workers.scheduling.claiming import Superseded, check_ours
from workers.vocabulary.crashpoints import step

#: The Docker Engine's own id, among a node's attributes.
ENGINE_ATTRIBUTE: Final = "engine_id"


class NameTaken(Exception):
    """Another worker holds this node's name; the text says what to do."""


class DatabaseSetBack(NameTaken):
    """The database knows less of this node than the node does: it was restored from a backup."""


@dataclass(frozen=True)
class Capacity:
    """What this worker offers. CPU in thousandths, memory in MiB."""

    cpu_m: int
    mem_mb: int
    slots: int
    runtimes: list[str]
    attributes: dict[str, str]
    isolates_users: bool
    swarm_node_id: str = ""


@dataclass
class Registration:
    """This worker's hold of its name."""

    node_id: int
    name: str
    incarnation: int
    #: The worker before died without a goodbye while it held runs.
    crashed: bool
    lock: IO[str]
    #: Where what the database said last is kept (``remember``), and which life of the database said it.
    folder: Path | None = None
    generation: uuid.UUID | None = None
    beats: int = 0
    #: Another life of the database than the one that this node worked for: what is here may be nobody's.
    anew: bool = False


def installation() -> str:
    """The name of this database, the same on every node; made once."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO workers_installation (id, name)
               VALUES (1, substr(md5(gen_random_uuid()::text), 1, 12)) ON CONFLICT DO NOTHING"""
        )
        cursor.execute("SELECT name FROM workers_installation WHERE id = 1")
        return str(cursor.fetchone()[0])


def container_key() -> bytes:
    """What names of containers are made with: the same on every node and after a restore; of no other use."""
    installation()
    return bytes(Installation.objects.values_list("container_key", flat=True).get(pk=1).bytes)


def hold_folder(folder: Path) -> tuple[IO[str], uuid.UUID]:
    """Lock the node's data folder for the life of this process; returns the lock and the folder's id."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The process runtime may have opened the way through to its scratch folders; nobody may look around.
    folder.chmod(folder.stat().st_mode & 0o711)
    lock = os.fdopen(os.open(folder / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise NameTaken(
            f"another worker (process {holder}) uses the folder {folder}: stop it, or give this one another "
            "GANTRY_NODE_NAME"
        ) from None
    ours = str(os.getpid()).encode()
    os.pwrite(lock.fileno(), ours, 0)  # in place: a worker must be able to start again on a full disk
    os.ftruncate(lock.fileno(), len(ours))
    identity = folder / "folder_id"
    if not identity.exists():
        identity.write_text(str(uuid.uuid4()))
    return lock, uuid.UUID(identity.read_text().strip())


def register(name: str, folder: Path, capacity: Capacity) -> Registration:
    """Take the node's name. Raises NameTaken while another worker may still run things under it."""
    lock, folder_id = hold_folder(folder)
    try:
        with transaction.atomic():
            Node.objects.bulk_create(
                [
                    Node(
                        name=name,
                        cpu_m_configured=capacity.cpu_m,
                        mem_mb_configured=capacity.mem_mb,
                        cpu_m_total=capacity.cpu_m,
                        mem_mb_total=capacity.mem_mb,
                    )
                ],
                ignore_conflicts=True,
            )
            node = Node.objects.select_for_update().get(name=name)
            installation()
            generation = Installation.objects.values_list("generation", flat=True).get(pk=1)
            anew = _refuse_set_back(node, folder, generation)
            crashed = _may_take_over(node, folder_id)
            node.incarnation += 1
            node.folder = folder_id
            node.detached = False
            node.attributes = {**capacity.attributes}
            node.runtimes = capacity.runtimes
            node.isolates_users = capacity.isolates_users
            node.swarm_node_id = capacity.swarm_node_id
            node.slots = capacity.slots
            node.cpu_m_configured = capacity.cpu_m
            node.mem_mb_configured = capacity.mem_mb
            node.cpu_m_total = max(capacity.cpu_m, node.cpu_m_used)
            node.mem_mb_total = max(capacity.mem_mb, node.mem_mb_used)
            node.version = settings.VERSION
            node.trouble = ""
            node.troubles = {}
            node.save()
            with connection.cursor() as cursor:
                cursor.execute("UPDATE workers_node SET heartbeat_at = now() WHERE id = %s", [node.pk])
            step("agent.before_register_commit")
        step("agent.after_register_commit")
    except BaseException:
        lock.close()
        raise
    held = Registration(node.pk, name, node.incarnation, crashed, lock, folder, generation, node.beats, anew)
    remember(held)
    return held


def on_the_same_engine(held: Registration) -> list[str]:
    """Names of other living nodes whose Docker Engine is this node's."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT other.name FROM workers_node own JOIN workers_node other ON other.id <> own.id
               WHERE own.id = %s AND other.attributes->>%s = own.attributes->>%s
                 AND other.mode <> 'removed' AND NOT other.detached
                 AND other.heartbeat_at > now() - %s * interval '1 second'
               ORDER BY other.name""",
            [held.node_id, ENGINE_ATTRIBUTE, ENGINE_ATTRIBUTE, settings.GANTRY_NODE_LOST_AFTER_S],
        )
        return [str(name) for (name,) in cursor.fetchall()]


# --- a database that was set back ------------------------------------------------------------------


def remember(held: Registration) -> None:
    """Note what the database knows of this node, so that one that knows less is recognised as older."""
    if held.folder is None:
        return
    line = f"{held.generation} {held.name} {held.incarnation} {held.beats}\n"
    control.overwrite(str(held.folder / "registration"), line.encode())


def _refuse_set_back(node: Node, folder: Path, generation: uuid.UUID) -> bool:
    """Raises DatabaseSetBack when this database once knew more of the node than it does now.

    Returns whether it is another life of the database, or another database.

    What such a database does not know would be killed as nobody's, and what it believes to wait may run here.
    """
    try:
        life, name, *counts = (folder / "registration").read_text().split()
        seen = (int(counts[0]), int(counts[1]))
    except (OSError, ValueError, IndexError):
        return False
    if life == str(generation) and name == node.name and (node.incarnation, node.beats) < seen:
        raise DatabaseSetBack(
            f"the database knows less of node {node.name} than the node itself: it was restored from a "
            "backup. Check that it is the right one, run `manage.py after_restore` once, then start the "
            "workers; until then nothing of this node is touched"
        )
    return life != str(generation)


def confirm(held: Registration) -> None:
    """Is the name still ours, and the database no older than we know it? Raises Superseded."""
    beats = held.beats  # before the question: the heartbeat's thread goes on counting meanwhile
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT incarnation, beats FROM workers_node WHERE id = %s AND name = %s",
            [held.node_id, held.name],
        )
        check_ours(cursor.fetchone(), held.incarnation, beats)


def _may_take_over(node: Node, folder_id: uuid.UUID) -> bool:
    """Returns whether the worker before died without a goodbye. Raises NameTaken."""
    if node.mode == Node.Mode.REMOVED:
        raise NameTaken(
            f"node {node.name} was removed by an operator: undrain it with force=1 first, or use another name"
        )
    if node.folder in (None, folder_id):
        return node.folder is not None and not node.detached
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM now() - heartbeat_at)::float8 FROM workers_node WHERE id = %s",
            [node.pk],
        )
        silent = float(cursor.fetchone()[0])
    busy = node.slots_used > 0
    if busy and silent < settings.GANTRY_NODE_LOST_AFTER_S:
        raise NameTaken(
            f"node {node.name} belongs to a worker with another data folder, {node.slots_used} runs are "
            f"there and it was heard {silent:.0f} s ago: use that folder or another name, or wait "
            f"{settings.GANTRY_NODE_LOST_AFTER_S - silent:.0f} s"
        )
    if not node.detached and silent < 3 * settings.GANTRY_HEARTBEAT_S:
        raise NameTaken(
            f"a worker named {node.name} was heard {silent:.0f} s ago: give this one another GANTRY_NODE_NAME"
        )
    if busy:
        losses.close_node(
            node.pk, f"node {node.name} was replaced after {silent:.0f} s of silence", removed=False
        )
        node.refresh_from_db()
    return False


def heartbeat(
    registration: Registration, troubles: Mapping[str, str], broker_ok: bool, leftovers: str = ""
) -> str:
    """Tell that this worker lives; returns the node's mode. Raises Superseded.

    ``troubles`` has the trouble of each runtime in words, "" where all is well. One in trouble keeps only
    its own kind of work away; when all of them are, the node takes no work. ``leftovers`` keeps nothing away:
    what ended runs have left here and the node cannot remove.
    """
    by_kind = {kind: words[:255] for kind, words in troubles.items() if words}
    everywhere = "; ".join(dict.fromkeys(by_kind.values())) if len(by_kind) == len(troubles) else ""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE workers_node SET heartbeat_at = now(), beats = beats + 1, trouble = %s,
                   troubles = %s::jsonb,
                   broker_ok_at = CASE WHEN %s THEN now() ELSE broker_ok_at END,
                   cpu_m_total = greatest(cpu_m_configured, cpu_m_used),
                   mem_mb_total = greatest(mem_mb_configured, mem_mb_used)
               WHERE id = %s AND incarnation = %s AND beats >= %s RETURNING mode, beats""",
            [
                everywhere[:255],
                json.dumps({**by_kind, **({LEFTOVERS: leftovers} if leftovers else {})}),
                broker_ok,
                registration.node_id,
                registration.incarnation,
                registration.beats,
            ],
        )
        row = cursor.fetchone()
    if row is None:
        confirm(registration)  # says why
        raise Superseded(f"node {registration.name} has been taken over by another worker")
    registration.beats = row[1]
    with contextlib.suppress(OSError):  # a full disk: what was noted before is older, and says less
        remember(registration)
    return str(row[0])


def goodbye(registration: Registration) -> None:
    """Say that this worker has stopped in good order; what runs on is adopted by the next one."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE workers_node SET detached = true, heartbeat_at = now()
               WHERE id = %s AND incarnation = %s""",
            [registration.node_id, registration.incarnation],
        )
