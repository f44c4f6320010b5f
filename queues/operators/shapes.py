"""How /api/v1/queues shows pools, policies, quotas and capacity: pure, from facts to JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from queues.estimates import service as estimates
from queues.needs import shown
from queues.operators.reading import HostFacts, OwnerFacts, PoolFacts, Standing
from workers.api.answers import stamp
from workers.api.lists import array, as_text


def pool(kind: str, facts: PoolFacts) -> dict[str, Any]:
    """An aggregate as it was declared: what a POST takes again."""
    return {
        "type": kind,
        "aggregate": facts.name,
        **({"tenants": facts.tenants} if facts.tenants else {}),
        "hosts": [{"name": host.name, **_above_zero(host.resources, host.totals)} for host in facts.hosts],
    }


def policy(kind: str, mode: str, provider: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """How a type is admitted, and where its capacity comes from."""
    return {"type": kind, "mode": mode, "provider": provider, **options}


def quota(kind: str, facts: OwnerFacts) -> dict[str, Any]:
    """What an owner may have and has."""
    return {
        "type": kind,
        "owner_id": facts.owner_id,
        "quota": {
            name: shown(amount)
            for name, amount in zip(facts.resources, facts.quotas, strict=True)
            if amount is not None
        },
        "held": _above_zero(facts.resources, facts.held),
    }


def capacity(kind: str, standing: Standing, pools: Iterable[PoolFacts]) -> Iterator[str]:
    """What there is of a type, piece by piece: there may be very many hosts."""
    head = {
        "type": kind,
        "provider": standing.provider,
        "mode": standing.mode,
        "as_of": stamp(standing.as_of),
        "trouble": standing.trouble or None,
    }
    yield f'{as_text(head)[:-1]},"aggregates":['
    for number, facts in enumerate(pools):
        about = {
            "name": facts.name,
            **({"tenants": facts.tenants} if facts.tenants else {}),
            **({"removed": True} if facts.removed else {}),
        }
        yield f'{"," if number else ""}{as_text(about)[:-1]},"hosts":['
        yield from array(map(host_use, facts.hosts))
        yield "]}"
    tail = {"waiting": standing.waiting, "running": standing.running, "estimate": estimates.published(kind)}
    yield f"],{as_text(tail)[1:]}"


def host_use(facts: HostFacts) -> dict[str, Any]:
    """A host: ``free`` is never below 0, ``over`` says what is used beyond the total, where something is."""
    rows = list(zip(facts.resources, facts.totals, facts.used, strict=True))
    over = {name: shown(used - total) for name, total, used in rows if used > total}
    return {
        "name": facts.name,
        **({"removed": True} if facts.removed else {}),
        "total": {name: shown(total) for name, total, _ in rows},
        "used": {name: shown(used) for name, _, used in rows},
        "free": {name: shown(max(0, total - used)) for name, total, used in rows},
        **({"over": over} if over else {}),
    }


def _above_zero(names: Sequence[str], amounts: Sequence[int]) -> dict[str, int | float]:
    return {name: shown(amount) for name, amount in zip(names, amounts, strict=True) if amount}
