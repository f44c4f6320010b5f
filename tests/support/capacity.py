"""External systems of capacity, and declared pools, behind the same verbs: what tests of providers act on.

``cpu`` is the one resource that all have; amounts are whole units.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

from queues import pools
from queues.models import HostResource, TypePolicy
from queues.needs import UNIT
from queues.providers import keystone, refresh
from tests.support import kubernetes
from tests.support.openstack import Cloud
from tests.support.proxy import Proxy
from workers import secrets
from workers.models import Tenant

#: {aggregate: {host: {resource: (what it has, what others use)}}}, whole units.
Seen = dict[str, dict[str, dict[str, tuple[float, float]]]]


class Subject(abc.ABC):
    """One provider with what it tells of; starts empty."""

    provider: ClassVar[str]
    #: The type of its requests, and its name for processors.
    kind: ClassVar[str]
    cpu: ClassVar[str]
    #: Is it asked, and does it know what others use?
    external: ClassVar[bool] = True

    @abc.abstractmethod
    def host(self, aggregate: str, name: str, cpu: int) -> None:
        """There is a host with so much, or it has become so large."""

    @abc.abstractmethod
    def forget(self, name: str) -> None:
        """The host is not there any more."""

    def use(self, host: str, cpu: int) -> str:
        """Somebody else uses so much; returns by which name it is given back."""
        raise AssertionError(f"{self.provider} knows of nobody else: {cpu} of {host} cannot be used")

    def give_back(self, name: str) -> None:
        """What ``use`` gave this name is free again."""
        raise AssertionError(f"{self.provider} knows of nobody else: {name} was never used")

    def options(self) -> dict[str, Any]:
        """A policy's options, without the secret."""
        return {}

    @property
    def secret(self) -> str:
        return ""

    def wrong_secret(self) -> str:
        """One that is refused, of the same form."""
        return f"wrong-{uuid.uuid4().hex}"

    def cut(self) -> None:  # noqa: B027  declared pools have nothing to break
        """It refuses connections until ``mend``."""

    def freeze(self) -> None:  # noqa: B027  declared pools have nothing to break
        """It takes connections and says nothing until ``mend``."""

    def mend(self) -> None:  # noqa: B027  declared pools have nothing to break
        """It answers again."""

    def stop(self) -> None:  # noqa: B027  declared pools have nothing to break
        """It is not needed any more."""

    # --- what Gantry makes of it ---------------------------------------------------------------------

    def policy(self, *, secret: str | None = None, mode: str = "strict", **options: Any) -> TypePolicy:
        """The type's policy; capacity is asked for by ``ask``."""
        TypePolicy.objects.filter(type=self.kind).delete()
        tenant, _ = Tenant.objects.get_or_create(name="default")
        stored = secrets.store(tenant.pk, "queue", secret or self.secret) if self.external else None
        return TypePolicy.objects.create(
            type=self.kind,
            mode=mode,
            provider=self.provider,
            options={**self.options(), **options},
            secret_id=stored,
        )

    def ask(self) -> bool:
        """Ask now, however lately that was done; whether it answered."""
        if not self.external:
            return True
        TypePolicy.objects.filter(type=self.kind).update(asked_at=None)
        return refresh.refresh(TypePolicy.objects.get(type=self.kind))

    def trouble(self) -> str:
        return TypePolicy.objects.get(type=self.kind).trouble

    def seen(self) -> Seen:
        """What the database has of it now."""
        found: Seen = {}
        for row in HostResource.objects.filter(
            host__removed_at=None, host__aggregate__removed_at=None, host__aggregate__type=self.kind
        ).select_related("host__aggregate"):
            hosts = found.setdefault(row.host.aggregate.name, {})
            hosts.setdefault(row.host.name, {})[row.name] = (row.total / UNIT, row.outside / UNIT)
        return found

    def cpus(self) -> dict[str, dict[str, tuple[float, float]]]:
        """The same for processors only."""
        return {
            aggregate: {host: amounts[self.cpu] for host, amounts in hosts.items()}
            for aggregate, hosts in self.seen().items()
        }


class Pools(Subject):
    """Declared ones."""

    provider, kind, cpu, external = "pools", "vm", "VCPU", False

    def __init__(self) -> None:
        self._hosts: dict[str, dict[str, int]] = {}

    def host(self, aggregate: str, name: str, cpu: int) -> None:
        self._hosts.setdefault(aggregate, {})[name] = cpu
        self._declare(aggregate)

    def forget(self, name: str) -> None:
        (aggregate,) = [each for each, hosts in self._hosts.items() if name in hosts]
        del self._hosts[aggregate][name]
        if self._hosts[aggregate]:
            self._declare(aggregate)
        else:
            del self._hosts[aggregate]
            pools.remove(self.kind, aggregate)

    def _declare(self, aggregate: str) -> None:
        amounts = self._hosts[aggregate].items()
        hosts = [pools.HostAmounts(name, {self.cpu: cpu * UNIT}, {}) for name, cpu in amounts]
        pools.declare(self.kind, aggregate, hosts)


class Placement(Subject):
    """The real service, with a real Keystone."""

    provider, kind, cpu = "placement", "vm", "VCPU"

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._hosts: dict[str, str] = {}
        self._aggregates: dict[str, str] = {}
        cloud.clear()
        keystone.forget_tokens()

    def host(self, aggregate: str, name: str, cpu: int) -> None:
        amounts = {"VCPU": cpu, "MEMORY_MB": 64_000, "DISK_GB": 1000}
        if name in self._hosts:
            self.cloud.inventories(self._hosts[name], **amounts)
            return
        place = self._aggregates.setdefault(aggregate, str(uuid.uuid4()))
        self._hosts[name] = self.cloud.provider(name, place, **amounts)

    def forget(self, name: str) -> None:
        self.cloud.forget(self._hosts.pop(name))

    def use(self, host: str, cpu: int) -> str:
        return self.cloud.allocate(self._hosts[host], VCPU=cpu)

    def give_back(self, name: str) -> None:
        self.cloud.release(name)

    def options(self) -> dict[str, Any]:
        return self.cloud.options(aggregates={place: name for name, place in self._aggregates.items()})

    @property
    def secret(self) -> str:
        return self.cloud.password

    def uuid(self, host: str) -> str:
        return self._hosts[host]

    def cut(self) -> None:
        self.cloud.placement.cut()

    def freeze(self) -> None:
        self.cloud.placement.freeze()

    def mend(self) -> None:
        self.cloud.placement.mend()
        self.cloud.placement.thaw()


class Kubernetes(Subject):
    """The tests' own server, since no cluster can run here; every list comes in pages of two."""

    provider, kind, cpu = "kubernetes", "kube", "cpu"

    def __init__(self) -> None:
        self._ended = contextlib.ExitStack()
        self.server = self._ended.enter_context(kubernetes.ApiServer())
        self.server.page = 2
        self.proxy = self._ended.enter_context(Proxy(("127.0.0.1", self.server.port)))
        self._numbers = itertools.count()

    def host(self, aggregate: str, name: str, cpu: int) -> None:
        labels = {"zone": aggregate}
        self.server.node(name, labels=labels, cpu=str(cpu), memory="64Gi", pods="110")

    def forget(self, name: str) -> None:
        del self.server.objects["nodes"][name]

    def use(self, host: str, cpu: int) -> str:
        name = f"pod-{next(self._numbers)}"
        self.server.pod(name, host, cpu=str(cpu))
        return name

    def give_back(self, name: str) -> None:
        del self.server.objects["pods"][name]

    def options(self) -> dict[str, Any]:
        return {"server": f"http://127.0.0.1:{self.proxy.port}", "aggregate_label": "zone"}

    @property
    def secret(self) -> str:
        return kubernetes.TOKEN

    def cut(self) -> None:
        self.proxy.cut()

    def freeze(self) -> None:
        self.proxy.freeze()

    def mend(self) -> None:
        self.proxy.mend()
        self.proxy.thaw()

    def stop(self) -> None:
        self._ended.close()


@contextlib.contextmanager
def subject(name: str, cloud: Cloud | None) -> Iterator[Subject]:
    """The subject of this provider. ``cloud`` is needed for placement."""
    made: Subject
    if name == "placement":
        assert cloud is not None
        made = Placement(cloud)
    else:
        made = Kubernetes() if name == "kubernetes" else Pools()
    try:
        yield made
    finally:
        made.mend()
        made.stop()
