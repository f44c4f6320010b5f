"""The claim of one element, signed: whoever has it may report, for this attempt under this lease. Pure.

Not bound to a user: the original's workers send it alone. Forged, cut or of another element: None.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from django.core.signing import BadSignature, Signer

_SALT: Final = "gantry.workqueue.element"


class Claim(NamedTuple):
    """An element handed out: ``batch`` is the lease, ``attempt`` the one that it is for, from 1 on."""

    job: int
    number: int
    attempt: int
    batch: int


def sign(claim: Claim) -> str:
    """The element's token."""
    return Signer(salt=_SALT).sign("-".join(map(str, claim)))


def read(token: str) -> Claim | None:
    """What a token claims."""
    try:
        return Claim(*map(int, Signer(salt=_SALT).unsign(token).split("-")))
    except (BadSignature, TypeError, ValueError):
        return None
