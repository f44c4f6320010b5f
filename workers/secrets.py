"""Secrets at rest: encrypted with the first of GANTRY_SECRET_KEYS, readable with any of them.

Rotation: put a new key in front, restart everything, run `manage.py rotate_secrets`, then drop the old key.
A secret leaves this module only through ``reveal``; no message here ever holds one, or a key. Must not import
services, claiming, agents or runtimes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from workers.models import Secret
from workers.vocabulary.errors import SecretUnreadable

_HOW_TO_MAKE_ONE: Final = (
    "make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
)


@lru_cache(maxsize=8)
def _fernets(keys: tuple[str, ...]) -> tuple[Fernet, ...]:
    if not keys:
        raise ImproperlyConfigured(
            "GANTRY_SECRET_KEYS is not set, so that no secret can be stored or read. Give every process the "
            f"same comma-separated list, the newest key first; {_HOW_TO_MAKE_ONE}"
        )
    fernets = []
    for number, key in enumerate(keys, 1):
        try:
            fernets.append(Fernet(key.strip()))
        except (ValueError, TypeError):
            raise ImproperlyConfigured(
                f"GANTRY_SECRET_KEYS: key {number} of {len(keys)} is not a Fernet key "
                f"(44 characters of base64); {_HOW_TO_MAKE_ONE}"
            ) from None
    return tuple(fernets)


def _keys() -> tuple[Fernet, ...]:
    return _fernets(tuple(settings.GANTRY_SECRET_KEYS))


def check_keys() -> None:
    """ImproperlyConfigured, naming the setting and what to do, when the keys cannot be used."""
    _keys()


def store(tenant_id: int, purpose: str, text: str) -> int:
    """Encrypt and keep ``text`` for a tenant; returns the id by which specs refer to it."""
    return Secret.objects.create(
        tenant_id=tenant_id, purpose=purpose, ciphertext=_keys()[0].encrypt(text.encode())
    ).pk


def reveal(secret_id: int) -> str:
    """The text. SecretUnreadable when it was wiped or no configured key fits."""
    return reveal_all([secret_id])[0]


def reveal_all(secret_ids: Sequence[int]) -> list[str]:
    """The texts in the order asked, by one query. SecretUnreadable when one of them cannot be had."""
    stored = dict(Secret.objects.filter(pk__in=secret_ids).values_list("pk", "ciphertext"))
    return [_text(secret_id, stored.get(secret_id)) for secret_id in secret_ids]


def _text(secret_id: int, stored: bytes | memoryview | None) -> str:
    if stored is None:
        raise SecretUnreadable(
            f"secret {secret_id} does not exist: it was wiped when it was no longer needed"
        )
    try:
        return MultiFernet(_keys()).decrypt(bytes(stored)).decode()
    except InvalidToken:
        raise SecretUnreadable(
            f"secret {secret_id} cannot be read with any key of GANTRY_SECRET_KEYS: "
            "add the key with which it was stored"
        ) from None


def wipe(secret_ids: Iterable[int]) -> int:
    """Delete secrets that are no longer needed; returns how many there were."""
    return Secret.objects.filter(pk__in=list(secret_ids)).delete()[0]


@dataclass
class Rotation:
    """How far a rotation has come. ``last_id`` is where to go on after an interruption."""

    rotated: int = 0
    #: Encrypted with the first key before we came.
    current: int = 0
    unreadable: list[int] = field(default_factory=list)
    last_id: int = 0


def rotate(*, after: int = 0, batch: int = 500) -> Iterator[Rotation]:
    """Encrypt every secret with the first key, in batches by id; yields the state after each batch.

    Can be interrupted and repeated at any time, also while secrets are stored, read and wiped: what is
    encrypted with the first key already is left alone. Unreadable secrets are counted and left as they are.
    """
    keys = _keys()
    state = Rotation(last_id=after)
    while rows := list(
        Secret.objects.filter(pk__gt=state.last_id).order_by("pk").values_list("pk", "ciphertext")[:batch]
    ):
        for secret_id, stored in rows:
            _rotate_one(keys, state, secret_id, bytes(stored))
        state.last_id = rows[-1][0]
        yield state


def _rotate_one(keys: tuple[Fernet, ...], state: Rotation, secret_id: int, stored: bytes) -> None:
    try:
        keys[0].decrypt(stored)
    except InvalidToken:
        pass
    else:
        state.current += 1
        return
    try:
        fresh = MultiFernet(keys).rotate(stored)
    except InvalidToken:
        state.unreadable.append(secret_id)
        return
    # Only what we have read is replaced: a secret that was wiped or rotated meanwhile stays as it is.
    state.rotated += Secret.objects.filter(pk=secret_id, ciphertext=stored).update(ciphertext=fresh)
