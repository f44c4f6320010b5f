"""User names and passwords in a run's ``uris``: kept as secrets, ``***`` in the specification.

They are the run's own (``Secret.run``) and wiped when it has ended (``workers.upkeep.retention``);
``workers.runtimes.fetch`` puts them back. What else stands in an address, its query included, stays in the
specification. Must not import services, runtimes or families.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from workers import secrets
from workers.models import Secret
from workers.vocabulary.specs import HIDDEN, ContainerSpec, ProcessSpec, Spec

PURPOSE: Final = "uri"
#: Scheme, user name and password, the rest.
_PARTS: Final = re.compile(r"([a-z][a-z0-9+.-]*://)([^/?#]+)@(.*)", re.IGNORECASE | re.DOTALL)


def holds_any(spec: Spec) -> bool:
    """Whether a specification has credentials in its addresses."""
    return isinstance(spec, ProcessSpec | ContainerSpec) and any(_PARTS.fullmatch(uri) for uri in spec.uris)


def taken_out(tenant_id: int, spec: Spec) -> Spec:
    """The specification with its credentials stored elsewhere; tie them to the run by ``belong`` at once."""
    if not isinstance(spec, ProcessSpec | ContainerSpec):
        return spec
    uris, places, ids = [], [], []
    for place, uri in enumerate(spec.uris):
        match = _PARTS.fullmatch(uri)
        if match is None:
            uris.append(uri)
            continue
        uris.append(f"{match[1]}{HIDDEN}@{match[3]}")
        places.append(place)
        ids.append(secrets.store(tenant_id, PURPOSE, match[2]))
    return replace(spec, uris=uris, uri_secrets=places, secret_ids=ids) if ids else spec


def belong(spec: Spec, run_id: int) -> None:
    """Tie what was taken out of a specification to the run that has it."""
    if isinstance(spec, ProcessSpec | ContainerSpec) and spec.secret_ids:
        Secret.objects.filter(pk__in=spec.secret_ids).update(run_id=run_id)
