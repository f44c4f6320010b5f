"""How external systems are asked over HTTP: through the guard of addresses, in a bounded time, JSON of a
bounded size. Whatever goes wrong is Trouble with a sentence that holds no secret.
"""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.conf import settings

from queues.providers.base import Trouble
from workers.addresses import Deadline, open_url
from workers.vocabulary.errors import EngineError

#: Of one answer. Five thousand hosts are a few MiB; what never ends must not fill a worker's memory.
MOST_BYTES: Final = 32 * 1024 * 1024
#: Of all answers to one question.
MOST_BYTES_IN_ALL: Final = 8 * MOST_BYTES
#: Requests of one question at a time.
_AT_ONCE: Final = 8
#: Whose networks an operator has opened: GANTRY_QUEUE_ALLOW_NETWORKS.
_PURPOSE: Final = "queue"
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """An answer as it came, whatever its status."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Asking:
    """One question to an external system: all requests that it takes share one time limit.

    What is in ``secrets`` never gets into a text of Trouble.
    """

    def __init__(self, *, authority: str = "", secrets: Iterable[str] = ()) -> None:
        limit = settings.GANTRY_QUEUE_PROVIDER_S
        self._deadline = Deadline(limit, stall_s=2 * limit)  # no shorter silence ends it
        self._authority = authority
        self._secrets = set(secrets)
        self._bytes = 0

    def hide(self, secret: str) -> None:
        """A secret that was learned on the way."""
        self._secrets.add(secret)

    def request(
        self,
        name: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request to the system of this name. Trouble: there is no answer, or none that is for us."""
        try:
            with open_url(
                url,
                purpose=_PURPOSE,
                deadline=self._deadline,
                method=method,
                headers={"Accept": "application/json", **(headers or {})},
                body=body,
                authority=self._authority,
            ) as answer:
                if 300 <= answer.status < 400:
                    raise Trouble(f"{name}: {answer.target.shown} redirects elsewhere, which is not followed")
                data = answer.body(MOST_BYTES + 1)
                self._bytes += len(data)
                if len(data) > MOST_BYTES or self._bytes > MOST_BYTES_IN_ALL:
                    most = (MOST_BYTES if len(data) > MOST_BYTES else MOST_BYTES_IN_ALL) // 1024**2
                    raise Trouble(f"{name}: {answer.target.shown} answers with more than {most} MiB")
                return Answer(answer.status, dict(answer.headers.items()), data)
        except EngineError as error:
            raise Trouble(f"{name}: {self.printable(error.message, 400)}") from None

    def printable(self, text: str, length: int = 200) -> str:
        """What somebody else has said, as a part of a text of ours."""
        for secret in self._secrets:
            if len(secret) >= 4:
                text = text.replace(secret, "***")
        return _UNPRINTABLE.sub(" ", text).strip()[:length]


def parsed(name: str, answer: Answer) -> Any:
    """The JSON of an answer."""
    try:
        return json.loads(answer.data)
    except (ValueError, RecursionError):
        raise Trouble(f"{name}: it answers {answer.status} with something that is no JSON") from None


@contextmanager
def as_documented(name: str, what: str) -> Iterator[None]:
    """Around the reading of an answer: what lacks a field, or has another kind of value in it, is Trouble."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise Trouble(f"{name}: what it says of {what} is not what its API documents") from None


def for_each(items: Iterable[T], work: Callable[[T], None]) -> None:
    """Do ``work`` for all items, a few at a time; the first error ends it. Bounded by what bounds ``work``.

    Threads that die with the process, not those of an executor, which a worker that ends would wait for.
    """
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    count = 0
    for item in items:
        waiting.put(item)
        count += 1
    errors: list[Exception] = []

    def drain() -> None:
        while not errors:
            try:
                work(waiting.get_nowait())
            except queue.Empty:
                return
            except Exception as error:  # noqa: BLE001  it is raised where it is waited for
                errors.append(error)

    threads = [
        threading.Thread(target=drain, name="provider-request", daemon=True)
        for _ in range(min(_AT_ONCE, count))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
