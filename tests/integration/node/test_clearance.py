"""What a tenant's policy says right before a start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.nodes import claimed
from tests.support.fixtures import Account
from workers.models import Tenant
from workers.node.clearance import clear, permit
from workers.runtimes.base import PrepareFailed
from workers.tenants import policy, registries
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.references import Opening, Way
from workers.vocabulary.specs import ContainerSpec, ProcessSpec
from workers.vocabulary.states import Reason

pytestmark = pytest.mark.django_db(transaction=True)


def allow(account: Account, **keys: object) -> None:
    tenant = Tenant.objects.get(pk=account.tenant_id)
    tenant.policy = {**tenant.policy, **keys}
    tenant.save(update_fields=["policy"])


def privileged(account: Account) -> ClaimedRun:
    spec = ContainerSpec(image="busybox:1", privileged=True)
    return replace(claimed("container", 1, spec.to_json()), tenant_id=account.tenant_id)


def test_what_was_opened_a_moment_ago_is_open(account: Account) -> None:
    """Catches a run that fails for good because its node remembers the policy of five seconds ago."""
    allow(account, privileged=False)
    policy.forget()
    with pytest.raises(PrepareFailed, match="does not allow privileged") as refused:
        clear(privileged(account))
    assert refused.value.reason is Reason.REJECTED

    allow(account, privileged=True)

    assert clear(privileged(account)) == Way(None, Opening("docker.io", frozenset({"any"})))


def test_how_an_image_may_be_pulled(account: Account, settings: Any) -> None:
    """As its registry is open now: a node asks it before a pull; closed meanwhile, it is not asked at all."""
    settings.GANTRY_REGISTRIES = ["docker.io=auth.docker.io"]
    spec = ContainerSpec(image="R.example/team/app:1")
    run = replace(claimed("container", 1, spec.to_json()), tenant_id=account.tenant_id)
    allow(account, registries=["http://r.example=tokens.example"])
    policy.forget()
    registries.put(account.tenant_id, "r.example", "robot", "secret")
    way = clear(run)
    assert way.opening == Opening("r.example", frozenset({"tokens.example"}), plain=True)
    assert way.credentials is not None
    allow(account, registries=None)
    policy.forget()
    with pytest.raises(PrepareFailed, match=r"not started: the registry r\.example is not open") as refused:
        clear(run)
    assert (refused.value.reason, refused.value.ours) == (Reason.REJECTED, False)


def test_a_command_that_may_not_run_any_more_is_not_started(account: Account) -> None:
    """Catches a policy that is asked at submission only: what waits would still run under the old one."""
    plain = ProcessSpec(argv=["true"])
    line = ProcessSpec(argv=["true"], policies=["runtask_cm"])

    def refused(spec: ProcessSpec) -> str:
        policy.forget()
        run = replace(claimed("process", 1, spec.to_json()), tenant_id=account.tenant_id)
        try:
            permit(run)
        except PrepareFailed as failure:
            return f"{failure.reason} {failure.ours}: {failure.message}"
        return ""

    allow(account, commands=True, runtask_cm=True)
    assert (refused(plain), refused(line)) == ("", "")
    allow(account, runtask_cm=False)
    said = "rejected False: Command was not started: the tenant's policy does not allow {} any more"
    assert (refused(plain), refused(line)) == ("", said.format("runtask_cm"))
    allow(account, commands=False, runtask_cm=True)
    assert (refused(plain), refused(line)) == (said.format("commands"),) * 2
