"""Bodies as they arrive: whole, cut, too slow, too long, too many at once; long ones piece by piece."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from typing import Any

import pytest
from pytest_django import Settings

from config.http.bodies import CutBody, FailedBody, SlowBody
from config.serving import arrivals
from config.serving.arrivals import Arrivals, LongBody, Receive
from tests.support.waiting import limit

END: Mapping[str, Any] = {"type": "http.request", "body": b"", "more_body": False}
CUT: Mapping[str, Any] = {"type": "http.disconnect"}


def pieces(*parts: bytes, then: Mapping[str, Any] = END) -> Receive:
    """What a server tells of a body, one after the other; ``then`` in the end."""
    coming = iter([*({"type": "http.request", "body": part, "more_body": True} for part in parts), then])

    async def receive() -> Mapping[str, Any]:
        return next(coming)

    return receive


def stuck(part: bytes) -> Receive:
    """It sends ``part``, and nothing after it."""
    coming = iter([part])

    async def receive() -> dict[str, Any]:
        for body in coming:
            return {"type": "http.request", "body": body, "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def whole(receive: Receive, most: int = 100, length: int | None = None) -> tuple[Any, int]:
    return asyncio.run(asyncio.wait_for(Arrivals().whole(receive, most, length), limit(60)))


def test_what_arrives(settings: Settings) -> None:
    """Catches a cut body that is taken for a whole one, and a wait for what has all come."""
    body, size = whole(pieces(b"ab", b"", b"c"))
    assert (body.read(), size) == (b"abc", 3)
    assert whole(stuck(b"abc"), length=3)[0].read() == b"abc"
    assert whole(pieces(b"x" * 60, b"y" * 60))[1] == 120, "longer than it may be: the length says so"
    settings.GANTRY_BODY_S = 0.05
    for receive, error in ((pieces(b"ab", then=CUT), CutBody), (stuck(b"ab"), SlowBody)):
        body, size = whole(receive)
        assert size > 0, "who looks at the length reads it"
        for read in (body.read, body.readline, lambda body=body: list(body), lambda body=body: body.read(1)):
            with pytest.raises(error):
                read()


def test_the_oldest_gives_way_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches memory that grows with the number of slow clients, and an honest one that pays for them."""
    monkeypatch.setattr(arrivals, "MEMORY", 100)

    async def crowd() -> None:
        here = Arrivals()
        held = [asyncio.ensure_future(here.whole(stuck(b"x" * 40), 1000)) for _ in range(3)]
        done, _ = await asyncio.wait(held, timeout=limit(60), return_when=asyncio.FIRST_COMPLETED)
        assert done == {held[0]}
        assert isinstance(held[0].result()[0], FailedBody)
        body, size = await here.whole(pieces(b"y" * 10), 1000)
        assert (body.read(), size) == (b"y" * 10, 10)
        assert here._all == 80
        for each in held:
            each.cancel()
        await asyncio.wait(held)
        assert here._all == 0

    asyncio.run(crowd())


def test_a_long_body_is_read_as_it_comes(settings: Settings) -> None:
    """Catches one that is held in memory whole, a cut one that looks whole, and an endless wait."""

    async def read(receive: Receive, length: int) -> bytes:
        body = io.BufferedReader(LongBody(receive, length))
        return await asyncio.to_thread(body.read)

    assert asyncio.run(read(pieces(b"ab", b"", b"cd"), 4)) == b"abcd"
    with pytest.raises(CutBody):
        asyncio.run(read(pieces(b"ab", then=CUT), 4))
    settings.GANTRY_BODY_S = 0.05
    with pytest.raises(SlowBody):
        asyncio.run(read(stuck(b"ab"), 4))
