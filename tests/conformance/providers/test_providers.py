"""What every provider of capacity promises (queues/providers/base.py), as the database has it afterwards.

Placement and Keystone are the real services; Kubernetes is the tests' own server, since no cluster can run
here; declared pools are written instead of asked.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from queues.models import HostResource
from tests.support.capacity import Subject
from tests.support.waiting import limit

#: One process has the two services, whatever asks for them.
pytestmark = [pytest.mark.xdist_group("openstack"), pytest.mark.django_db(transaction=True)]

EXTERNAL = ["placement", "kubernetes"]
everybody = pytest.mark.parametrize("subject", ["pools", *EXTERNAL], indirect=True)
external = pytest.mark.parametrize("subject", EXTERNAL, indirect=True)


@everybody
def test_aggregates_hosts_and_amounts(subject: Subject) -> None:
    """Catches a host that is lost, in a wrong aggregate, or counted twice."""
    for name in ("a", "b", "c"):
        subject.host("one", name, 8)
    subject.host("two", "d", 4)
    subject.policy()
    assert subject.ask()
    assert subject.cpus() == {
        "one": {"a": (8, 0), "b": (8, 0), "c": (8, 0)},
        "two": {"d": (4, 0)},
    }
    assert subject.trouble() == ""


@everybody
def test_a_host_grows_shrinks_and_remembers_its_largest(subject: Subject) -> None:
    """Catches an inventory that is read once and never again."""
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    for size in (16, 2):
        subject.host("one", "a", size)
        assert subject.ask()
        assert subject.cpus() == {"one": {"a": (size, 0)}}
    assert HostResource.objects.get(name=subject.cpu).largest == 16_000


@everybody
def test_what_vanishes_is_nothing_and_comes_back(subject: Subject) -> None:
    """Catches capacity that stays after its host or the whole aggregate has gone."""
    for aggregate, name in (("one", "a"), ("one", "b"), ("two", "c")):
        subject.host(aggregate, name, 8)
    subject.policy()
    assert subject.ask()
    subject.forget("a")
    subject.forget("c")
    assert subject.ask()
    assert subject.cpus() == {"one": {"b": (8, 0)}}
    gone = HostResource.objects.filter(host__name__in=["a", "c"])
    assert {(row.total, row.outside) for row in gone} == {(0, 0)}
    subject.host("one", "a", 8)
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (8, 0), "b": (8, 0)}}


@external
def test_what_others_use_is_counted_and_given_back(subject: Subject) -> None:
    """Catches usage that is read once, and what is given back without a new generation of its host."""
    subject.host("one", "a", 8)
    subject.host("one", "b", 8)
    subject.policy()
    first = subject.use("a", 3)
    second = subject.use("a", 2)
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (8, 5), "b": (8, 0)}}
    subject.give_back(first)
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (8, 2), "b": (8, 0)}}
    subject.give_back(second)
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (8, 0), "b": (8, 0)}}


@external
def test_a_host_may_shrink_below_what_is_used(subject: Subject) -> None:
    subject.host("one", "a", 8)
    subject.use("a", 6)
    subject.policy()
    assert subject.ask()
    subject.host("one", "a", 4)
    assert subject.ask()
    assert subject.cpus() == {"one": {"a": (4, 6)}}


@external
def test_nobody_there(subject: Subject) -> None:
    """A provider without hosts answers: there is nothing."""
    subject.policy()
    assert subject.ask()
    assert subject.seen() == {}


@external
def test_silence_ends_in_time(subject: Subject, settings: Any) -> None:
    """Catches a question that waits for ever, and one whose requests each have the whole time."""
    for name in ("a", "b", "c"):
        subject.host("one", name, 8)
    subject.policy()
    assert subject.ask()
    before = subject.seen()
    settings.GANTRY_QUEUE_PROVIDER_S = 1.0
    subject.freeze()
    began = time.monotonic()
    assert not subject.ask()
    assert time.monotonic() - began < limit(10)
    assert "it took longer than 1 s" in subject.trouble()
    assert subject.seen() == before, "what was known is not touched; its age is what stops admission"
    subject.mend()
    settings.GANTRY_QUEUE_PROVIDER_S = limit(60.0)
    assert subject.ask()
    assert subject.trouble() == ""


@external
def test_a_connection_that_is_cut(subject: Subject) -> None:
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask()
    subject.cut()
    assert not subject.ask()
    assert subject.trouble().startswith(f"{subject.provider.title()}: http://127.0.0.1:")
    subject.mend()
    assert subject.ask()


@external
def test_wrong_credentials_are_named_and_not_shown(subject: Subject) -> None:
    """Catches a secret in what operators read or in the log."""
    wrong = subject.wrong_secret()
    subject.host("one", "a", 8)
    subject.policy(secret=wrong)
    with capture_logs() as logs:
        assert not subject.ask()
    trouble = subject.trouble()
    assert "(401)" in trouble
    assert "refuses" in trouble
    assert wrong not in trouble + repr(logs)
    (told,) = [line for line in logs if line["event"] == "queues.provider_trouble"]
    assert told["error"] == trouble
    assert subject.seen() == {}
    subject.policy()
    with capture_logs() as logs:
        assert subject.ask()
    assert subject.secret not in repr(logs)


@external
def test_private_networks_need_the_operators_word(subject: Subject, settings: Any) -> None:
    settings.GANTRY_QUEUE_ALLOW_NETWORKS = []
    subject.policy()
    assert not subject.ask()
    assert "GANTRY_QUEUE_ALLOW_NETWORKS" in subject.trouble()


@external
def test_proxies_of_the_environment_are_not_asked(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a client that sends credentials through whatever the environment names."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    subject.host("one", "a", 8)
    subject.policy()
    assert subject.ask(), subject.trouble()


@external
def test_options_that_cannot_work_are_trouble(subject: Subject) -> None:
    """They were checked when they were written: this is what an older version may have left."""
    subject.policy(more="x")
    assert not subject.ask()
    assert subject.trouble().startswith("options.more: ")
