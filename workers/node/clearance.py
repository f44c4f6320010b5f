"""Asked on the node before a command or container is prepared: may it still run, and what is shown to its
registry?

The policy was checked at submission, in the family's words; an operator may have changed it since. The only
part of preparing a run that needs the database. Must not import services or claiming.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from django.db import InterfaceError, OperationalError, connection

from workers.runtimes.base import PrepareFailed
from workers.tenants import policy, registries
from workers.vocabulary import references
from workers.vocabulary.errors import SecretUnreadable
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.references import Way
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: Why an attempt was given back before it started.
DATABASE_AWAY: Final = "the database did not answer its node before the start"


def permit(run: ClaimedRun) -> None:
    """A command may still run. Raises PrepareFailed.

    Costs nothing while what is known of its tenant's policy is fresh (5 s).
    """
    with _asking(run):
        _rules(run, "Command")


def clear(run: ClaimedRun) -> Way:
    """How its image may be pulled. Raises PrepareFailed."""
    with _asking(run):
        rules, image = _rules(run, "Container"), str(run.spec.get("image", ""))
        return Way(
            registries.for_image(run.tenant_id, image), rules.bounds.opening(references.parse(image).registry)
        )


@contextmanager
def _asking(run: ClaimedRun) -> Iterator[None]:
    """Keeps no connection: there are fewer than runs."""
    try:
        yield
    except SecretUnreadable as error:
        raise PrepareFailed(
            Reason.IMAGE, f"Its image is not pulled: {error.message}", ours=True, wait_s=30.0
        ) from error
    except (OperationalError, InterfaceError) as error:
        # The driver's text names paths, hosts and users: it is for the log only.
        log.warning("clearance.database_away", run=run.lease.run_id, error=str(error).strip())
        raise PrepareFailed(Reason.RUNTIME, DATABASE_AWAY, ours=True) from error
    finally:
        connection.close()


def _rules(run: ClaimedRun, noun: str) -> policy.Rules:
    """Those under which it may still run. Raises PrepareFailed.

    What is remembered may let a run pass; only what holds now ends one for good: what it needs may have been
    opened a moment ago, right before its client submitted it.
    """
    spec = _resolved(run.spec)
    rules = policy.of(run.tenant_id)
    if policy.refusal(rules, run.kind, spec):
        rules = policy.of(run.tenant_id, fresh=True)
    if refused := policy.refusal(rules, run.kind, spec):
        raise PrepareFailed(Reason.REJECTED, f"{noun} was not started: {refused}")
    return rules


def _resolved(spec: dict[str, Any]) -> dict[str, Any]:
    """With the folders of its volumes as they lie on this node: a link may lead out of those allowed."""
    volumes = [
        {**item, "host_path": os.path.realpath(str(item.get("host_path", "")))}
        for item in spec.get("volumes") or ()
    ]
    return {**spec, "volumes": volumes}
