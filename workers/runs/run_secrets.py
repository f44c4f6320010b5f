"""What is secret in a run's specification: kept as secrets, ``***`` in its place.

That are user names and passwords in ``uris`` and the keys of ``stores``. They are the run's own
(``Secret.run``) and wiped when it has ended (``workers.upkeep.retention``);
``workers.runtimes.staging`` puts them back. What else stands in an address, its query included, stays in the
specification. Must not import services, runtimes or families.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from workers import secrets
from workers.models import Secret
from workers.vocabulary.specs import HIDDEN, Spec, StagedSpec

URI: Final = "uri"
STORE: Final = "store"
#: Scheme, user name and password, the rest.
_PARTS: Final = re.compile(r"([a-z][a-z0-9+.-]*://)([^/?#]+)@(.*)", re.IGNORECASE | re.DOTALL)


def holds_any(spec: Spec) -> bool:
    """Whether a specification has credentials in it."""
    return isinstance(spec, StagedSpec) and (
        bool(spec.stores) or any(_PARTS.fullmatch(uri) for uri in spec.uris)
    )


def taken_out(tenant_id: int, spec: Spec) -> Spec:
    """The specification with its credentials stored elsewhere; tie them to the run by ``belong`` at once."""
    if not isinstance(spec, StagedSpec):
        return spec
    uris, places, ids = [], [], []
    for place, uri in enumerate(spec.uris):
        match = _PARTS.fullmatch(uri)
        if match is None:
            uris.append(uri)
            continue
        uris.append(f"{match[1]}{HIDDEN}@{match[3]}")
        places.append(place)
        ids.append(secrets.store(tenant_id, URI, match[2]))
    ids += [secrets.store(tenant_id, STORE, store["key"]) for store in spec.stores]
    stores = [{**store, "key": HIDDEN} for store in spec.stores]
    return replace(spec, uris=uris, uri_secrets=places, stores=stores, secret_ids=ids) if ids else spec


def belong(spec: Spec, run_id: int) -> None:
    """Tie what was taken out of a specification to the run that has it."""
    if isinstance(spec, StagedSpec) and spec.secret_ids:
        Secret.objects.filter(pk__in=spec.secret_ids).update(run_id=run_id)
