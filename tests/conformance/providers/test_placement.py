"""What only OpenStack has: ratios, reserved amounts, several aggregates of a host, disabled hosts, roles."""

from __future__ import annotations

import uuid

import pytest
from structlog.testing import capture_logs

from queues.providers import keystone, placement
from queues.providers.asking import Asking
from queues.providers.options import placement as read_options
from tests.support.capacity import Placement
from tests.support.openstack import REGION

pytestmark = [pytest.mark.xdist_group("openstack"), pytest.mark.django_db(transaction=True)]
real = pytest.mark.parametrize("subject", ["placement"], indirect=True)


@real
def test_totals_are_what_placement_would_allocate(subject: Placement) -> None:
    """(total - reserved) x ratio, in whole units; memory in MB, disk in GB."""
    cloud = subject.cloud
    host = cloud.provider(
        "a",
        VCPU={"total": 7, "reserved": 2, "allocation_ratio": 1.5},
        MEMORY_MB={"total": 4096, "reserved": 512},
        DISK_GB={"total": 100, "reserved": 100},
    )
    cloud.allocate(host, VCPU=2, MEMORY_MB=1024)
    subject.policy()
    assert subject.ask()
    assert subject.seen() == {"none": {"a": {"VCPU": (7, 2), "Memory": (3584, 1024), "Disk": (0, 0)}}}


@real
def test_a_host_of_several_aggregates_counts_once(subject: Placement) -> None:
    """Catches capacity that is offered twice: a host may be in a zone and in a group of SSDs."""
    one, two, three = (str(uuid.uuid4()) for _ in range(3))
    subject.cloud.provider("a", one, two, VCPU=8)
    subject.cloud.provider("b", two, three, VCPU=8)
    subject.policy(aggregates={})
    assert subject.ask()
    places = {host: place for place, hosts in subject.cpus().items() for host in hosts}
    assert places == {"a": min(one, two), "b": min(two, three)}
    subject.policy(aggregates={two: "zone 2", three: "zone 1"})
    assert subject.ask()
    assert subject.cpus() == {"zone 2": {"a": (8, 0)}, "zone 1": {"b": (8, 0)}}
    subject.policy(aggregates={one: "zone 9"})
    assert subject.ask()
    assert subject.cpus() == {"zone 9": {"a": (8, 0)}, "none": {"b": (8, 0)}}


@real
def test_what_is_no_host_or_takes_nothing_new_is_left_out(subject: Placement) -> None:
    """Catches a shared disk that is taken for a host, and instances for a host that Nova has disabled."""
    subject.cloud.provider("disks", DISK_GB=10_000)
    subject.cloud.provider("good", VCPU=8)
    bad = subject.cloud.provider("bad", VCPU=8)
    subject.policy()
    assert subject.ask()
    assert subject.cpus() == {"none": {"good": (8, 0), "bad": (8, 0)}}
    subject.cloud.disable(bad)
    assert subject.ask()
    assert subject.cpus() == {"none": {"good": (8, 0)}}


@real
def test_a_user_without_the_role_is_named(subject: Placement) -> None:
    subject.policy(username="onlooker")
    assert not subject.ask()
    assert subject.trouble() == (
        "Placement: user onlooker may not read resource providers (403): it needs the role admin or service "
        "in project admin"
    )


@real
def test_a_token_that_was_revoked_is_replaced(subject: Placement) -> None:
    """A real refusal: what Keystone has never given."""
    subject.host("one", "a", 8)
    subject.policy()
    given = read_options({**subject.options(), "secret": subject.secret})
    dead = keystone.Token("gAAAAA-never-given", f"http://127.0.0.1:{subject.cloud.placement.port}", 1e12)
    keystone._tokens[keystone._key(given)] = dead
    with capture_logs() as logs:
        assert subject.ask(), subject.trouble()
    assert subject.cpus() == {"one": {"a": (8, 0)}}
    assert dead.text not in repr(logs)
    assert keystone._tokens[keystone._key(given)] != dead


@real
def test_the_region_and_the_address_may_be_given(subject: Placement) -> None:
    subject.host("one", "a", 8)
    subject.policy(region=REGION, auth_url=subject.cloud.auth_url.removesuffix("/v3"))
    assert subject.ask(), subject.trouble()
    subject.policy(region="elsewhere")
    assert not subject.ask()
    assert "no public endpoint of placement in region elsewhere" in subject.trouble()
    subject.policy(region="elsewhere", placement_url=f"http://127.0.0.1:{subject.cloud.placement.port}/")
    assert subject.ask(), subject.trouble()


@real
def test_what_has_not_changed_is_not_read_again(subject: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches three requests for each host at every question, and a change that is not seen."""
    for name in ("a", "b", "c"):
        subject.host("one", name, 8)
    subject.policy()
    assert subject.ask()
    asked: list[str] = []
    request = Asking.request

    def counted(self: Asking, name: str, url: str, **more: object) -> object:
        asked.append(url.rpartition("/")[2].partition("?")[0])
        return request(self, name, url, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Asking, "request", counted)
    assert subject.ask()
    for_all = ["allocation_candidates", "resource_providers", "resource_providers"]
    assert sorted(asked) == for_all
    asked.clear()
    subject.host("one", "b", 9)
    full = subject.use("a", 8)
    subject.use("c", 3)
    assert subject.ask()
    assert subject.cpus()["one"] == {"a": (8, 8), "b": (9, 0), "c": (8, 3)}
    changed = ["aggregates", "inventories"] * 3
    assert sorted(asked) == sorted([*for_all, *changed, "usages"]), "the full one is asked for alone"
    subject.give_back(full)
    assert subject.ask()
    assert subject.cpus()["one"]["a"] == (8, 0)


@real
def test_an_older_placement_is_asked_host_by_host(
    subject: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not know the version in which candidates tell enough."""
    monkeypatch.setattr(placement, "_VERSION_OF_CANDIDATES", "placement 1.999")
    for name in ("a", "b"):
        subject.host("one", name, 8)
    subject.use("a", 3)
    subject.policy()
    assert subject.ask(), subject.trouble()
    assert subject.cpus() == {"one": {"a": (8, 3), "b": (8, 0)}}
