"""OpenStack Placement: hosts with VCPU, memory and disk, by Placement's aggregates.

Source: https://docs.openstack.org/api-ref/placement/ . Inventories and usages are read and packed by us: the
candidates for a whole request multiply with each of its instances. Usages are read at each question, those of
all hosts with something free by one request; what an operator changes (inventories, aggregates) only when
the generation of its provider has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from queues import needs
from queues.pools import HostAmounts
from queues.providers import keystone, options
from queues.providers.asking import Answer, Asking, as_documented, for_each, parsed
from queues.providers.base import Reported, Trouble, grouped
from workers.vocabulary.errors import InvalidInput

NAME: Final = "Placement"
#: The API's version in which aggregates have a generation (OpenStack Queens); newer ones are not needed.
_VERSION: Final = "placement 1.19"
#: Where candidates tell of all resources of their hosts, those of nested providers, too (Rocky).
_VERSION_OF_CANDIDATES: Final = "placement 1.29"
#: Placement's resource classes -> the names that requests of type vm use.
_CLASSES: Final = {"VCPU": "VCPU", "MEMORY_MB": "Memory", "DISK_GB": "Disk"}
#: Nova says so of a host that takes no new instances.
_DISABLED: Final = "COMPUTE_STATUS_DISABLED"
#: Where a host is that no aggregate has.
ELSEWHERE: Final = "none"
#: What an older client of Placement changes without a new generation is seen after this, in seconds.
_KEPT_S: Final = 300.0
_MOST_KEPT: Final = 50_000


@dataclass(frozen=True)
class _Known:
    """What a resource provider has and where it is, as long as its generation is this one."""

    generation: int
    totals: Mapping[str, int]
    aggregates: tuple[str, ...]
    read_at: float


_known: dict[tuple[str, str], _Known] = {}
_lock: Final = threading.Lock()


def make(given: Mapping[str, Any]) -> Placement:
    """Placement, as a policy's options say."""
    return Placement(options.placement(given))


class Placement:
    """All resource providers that have VCPUs, with what Nova and others have allocated there."""

    def __init__(self, given: options.Placement) -> None:
        self._options = given

    def capacity(self) -> list[Reported]:
        return _Question(self._options).capacity()


class _Question:
    """One question: three requests for all; one for each full host, two for each that has changed."""

    def __init__(self, given: options.Placement) -> None:
        self._options = given
        self._asking = Asking(authority=given.ca, secrets=[given.secret])
        self._token = keystone.token_of(self._asking, given)
        self._url = given.placement_url or self._token.placement_url
        if not self._url:
            where = f" in region {given.region}" if given.region else ""
            raise Trouble(
                f"{keystone.NAME}: its catalog has no public endpoint of placement{where}: "
                "give options.placement_url"
            )
        self._renewing = threading.Lock()
        self._usages: dict[str, Mapping[str, Any]] = {}

    def capacity(self) -> list[Reported]:
        listed = self._listed("/resource_providers")
        with as_documented(NAME, "its resource providers"):
            providers = {str(each["uuid"]): (str(each["name"]), int(each["generation"])) for each in listed}
        for uuid in self._disabled():
            providers.pop(uuid, None)
        self._usages = self._usages_of_many()
        found: list[tuple[str, HostAmounts]] = []

        def read(uuid: str) -> None:
            name, generation = providers[uuid]
            known = self._what_is_known(uuid, generation)
            if known is not None and "VCPU" in known.totals:
                used = self._used(uuid, known.totals)
                if used is not None:
                    found.append((self._aggregate(known), HostAmounts(name, known.totals, used)))

        for_each(providers, read)
        return grouped(found)

    def _disabled(self) -> list[str]:
        """Those that take nothing new. A Placement that has never heard of the trait has none (400)."""
        answer = self._get(f"/resource_providers?required={_DISABLED}")
        if answer.status == 400:
            return []
        with as_documented(NAME, "its resource providers"):
            return [str(each["uuid"]) for each in self._checked(answer)["resource_providers"]]

    def _usages_of_many(self) -> dict[str, Mapping[str, Any]]:
        """By uuid, of hosts that have a VCPU free: these are the candidates for one, each of them once.

        Whoever is missing (the full ones; all, where Placement is older or limits its answers) is asked for
        alone.
        """
        answer = self._get("/allocation_candidates?resources=VCPU:1", _VERSION_OF_CANDIDATES)
        if answer.status in (400, 406):
            return {}
        with as_documented(NAME, "its allocation candidates"):
            summaries = self._checked(answer)["provider_summaries"]
            return {
                str(uuid): {name: amounts["used"] for name, amounts in each["resources"].items()}
                for uuid, each in summaries.items()
            }

    def _what_is_known(self, uuid: str, generation: int) -> _Known | None:
        """None: it has gone since it was listed."""
        key = (self._url, uuid)
        now = time.monotonic()
        with _lock:
            known = _known.get(key)
        if known is not None and known.generation == generation and now - known.read_at < _KEPT_S:
            return known
        inventories = self._get(f"/resource_providers/{uuid}/inventories")
        aggregates = self._get(f"/resource_providers/{uuid}/aggregates")
        if 404 in (inventories.status, aggregates.status):
            return None
        with as_documented(NAME, f"resource provider {uuid}"):
            found = self._checked(inventories)
            placed = self._checked(aggregates)
            totals = {
                ours: _capacity(found["inventories"][theirs])
                for theirs, ours in _CLASSES.items()
                if theirs in found["inventories"]
            }
            known = _Known(
                # Only what both answers say of one generation is kept for the next question.
                int(found["resource_provider_generation"])
                if found["resource_provider_generation"] == placed["resource_provider_generation"]
                else -1,
                totals,
                tuple(sorted(str(each) for each in placed["aggregates"])),
                now,
            )
        with _lock:
            if len(_known) >= _MOST_KEPT:
                _known.clear()
            _known[key] = known
        return known

    def _used(self, uuid: str, totals: Mapping[str, int]) -> dict[str, int] | None:
        """What is used of these; None: it has gone since it was listed."""
        usages = self._usages.get(uuid, {})
        if not all(theirs in usages for theirs, ours in _CLASSES.items() if ours in totals):
            answer = self._get(f"/resource_providers/{uuid}/usages")
            if answer.status == 404:
                return None
            with as_documented(NAME, f"resource provider {uuid}"):
                usages = self._checked(answer)["usages"]
        with as_documented(NAME, f"resource provider {uuid}"):
            return {ours: _thousandths(usages[theirs]) for theirs, ours in _CLASSES.items() if ours in totals}

    def _aggregate(self, known: _Known) -> str:
        """A host counts once: in the first of its aggregates by name, of those with a name if any has one."""
        names = self._options.aggregates
        if names:
            return min((names[each] for each in known.aggregates if each in names), default=ELSEWHERE)
        return min(known.aggregates, default=ELSEWHERE)

    def _listed(self, path: str) -> list[dict[str, Any]]:
        with as_documented(NAME, "its resource providers"):
            found: list[dict[str, Any]] = self._checked(self._get(path))["resource_providers"]
            return found

    def _get(self, path: str, version: str = _VERSION) -> Answer:
        """A token that is refused is replaced once."""
        token = self._token
        answer = self._with(token, path, version)
        if answer.status == 401:
            with self._renewing:
                if self._token is token:
                    self._token = keystone.token_of(self._asking, self._options, instead_of=token)
            answer = self._with(self._token, path, version)
        return answer

    def _with(self, token: keystone.Token, path: str, version: str) -> Answer:
        sent = {"X-Auth-Token": token.text, "OpenStack-API-Version": version}
        return self._asking.request(NAME, self._url + path, headers=sent)

    def _checked(self, answer: Answer) -> dict[str, Any]:
        if answer.status == 200:
            found: dict[str, Any] = parsed(NAME, answer)
            return found
        user = self._options.username
        raise Trouble(
            {
                401: f"{NAME}: it refuses tokens that Keystone has just given (401)",
                403: f"{NAME}: user {user} may not read resource providers (403): it needs the role admin "
                f"or service in project {self._options.project}",
                404: f"{NAME}: there is no Placement API at {self._url} (404)",
                406: f"{NAME}: it is older than version {_VERSION.split()[1]} of its API (406)",
            }.get(answer.status, f"{NAME}: it answers {answer.status}")
        )


def _capacity(inventory: Mapping[str, Any]) -> int:
    """As Placement counts: what is left of the total, times the ratio, whole units. Thousandths."""
    left = int(inventory["total"]) - int(inventory["reserved"])
    return _thousandths(max(0, int(left * float(inventory["allocation_ratio"]))))


def _thousandths(whole: int) -> int:
    try:
        return needs.amount(int(whole), "amount")
    except InvalidInput:
        raise ValueError("no amount") from None
