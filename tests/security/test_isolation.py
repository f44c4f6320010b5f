"""A node says of commands what its kernel lets it do, and gives no tenant less without an operator's word.

For root: what an ordinary user's worker offers is its own account (tests/acceptance/test_commands.py).
"""

from __future__ import annotations

import os
from typing import Any

from tests.support.cluster import Cluster
from tests.support.engine import output, run, submit, wait_final
from tests.support.fixtures import Account, make_account
from tests.support.waiting import wait_until
from workers import services
from workers.models import Node, Tenant
from workers.vocabulary.states import State

#: As docker-compose.yml starts the worker: root that may not make namespaces.
UNABLE = ("setpriv", "--bounding-set", "-sys_admin", "--no-new-privs", "--")

if os.geteuid() == 0:

    def test_without_namespaces_a_node_claims_none_and_foreign_tenants_wait(
        cluster: Cluster, account: Account
    ) -> None:
        """Catches a node that calls a user for each command isolation: their /tmp, command lines and
        world-writable folders are everybody's; and a policy that a worker remembers for ever."""
        worker = cluster.node(under=UNABLE)
        node = Node.objects.get()
        assert (node.isolates_users, node.attributes["isolation"]) == (False, "uids")
        assert "runtime.half_isolated" in worker.text()
        other = make_account("other")
        waiting = submit(other.tenant_id, "echo served")
        assert wait_final(submit(account.tenant_id, "echo own"))[0].state == State.SUCCEEDED
        assert run(waiting).state == State.PENDING
        told: Any = services.explain(other.tenant_id, waiting)["reasons"]
        assert told[0]["code"] == "not_isolated"
        assert "others see their command lines and /tmp" in told[0]["message"]
        assert "SYS_ADMIN" in told[0]["remedy"]
        assert "commands_unisolated" in told[0]["remedy"]
        Tenant.objects.filter(pk=other.tenant_id).update(policy={"commands_unisolated": True})
        wait_until(lambda: run(waiting).state == State.SUCCEEDED, why="what was opened is noticed")
        assert output(waiting) == b"served\n"

    def test_with_namespaces_it_claims_them_and_serves_everybody(cluster: Cluster) -> None:
        """Whatever its operator calls it: an attribute of one's own choice claims nothing."""
        cluster.node(attributes="isolation=none")
        node = Node.objects.get()
        assert (node.isolates_users, node.attributes["isolation"]) == (True, "namespaces")
        (ended,) = wait_final(submit(make_account("other").tenant_id, "echo served"))
        assert ended.state == State.SUCCEEDED
