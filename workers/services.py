"""What families and the API call: submit, cancel, retry, explain and so on, one transaction each.

Must not import families, views, runtimes or the worker's side.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Q, QuerySet

from workers.asking import ask
from workers.messages import doorbell
from workers.models import Node, Run
from workers.runs import losses, run_secrets, transitions
from workers.scheduling.explain import explain_run
from workers.scheduling.shapes import ShapeKey, forget_shape, kept_shape_id, shape_id_of
from workers.tenants import limits
from workers.vocabulary.errors import Conflict, NotFound
from workers.vocabulary.leases import NewRun
from workers.vocabulary.specs import Spec
from workers.vocabulary.states import State, is_final


@dataclass(frozen=True)
class Submission:
    """A run to be. ``constraints`` is {node attribute: allowed values}; ``priority`` 0-9, lower is sooner.

    ``retries`` is how many further attempts follow a failure (``losses_only``: one of the node or of ours,
    not of its own work), ``timeout_s`` limits one attempt, ``grace_s`` is the time from TERM to KILL,
    ``expires_in_s`` the longest wait before it starts.
    """

    tenant_id: int
    family: str
    spec: Spec
    name: str
    constraints: dict[str, list[str]] = field(default_factory=dict)
    priority: int = 5
    retries: int = 0
    losses_only: bool = False
    timeout_s: int | None = None
    grace_s: int | None = None
    expires_in_s: int | None = None
    owner_id: str = ""
    callback_url: str = ""
    retry_of: int | None = None
    #: The only user of the tenant who sees it; None = all of the tenant.
    private_to: int | None = None


@dataclass(frozen=True)
class Cancellation:
    """What a cancel found and did: the ``state`` now; ``accepted`` = none of its attempts starts any more,
    and what runs is stopped."""

    run: Run
    state: str
    accepted: bool
    already_final: bool
    message: str


def submit(submission: Submission) -> int:
    """Accept a run: one INSERT, then a ring after the commit. Returns the run's id."""
    if run_secrets.holds_any(submission.spec):
        (run_id,) = submit_all([submission])
        structlog.contextvars.bind_contextvars(run=run_id)
        return run_id
    key = _shape_key(submission)
    try:
        run_id = _insert(_new_run(submission, shape_id_of(key)))
    except IntegrityError:
        # A cached shape may have been pruned meanwhile; anything else fails again and is told.
        forget_shape(key)
        run_id = _insert(_new_run(submission, shape_id_of(key)))
    structlog.contextvars.bind_contextvars(run=run_id)
    doorbell.ring_after_commit()
    return run_id


def submit_all(submissions: Iterable[Submission]) -> list[int]:
    """Accept many runs in one transaction, all or none: an INSERT each, a look-up for each shape, a ring."""
    asked = list(submissions)
    shapes: dict[ShapeKey, int] = {}
    ids = []
    with contextlib.ExitStack() as stack, transaction.atomic(), connection.cursor() as cursor:
        for tenant_id, count in sorted(Counter(item.tenant_id for item in asked).items()):
            stack.enter_context(limits.admitted(tenant_id, count))
        for submission in asked:
            key = _shape_key(submission)
            if key not in shapes:
                shapes[key] = kept_shape_id(key)
            spec = run_secrets.taken_out(submission.tenant_id, submission.spec)
            new = _new_run(replace(submission, spec=spec), shapes[key])
            run_id, _ = transitions.submit(cursor, new)
            run_secrets.belong(spec, run_id)
            ids.append(run_id)
        doorbell.ring_after_commit()
    return ids


def _shape_key(submission: Submission) -> ShapeKey:
    constraints = {name: sorted(set(values)) for name, values in submission.constraints.items()}
    return (
        submission.tenant_id,
        submission.spec.KIND,
        submission.spec.cpu_m,
        submission.spec.mem_mb,
        json.dumps(constraints, sort_keys=True),
        tuple(sorted(submission.spec.host_ports())),
    )


def _new_run(submission: Submission, shape_id: int) -> NewRun:
    return NewRun(
        tenant_id=submission.tenant_id,
        family=submission.family,
        kind=submission.spec.KIND,
        name=submission.name,
        owner_id=submission.owner_id,
        shape_id=shape_id,
        spec=json.dumps(submission.spec.to_json()),
        priority=submission.priority,
        retries=submission.retries,
        losses_only=submission.losses_only,
        timeout_s=submission.timeout_s,
        grace_s=settings.GANTRY_GRACE_S if submission.grace_s is None else submission.grace_s,
        expires_in_s=settings.GANTRY_EXPIRE_S if submission.expires_in_s is None else submission.expires_in_s,
        callback_url=submission.callback_url,
        retry_of=submission.retry_of,
        private_to=submission.private_to,
    )


def _insert(new: NewRun) -> int:
    with limits.admitted(new.tenant_id):
        if connection.in_atomic_block:
            with transaction.atomic(), connection.cursor() as cursor:
                return transitions.submit(cursor, new)[0]
        with connection.cursor() as cursor:
            return transitions.submit(cursor, new)[0]


def visible(runs: QuerySet[Run], viewer: int | None) -> QuerySet[Run]:
    """Those that a user sees (None: all, for operators): some runs are private to another user."""
    return runs if viewer is None else runs.filter(Q(private_to=None) | Q(private_to=viewer))


def find(tenant_id: int | None, run_id: int, viewer: int | None = None) -> Run:
    """The run, if it is the tenant's (None: any tenant's, for operators) and ``visible``; else NotFound."""
    runs = visible(Run.objects.select_related("node", "tenant", "shape"), viewer)
    if tenant_id is not None:
        runs = runs.filter(tenant_id=tenant_id)
    run = runs.filter(pk=run_id).first() if -(2**63) <= run_id < 2**63 else None
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    return run


def cancel(
    tenant_id: int | None, run_id: int, *, operator: bool = False, viewer: int | None = None
) -> Cancellation:
    """Cancel a waiting run at once, ask the worker to stop a running one, leave an ended one as it is.

    Accepted for a waiting run: it never starts. Accepted for one that a node has claimed: no attempt starts
    any more; a node asks the database right before it starts one, and a cancel committed before that look
    keeps it from starting. One committed later is that of a running run: its node kills it as soon as it
    hears of the cancel. If it ends by itself before, that end is what is recorded. A node that is cut off
    hears of it when it is back, unless its guard kills first.
    """
    run = find(tenant_id, run_id, viewer)
    by = "operator" if operator else "client"
    with transaction.atomic(), connection.cursor() as cursor:
        # A run may be claimed or given back between the two statements: look again, it settles.
        for _ in range(5):
            if transitions.cancel(cursor, [run_id], by=by, operator=operator):
                done, accepted = "Cancelled before it started", True
                break
            if transitions.request_cancel(cursor, [run_id], operator=operator):
                done, accepted = "Cancel requested: its node stops it", True
                doorbell.ring_after_commit()
                break
            if is_final(Run.objects.values_list("state", flat=True).get(pk=run_id)):
                done, accepted = "It has already ended", False
                break
        else:
            raise Conflict(f"run {run_id} changes hands right now: send the cancel again")
    run.refresh_from_db()
    return Cancellation(run, run.state, accepted, not accepted, done)


def cancel_all(tenant_id: int, run_ids: Iterable[int]) -> int:
    """``cancel`` for many runs of a tenant in one transaction; returns how many of them will end by it."""
    ids = sorted(Run.objects.filter(tenant_id=tenant_id, pk__in=list(run_ids)).values_list("pk", flat=True))
    with transaction.atomic(), connection.cursor() as cursor:
        transitions.lock(cursor, ids)
        stopped = transitions.cancel(cursor, ids, by="client", operator=False)
        asked = transitions.request_cancel(cursor, ids, operator=False)
    if asked:
        doorbell.ring_after_commit()
    return len(stopped | asked)


def retry(tenant_id: int | None, run_id: int, callback_url: str = "", *, viewer: int | None = None) -> int:
    """Run an ended run once more, as a new run with the same specification. Returns the new run's id.

    ``callback_url`` replaces the one of the first run.
    """
    run = find(tenant_id, run_id, viewer)
    if not is_final(run.state):
        raise Conflict(f"run {run_id} has not ended (it is {run.state}): cancel it first or wait for its end")
    if "batch" in run.spec:
        raise Conflict(f"run {run_id} carried a batch of {run.family} {run.owner_id}: retry that instead")
    if run.spec.get("uri_secrets") or run.spec.get("stores"):
        raise Conflict(f"the credentials of run {run_id} were wiped at its end: submit it anew")
    with transaction.atomic(), limits.admitted(run.tenant_id), connection.cursor() as cursor:
        new_id, _ = transitions.submit(
            cursor,
            NewRun(
                tenant_id=run.tenant_id,
                family=run.family,
                kind=run.kind,
                name=run.name,
                owner_id=run.owner_id,
                shape_id=run.shape_id,
                spec=json.dumps(run.spec),
                priority=run.priority,
                retries=0,
                timeout_s=run.timeout_s,
                grace_s=run.grace_s,
                expires_in_s=settings.GANTRY_EXPIRE_S,
                callback_url=callback_url or run.callback_url,
                retry_of=run.pk,
                private_to=run.private_to,
            ),
        )
        doorbell.ring_after_commit()
    structlog.contextvars.bind_contextvars(run=new_id)
    return new_id


def explain(tenant_id: int | None, run_id: int, *, viewer: int | None = None) -> dict[str, object]:
    """Why the run is where it is (contract: explanation), the strongest reason first."""
    return explain_run(find(tenant_id, run_id, viewer))


def reconcile(tenant_id: int, run_ids: list[int], wait_s: float = 5.0) -> dict[int, tuple[bool, str]]:
    """Compare what the database believes of these runs with what their nodes see now, and repair it.

    Asks each node once and waits at most ``wait_s`` seconds. Runs that are not the tenant's are left out
    of the answer. Returns {run id: (agrees now, what was found)}.
    """
    runs = list(
        Run.objects.filter(tenant_id=tenant_id, pk__in=run_ids).values_list(
            "pk", "state", "node_id", "node__name"
        )
    )
    answers: dict[int, tuple[bool, str]] = {}
    by_node: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for run_id, state, node_id, node_name in runs:
        if state == State.RUNNING and node_id is not None:
            by_node.setdefault(node_id, []).append(run_id)
            names[node_id] = node_name
        else:
            answers[run_id] = (True, "it is waiting" if state == State.PENDING else f"it has ended: {state}")
    told = ask("reconcile", {node_id: {"runs": ids} for node_id, ids in by_node.items()}, wait_s)
    for node_id, ids in by_node.items():
        if node_id in told:
            for run_id, (agrees, message) in (told[node_id] or {}).items():
                answers[int(run_id)] = (bool(agrees), str(message))
            continue
        late = f"node {names[node_id]} did not answer within {wait_s:g} s: ask again later"
        answers |= dict.fromkeys(ids, (False, late))
    return answers


def remove_node(name: str, *, force: bool = False) -> Node:
    """Take a node out for good. Its worker stops and closes what runs there; ``force`` closes it at once.

    Without ``force`` the runs of a silent node are closed after GANTRY_NODE_LOST_AFTER_S, when its guard has
    killed them. ``force`` is the operator's word that nothing runs there any more.
    """
    with transaction.atomic():
        node = Node.objects.select_for_update().filter(name=name).first()
        if node is None:
            raise NotFound(f"there is no node {name}")
        node.mode = Node.Mode.REMOVED
        node.reserved_for = None
        node.save(update_fields=["mode", "reserved_for"])
    if force:
        losses.close_node(node.pk, f"node {name} was removed by an operator", removed=True)
    doorbell.ring()
    return node


def set_node_mode(name: str, mode: str, *, force: bool = False) -> Node:
    """Drain a node (takes no new work, finishes what it has) or make it ready again.

    Conflict when it was removed: only ``force`` brings such a node back.
    """
    with transaction.atomic():
        node = Node.objects.select_for_update().filter(name=name).first()
        if node is None:
            raise NotFound(f"there is no node {name}")
        if node.mode == Node.Mode.REMOVED and not (force and mode == Node.Mode.READY):
            raise Conflict(
                f"node {name} was removed: POST /api/v1/nodes/{name}/undrain?force=1 brings it back"
            )
        node.mode = Node.Mode(mode)
        if mode != Node.Mode.READY:
            node.reserved_for = None
        node.save(update_fields=["mode", "reserved_for"])
    doorbell.ring()
    return node
