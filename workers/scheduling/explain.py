"""Why is a run where it is? Told from the same pure functions that placement decides with.

Must not import services or runtimes. Other tenants' holdings appear only as one anonymous sum.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from workers.callbacks import outbox
from workers.messages import doorbell
from workers.models import HostPort, Node, Run, Shape
from workers.scheduling.claiming import binding_quotas
from workers.scheduling.obstacles import NodeView, Obstacle, as_json, quota_obstacle
from workers.scheduling.reasons import reasons
from workers.scheduling.shapes import shape_view
from workers.vocabulary.states import STOPPING, State

#: How far back a queue position is counted; beyond it the answer says "more than".
_POSITION_LIMIT = 1000

_cache: tuple[float, list[NodeView]] = (0.0, [])
_cache_lock = threading.Lock()
#: (the nodes as read, shape id -> why it waits for them): dropped when the nodes are read again.
_verdicts: tuple[list[NodeView], dict[int, str]] = ([], {})


def node_views(max_age_s: float = 1.0) -> list[NodeView]:
    """All nodes as placement sees them, read at most once a second per process."""
    global _cache
    with _cache_lock:
        if time.monotonic() - _cache[0] > max_age_s:
            # By the database's clock, which wrote the heartbeat: this machine's may be wrong.
            nodes = Node.objects.exclude(mode=Node.Mode.REMOVED).order_by("name")
            nodes = nodes.annotate(unheard=Now() - F("heartbeat_at"))
            taken: dict[int, dict[str, int]] = {}
            for node_id, port, tenant_id in HostPort.objects.values_list("node", "port", "run__tenant"):
                taken.setdefault(node_id, {})[port] = tenant_id
            _cache = (
                time.monotonic(),
                [_view(node, node.unheard.total_seconds(), taken.get(node.pk, {})) for node in nodes],
            )
        return _cache[1]


def _silent_after_s() -> float:
    """From when on a node's silence explains a wait, in seconds: long before anybody acts on it."""
    return float(settings.GANTRY_LEASE_S) / 2


def _view(node: Node, silent: float, taken_ports: dict[str, int]) -> NodeView:
    return NodeView(
        id=node.pk,
        name=node.name,
        mode=node.mode,
        silent_s=silent if silent > _silent_after_s() or node.detached else None,
        trouble=node.trouble,
        runtimes=frozenset(node.runtimes),
        attributes=node.attributes,
        isolates_users=node.isolates_users,
        cpu_m=node.cpu_m_total,
        cpu_m_free=node.cpu_m_total - node.cpu_m_used,
        mem_mb=node.mem_mb_total,
        mem_mb_free=node.mem_mb_total - node.mem_mb_used,
        slots_free=node.slots - node.slots_used,
        stopped=node.detached,
        reserved_for=node.reserved_for_id,
        taken_ports=taken_ports,
        troubles=node.troubles,
    )


def why_waiting(shape_ids: Iterable[int]) -> dict[int, str]:
    """One sentence per shape for pending runs ("" = it is about to start).

    One query for the whole batch; none for shapes asked about since the nodes were read: clients poll.
    """
    global _verdicts
    nodes = node_views()
    if _verdicts[0] is not nodes:
        _verdicts = (nodes, {})
    known = _verdicts[1]
    wanted = set(shape_ids)
    if unknown := wanted - known.keys():
        shapes = list(Shape.objects.filter(pk__in=unknown).select_related("tenant"))
        quotas = _quota_obstacles({shape.tenant_id for shape in shapes})
        for shape in shapes:
            told = [*quotas.get(shape.tenant_id, ()), *reasons(shape_view(shape), nodes)][:2]
            known[shape.pk] = "; ".join(item.message for item in told)
    return {shape_id: known[shape_id] for shape_id in wanted & known.keys()}


def _quota_obstacles(tenant_ids: set[int]) -> dict[int, list[Obstacle]]:
    """Tenant -> why none of its runs starts, for those that run as many as they may."""
    quotas = binding_quotas(tenant_ids)
    if not quotas:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT tenant_id, count(*) FROM workers_run WHERE state = 'RUNNING' AND tenant_id = ANY(%s)
               GROUP BY tenant_id""",
            [list(quotas)],
        )
        running = dict(cursor.fetchall())
    found = {tenant: quota_obstacle(running.get(tenant, 0), quota) for tenant, quota in quotas.items()}
    return {tenant: [obstacle] for tenant, obstacle in found.items() if obstacle is not None}


def explain_run(run: Run) -> dict[str, Any]:
    """The contract's explanation: {state, since, reasons, position, estimate}."""
    told: list[Obstacle] = []
    position = None
    since = run.created_at
    if run.state == State.PENDING:
        if run.not_before is not None:
            wait = max(0.0, _clock(run)[0])
            told.append(
                Obstacle(
                    "backoff",
                    f"its next try is due in {wait:.0f} s: {run.message}",
                    "wait, or cancel it",
                    True,
                )
            )
        told += _quota_obstacles({run.tenant_id}).get(run.tenant_id, [])
        told += reasons(shape_view(run.shape), node_views(0.0), run.pk)
        position = _position(run)
        if not told:
            told.append(
                Obstacle(
                    "turn",
                    before(position) if position else "it is about to start",
                    "wait",
                    True,
                )
            )
        told += _broker_silent()
    elif run.state == State.RUNNING:
        since = run.started_at or run.created_at
        told.append(_running(run))
        if run.started_at is None and told[0].code == "preparing":
            told += _broker_silent(run.node_id)
    else:
        since = run.finished_at or run.created_at
        told.append(Obstacle("ended", run.message or run.state, "", False))
    if run.callback_url and (trouble := outbox.delivery_trouble(run.pk)):
        told.append(Obstacle("callbacks", trouble, "start a process that delivers callbacks", True))
    return {
        "state": run.state,
        "since": since.isoformat().replace("+00:00", "Z"),
        "reasons": [as_json(item) for item in told],
        "position": position,
        "estimate": None,
    }


def _clock(run: Run) -> tuple[float, float]:
    """(seconds until its next try, seconds since its node was heard), by the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT coalesce(extract(epoch FROM r.not_before - now()), 0)::float8,
                   coalesce(extract(epoch FROM now() - n.heartbeat_at), 0)::float8
               FROM workers_run r LEFT JOIN workers_node n ON n.id = r.node_id WHERE r.id = %s""",
            [run.pk],
        )
        found: tuple[float, float] = cursor.fetchone() or (0.0, 0.0)
    return found


def _broker_silent(node_id: int | None = None) -> list[Obstacle]:
    """No obstacle but a delay: rings of this process, or messages to living nodes, do not get through.

    ``node_id``: only this one matters. A node that says nothing at all says nothing of the broker either, so
    its last word of it is compared with its last word.
    """
    told = []
    unheard = doorbell.silent_s()
    if unheard is not None:
        every = f"nodes look for work every {settings.GANTRY_LOOK_S:g} s by themselves"
        told.append(f"the broker has not answered for {unheard:.0f} s: {every}")
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT name, extract(epoch FROM now() - broker_ok_at)::float8 FROM workers_node
               WHERE mode = 'ready' AND NOT detached AND heartbeat_at > now() - %s * interval '1 second'
                 AND coalesce(broker_ok_at, created_at) < heartbeat_at - %s * interval '1 second'
                 AND id = coalesce(%s, id)
               ORDER BY name LIMIT 20""",
            [_silent_after_s(), 3 * settings.GANTRY_HEARTBEAT_S, node_id],
        )
        for name, ago in cursor.fetchall():
            since = "since it started" if ago is None else f"for {ago:.0f} s"
            told.append(f"node {name} has had no message from the broker {since}: it starts runs without one")
    remedy = "nothing needs to be done for this run; look at Redis (REDIS_URL)"
    return [Obstacle("broker", text, remedy, True) for text in told]


def _running(run: Run) -> Obstacle:
    node = run.node
    if node is None:  # read between two transitions
        return Obstacle("running", "it is changing hands", "ask again", True)
    silent = _clock(run)[1]
    if silent > _silent_after_s():
        left = settings.GANTRY_NODE_LOST_AFTER_S - silent
        return Obstacle(
            "silent",
            f"node {node.name} has been silent for {silent:.0f} s; "
            + (f"the attempt is given up in {left:.0f} s" if left > 0 else "the attempt is being given up"),
            "look at the worker on that machine: what runs there goes on meanwhile",
            True,
        )
    if run.message.startswith(STOPPING):
        waits = run.message.removeprefix(STOPPING)
        return Obstacle(
            "cancelling", f"node {node.name} is stopping it: {waits}", "as the message says", True
        )
    if run.cancel_requested_at is not None:
        return Obstacle("cancelling", f"node {node.name} is stopping it", "wait for the grace period", True)
    if run.started_at is None:
        if trouble := node.troubles.get(run.kind):
            return Obstacle("trouble", f"node {node.name} cannot start it: {trouble}", "repair that", True)
        return Obstacle(
            "preparing", f"node {node.name} prepares it: {run.message or 'files and folders'}", "wait", True
        )
    if run.message.startswith("storing "):
        return Obstacle("storing", f"node {node.name}: {run.message}", "wait", True)
    return Obstacle("running", f"it runs on node {node.name}", "", True)


def before(position: int, whose: str = "") -> str:
    """That so many runs have their turn first."""
    return f"1 run{whose} is before it" if position == 1 else f"{position} runs{whose} are before it"


def _position(run: Run) -> int | None:
    """How many claimable runs of the same tenant go before it, counted up to a limit (None beyond it)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FROM (SELECT 1 FROM workers_run r JOIN workers_shape s ON s.id = r.shape_id
                 WHERE r.state = 'PENDING' AND r.not_before IS NULL AND s.tenant_id = %s
                   AND (r.rank, r.id) < (%s, %s) LIMIT %s) ahead""",
            [run.tenant_id, run.rank, run.pk, _POSITION_LIMIT],
        )
        count = int(cursor.fetchone()[0])
    return count if count < _POSITION_LIMIT else None
