"""The ASGI application: a coroutine for each request, Django in a thread, long answers piece by piece."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse

from config.http import bodies, errors
from config.serving import sockets
from config.serving.arrivals import Arrivals, LongBody, Receive
from config.serving.environ import environ_of, headers_of, path_of
from config.serving.places import Places
from config.serving.turns import Turn, Turns
from workers.logs import aside
from workers.vocabulary.errors import Unavailable

log = structlog.get_logger("gantry.serving")

Send = Callable[[dict[str, Any]], Awaitable[Any]]

#: An answer of more bytes is long.
LONG: Final = 128 * 1024
#: What is given to the server at once, in bytes: it keeps four of them.
PIECE: Final = 64 * 1024
#: So long a long answer waits for a place, in seconds.
PATIENCE_S: Final = 5.0
_LOOK_S: Final = 0.1


@dataclass
class Answer:
    """What Django made of a request. ``file``: the path of a file that is the body. ``rest``: what follows
    ``body``, to be fetched in a thread and closed in the end."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    file: str = ""
    rest: Iterator[bytes] | None = None
    close: Callable[[], None] = lambda: None


class Application:
    """For one process. ``handler`` is Django's; it puts its request into the turn that is in its environ."""

    def __init__(self, handler: WSGIHandler) -> None:
        self._handler = handler
        self.places = Places()
        self._turns: Turns | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        turns = self._turns or self._begin()
        headers, path = headers_of(scope), path_of(scope)
        body, length = await self._body(headers, path, receive)
        if "HTTP_TRANSFER_ENCODING" in headers:
            # It has arrived: from here on it is a body like any other.
            del headers["HTTP_TRANSFER_ENCODING"]
            headers["CONTENT_LENGTH"] = str(length)
        environ = environ_of(scope, headers, path, body)
        turn = environ["gantry.turn"] = await turns.next()
        try:
            answer = await turns.run(lambda: self._answer(environ, turn), turn)
            turn.leave()
            if answer.rest is not None:
                answer = await self._placed(turns, turn, answer)
            await self._send(turns, scope, receive, send, answer)
        finally:
            turn.end()

    def _begin(self) -> Turns:
        self._turns = turns = Turns(settings.GANTRY_API_THREADS, self.places)
        self._arrivals = Arrivals()
        aside.serve(turns.step_aside)
        self._limit_silence()
        # Once more, for those that came while the first request was on its way.
        asyncio.get_running_loop().call_later(settings.GANTRY_SILENCE_S, self._limit_silence)
        return turns

    def _limit_silence(self) -> None:
        sockets.limit_silence(settings.GANTRY_SILENCE_S)

    async def _body(self, headers: dict[str, str], path: str, receive: Receive) -> tuple[object, int]:
        """What is read of it; its length in bytes."""
        declared = headers.get("CONTENT_LENGTH", "")
        if "HTTP_TRANSFER_ENCODING" in headers:
            return await self._arrivals.whole(receive, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        length = int(declared) if declared.isdigit() and len(declared) < 16 else 0
        if not length or length > bodies.most(path):
            return io.BytesIO(), length  # nothing is read of what the gate refuses
        if length > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return io.BufferedReader(LongBody(receive, length)), length
        return await self._arrivals.whole(receive, length, length)

    def _answer(self, environ: dict[str, Any], turn: Turn) -> Answer:
        """In a thread."""
        answer = Answer(500, [])

        def started(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            answer.status = int(status[:3])
            answer.headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            return lambda _: None

        response: Any = self._handler(environ, started)
        if not response.streaming:
            answer.body = b"".join(response)
        elif path := _path(response):
            answer.file = path
        else:
            answer.close = response.close
            answer.rest = pieces = iter(response)
            if turn.place is None:  # else it waits for something, and must not hold up others
                try:
                    _begin(answer, pieces)
                except Exception:
                    log.exception("serving.failed", path=environ["PATH_INFO"])
                    answer = _said(errors.page_500(_request(turn)), answer)
        if answer.rest is None:
            response.close()
        return answer

    async def _placed(self, turns: Turns, turn: Turn, answer: Answer) -> Answer:
        """The answer once it has a place; that there is none, after a while."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        while True:
            try:
                turn.take_place()
            except Unavailable as error:
                if loop.time() >= until:
                    await turns.run(answer.close)
                    problem = errors.problem_of(error) or errors.Problem(503, "unavailable", error.message)
                    return _said(errors.answer(_request(turn), problem), answer)
            else:
                return answer
            await asyncio.sleep(_LOOK_S)

    async def _send(
        self, turns: Turns, scope: dict[str, Any], receive: Receive, send: Send, answer: Answer
    ) -> None:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if answer.file:
            await send({"type": "http.response.pathsend", "path": answer.file})
        elif answer.rest is None:
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await _send_long(turns, scope, receive, send, answer)


async def _send_long(
    turns: Turns, scope: dict[str, Any], receive: Receive, send: Send, answer: Answer
) -> None:
    """Piece by piece, as the client takes them; until it has gone (``sockets``: or has taken nothing for
    long)."""
    gone = asyncio.ensure_future(_gone(receive))
    rest = answer.rest or iter(())
    piece: bytes | None = answer.body
    try:
        while piece is not None and not gone.done():
            for start in range(0, len(piece), PIECE):
                await send(
                    {"type": "http.response.body", "body": piece[start : start + PIECE], "more_body": True}
                )
                if gone.done():
                    return
            piece = await turns.run(lambda: next(rest, None))
        if piece is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except Exception:  # the server cuts the connection of an answer that has no end
        log.exception("serving.cut", path=scope["path"], meaning="its client sees that it is not whole")
    finally:
        gone.cancel()
        with suppress(Exception):
            await turns.run(answer.close)


async def _gone(receive: Receive) -> None:
    """Until the client has."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _path(response: StreamingHttpResponse) -> str:
    """Of the file that is the answer's body; "" when it is none, or a part of one."""
    file: Any = response.file_to_stream if isinstance(response, FileResponse) else None
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else ""


def _request(turn: Turn) -> HttpRequest:
    """Django's; there is one, as it has answered it."""
    return cast(HttpRequest, turn.request)


def _begin(answer: Answer, pieces: Iterator[bytes]) -> None:
    """Fetch its beginning; all of it, when it is not long."""
    begun, size = [], 0
    for piece in pieces:
        begun.append(piece)
        size += len(piece)
        if size > LONG:
            break
    else:
        answer.rest = None
    answer.body = b"".join(begun)


def _said(response: HttpResponse, instead_of: Answer) -> Answer:
    """An answer of ours in the place of one that cannot be given; it keeps the request's id."""
    headers = {**dict(response.items()), "Content-Length": str(len(response.content))}
    kept = [(name, value) for name, value in instead_of.headers if name.lower() == b"x-request-id"]
    told = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return Answer(response.status_code, [*told, *kept], response.content)
