"""Idempotency keys: a creating request that is sent twice creates one thing and gets one answer.

A key is its user's own: nobody gets the answer to another's request. The key's row and what the request
creates are committed together. Must not import services or HTTP beyond the few facts of a request that
``for_request`` reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, Protocol

from django.db import OperationalError, connection, transaction
from psycopg2 import errors as database_errors

from workers.models import IdempotencyKey
from workers.vocabulary.errors import IdempotencyConflict, InvalidInput, ShownOnce, Unavailable

Answer = dict[str, Any]
Create = Callable[[], tuple[int, Answer]]

LONGEST: Final = 255
#: How long a key is remembered. Older rows are pruned by the reconciler and taken over here.
KEPT_H: Final = 24
#: The status that is kept of an answer that showed a secret: what a repetition gets.
_SHOWN: Final = 409


def once(
    tenant_id: int,
    user_id: int | None,
    method: str,
    path: str,
    key: str,
    body: bytes,
    create: Create,
    *,
    secret: bool = False,
) -> tuple[int, Answer, bool]:
    """Run ``create`` unless this key has done so already; returns (status, answer, was it a repetition).

    ``create`` runs inside the transaction that stores the key; only a 2xx answer is stored. A second request
    with the key waits for the first one's commit and gets its answer. ``user_id``: whose key it is; None for
    a request without credentials. ``secret``: the answer shows a value that is shown once; of it only the
    "id" is stored. Raises IdempotencyConflict when the first request's body was another one, ShownOnce for a
    repetition of what showed a secret.
    """
    if not 1 <= len(key) <= LONGEST:
        raise InvalidInput(f"Idempotency-Key has {len(key)} characters: it must have 1 to {LONGEST}")
    digest = hashlib.sha256(body).hexdigest()
    # Always with a user at its end, so that no path can be spelt like another user's.
    path = f"{path.rstrip('/')} (user {user_id or 0})"
    if len(path) > 255:
        path = f"sha256:{hashlib.sha256(path.encode()).hexdigest()}"
    try:
        with transaction.atomic():
            row_id = _take(tenant_id, method, path, key, digest)
            if row_id is None:
                return _stored(tenant_id, method, path, key, digest)
            status, answer = create()
            mine = IdempotencyKey.objects.filter(pk=row_id)
            if 200 <= status < 300:
                if secret:
                    mine.update(status=_SHOWN, answer={"id": answer["id"]})
                else:
                    # As text: jsonb would put its keys into an order of its own.
                    mine.update(status=status, answer=json.dumps(answer))
            else:
                mine.delete()
            return status, answer, False
    except OperationalError as error:
        if isinstance(error.__cause__, database_errors.LockNotAvailable):
            raise Unavailable(
                "another request with this Idempotency-Key is still being worked on: send it again later"
            ) from error
        raise


def _take(tenant_id: int, method: str, path: str, key: str, digest: str) -> int | None:
    """The id of the key's row if this request is the one that works under it, None if another was first.

    The unique index makes a second request wait here until the first has committed or rolled back.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {IdempotencyKey._meta.db_table} AS k (tenant_id, method, path, key, body_digest)
            VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT (tenant_id, method, path, key) DO UPDATE
               SET body_digest = excluded.body_digest, status = NULL, answer = NULL, created_at = now()
             WHERE k.created_at < now() - make_interval(hours => %s)
            RETURNING id
            """,  # noqa: S608  the table's name is our own
            [tenant_id, method, path, key, digest, KEPT_H],
        )
        row = cursor.fetchone()
    return row[0] if row is not None else None


def _stored(tenant_id: int, method: str, path: str, key: str, digest: str) -> tuple[int, Answer, bool]:
    row = IdempotencyKey.objects.filter(tenant_id=tenant_id, method=method, path=path, key=key).first()
    if row is None or row.status is None or row.answer is None:
        raise Unavailable("the first request with this Idempotency-Key has just been pruned: send it again")
    if row.body_digest != digest:
        raise IdempotencyConflict(
            f"the Idempotency-Key {key!r} was used here with another body: use a new key "
            "(the bytes count: other blanks or another order of keys make another body)"
        )
    if row.status == _SHOWN:
        raise ShownOnce(
            f"made before with this Idempotency-Key, id {row.answer['id']}; its value was shown once: if it "
            "is lost, end that one and make another with a new key"
        )
    return row.status, json.loads(row.answer) if isinstance(row.answer, str) else row.answer, True


class Asked(Protocol):
    """What is read of a request: Django's and DRF's both have it."""

    @property
    def META(self) -> dict[str, Any]: ...  # noqa: N802  Django's name
    @property
    def body(self) -> bytes: ...


def for_request(
    request: Asked, tenant_id: int, user_id: int | None, create: Create, *, secret: bool = False
) -> tuple[int, Answer, bool]:
    """``create()``, once per Idempotency-Key if the request has one; returns (status, answer, repetition?).

    The query string counts as part of the body: it belongs to what is asked. ``secret``: see ``once``.
    """
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        status, answer = create()
        return status, answer, False
    query = request.META.get("QUERY_STRING", "")
    body = request.body + (b"?" + query.encode() if query else b"")
    method, path = request.META["REQUEST_METHOD"], request.META["PATH_INFO"]
    return once(tenant_id, user_id, method, path, key, body, create, secret=secret)
