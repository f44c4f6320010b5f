"""Kubernetes, through its official client: what nodes can give, less what the pods on them ask for.

The client makes the requests (paths, parameters, credentials) and reads refusals; they travel through the
guard of addresses like all others, by a stand-in for the client's own HTTP half. So its proxies, redirects,
retries and look-ups do not exist here. Loading the client takes 1.7 s of CPU and 87 MiB: only who asks a
cluster imports this module.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from kubernetes.client import ApiClient, Configuration, CoreV1Api
from kubernetes.client.exceptions import ApiException

from queues.providers import nodes, options
from queues.providers.asking import Answer, Asking, as_documented, parsed
from queues.providers.base import Reported, Trouble, grouped

NAME: Final = "Kubernetes"
#: Objects of one page.
_PAGE: Final = 500
#: A list whose pages expire under our hands (410) is begun again so often.
_BEGINNINGS: Final = 3
#: An object of Kubernetes as its JSON has it.
Item = Mapping[str, Any]
T = TypeVar("T")
_NOT_ENDED: Final = "status.phase!=Succeeded,status.phase!=Failed"


def make(given: Mapping[str, Any]) -> Kubernetes:
    """A cluster, as a policy's options say."""
    return Kubernetes(options.kubernetes(given))


class Kubernetes:
    """One cluster. Its lists are read without a version: as old answers from a cache are not wanted."""

    def __init__(self, given: options.Kubernetes) -> None:
        self._options = given

    def capacity(self) -> list[Reported]:
        given = self._options
        asking = Asking(authority=given.ca, secrets=[given.secret])
        tolerate = frozenset(given.tolerate)

        def node(item: Item) -> tuple[str, str, nodes.Amounts] | None:
            return nodes.node_of(item, label=given.aggregate_label, tolerate=tolerate)

        with _client(given, asking) as client:
            api = CoreV1Api(client)
            # First the nodes: a pod that comes to one in between is counted.
            found = _all(asking, "nodes", api.list_node, node)
            pods = _all(
                asking, "pods", api.list_pod_for_all_namespaces, nodes.use_of, field_selector=_NOT_ENDED
            )
        used: dict[str, Counter[str]] = defaultdict(Counter)
        for name, amounts in pods:
            used[name].update(amounts)
        return grouped(
            (aggregate, nodes.host_of(name, total, used[name])) for aggregate, name, total in found
        )


def _client(given: options.Kubernetes, asking: Asking) -> ApiClient:
    configuration = Configuration(host=given.server)
    configuration.proxy = None  # it takes one from the environment
    configuration.api_key = {"authorization": given.secret}
    configuration.api_key_prefix = {"authorization": "Bearer"}
    client = ApiClient(configuration)
    client.rest_client = _Guarded(asking)
    return client


class _Guarded:
    """Stands where the client's urllib3 would be; lists need no other verb."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def GET(  # noqa: N802  the client's name
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        query_params: list[tuple[str, Any]] | None = None,
        **_: object,
    ) -> Answer:
        query = f"?{urlencode(query_params)}" if query_params else ""
        answer = self._asking.request(NAME, url + query, headers=headers)
        if answer.status != 200:
            refused = ApiException(status=answer.status)
            refused.body = answer.data
            raise refused
        return answer


def _all(
    asking: Asking,
    what: str,
    call: Callable[..., Answer],
    read: Callable[[Item], T | None],
    **parameters: Any,
) -> list[T]:
    for _ in range(_BEGINNINGS):
        try:
            return [found for page in _pages(what, call, read, parameters) for found in page]
        except ApiException as refused:
            if refused.status != 410:
                raise Trouble(_refusal(asking, what, refused)) from None
    raise Trouble(f"{NAME}: its list of {what} expires while it is read (410)")


def _pages(
    what: str, call: Callable[..., Answer], read: Callable[[Item], T | None], parameters: Mapping[str, Any]
) -> Iterator[list[T]]:
    """Read from the JSON, page by page: to make the client's objects of it takes longer than all the rest."""
    token = None
    while True:
        answer = call(limit=_PAGE, _continue=token, _preload_content=False, **parameters)
        with as_documented(NAME, what):
            page = parsed(NAME, answer)
            found = [read(item) for item in page["items"]]
            token = page["metadata"].get("continue")
            if not isinstance(token, str | None):
                raise TypeError("no token")
        yield [each for each in found if each is not None]
        if not token:
            return


def _refusal(asking: Asking, what: str, refused: ApiException) -> str:
    try:
        said = asking.printable(str(json.loads(refused.body)["message"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        said = ""
    texts = {
        401: f"{NAME}: it refuses the token (401): it is wrong, has expired, or its service account is gone",
        403: f"{NAME}: the token's account may not list {what} of the whole cluster (403)",
        404: f"{NAME}: there is no Kubernetes API at options.server (404)",
    }
    text = texts.get(refused.status, f"{NAME}: it answers {refused.status} to the list of {what}")
    return f"{text}: {said}" if said else text
