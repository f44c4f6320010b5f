"""Tokens of OpenStack's Identity API v3 (Keystone), kept until shortly before they expire.

Source: https://docs.openstack.org/api-ref/identity/v3/ "Password authentication with scoped authorization".
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from queues.providers.asking import Answer, Asking, as_documented, parsed
from queues.providers.base import Trouble
from queues.providers.options import Placement

NAME: Final = "Keystone"
#: A token is not used any more when it has so many seconds left.
_MARGIN_S: Final = 60.0
#: Tokens kept; who has more users than that asks for tokens more often.
_MOST: Final = 64


@dataclass(frozen=True)
class Token:
    """A token, and where its catalog says that Placement is ("" = it does not)."""

    text: str = field(repr=False)
    placement_url: str
    #: On this process' monotonic clock: lifetimes are compared, not clocks of two machines.
    ends: float


_tokens: dict[str, Token] = {}
_lock: Final = threading.Lock()


def token_of(asking: Asking, options: Placement, *, instead_of: Token | None = None) -> Token:
    """A token for the options' user and project. ``instead_of``: one that was refused is not given again."""
    key = _key(options)
    with _lock:
        kept = _tokens.get(key)
    if kept is None or kept.ends <= time.monotonic() or kept == instead_of:
        kept = _ask(asking, options)
        with _lock:
            if len(_tokens) >= _MOST:
                _tokens.clear()
            _tokens[key] = kept
    asking.hide(kept.text)
    return kept


def forget_tokens() -> None:
    """Everybody has to ask again."""
    with _lock:
        _tokens.clear()


def _key(options: Placement) -> str:
    who = (options.username, options.user_domain, options.project, options.project_domain, options.secret)
    return hashlib.sha256(json.dumps([options.auth_url, options.region, *who]).encode()).hexdigest()


def _ask(asking: Asking, options: Placement) -> Token:
    user = {
        "name": options.username,
        "domain": {"name": options.user_domain},
        "password": options.secret,
    }
    project = {"name": options.project, "domain": {"name": options.project_domain}}
    wanted = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }
    }
    base = options.auth_url.removesuffix("/v3")
    answer = asking.request(
        NAME,
        f"{base}/v3/auth/tokens",
        method="POST",
        headers={"Content-Type": "application/json"},
        body=json.dumps(wanted).encode(),
    )
    _check(answer, options)
    with as_documented(NAME, "a token"):
        body = parsed(NAME, answer)["token"]
        text = {name.lower(): value for name, value in answer.headers.items()}["x-subject-token"]
        lifetime = (_moment(body["expires_at"]) - _moment(body["issued_at"])).total_seconds()
        if not text or not text.isascii() or not text.isprintable():
            raise ValueError("no token")
        url = _placement_url(body.get("catalog", []), options.region)
    return Token(text, url, time.monotonic() + lifetime - _MARGIN_S)


def _check(answer: Answer, options: Placement) -> None:
    if answer.status == 201:
        return
    if answer.status == 401:
        raise Trouble(
            f"{NAME}: it refuses user {options.username} of domain {options.user_domain} for project "
            f"{options.project} (401): is the password right, and has the user a role in that project?"
        )
    if answer.status in (300, 404):
        raise Trouble(f"{NAME}: there is no Identity API v3 at options.auth_url ({answer.status})")
    raise Trouble(f"{NAME}: it answers {answer.status} to a request for a token")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _placement_url(catalog: list[dict[str, Any]], region: str) -> str:
    for service in catalog:
        if service["type"] == "placement":
            for endpoint in service["endpoints"]:
                if endpoint["interface"] == "public" and region in ("", endpoint["region"]):
                    return str(endpoint["url"]).rstrip("/")
    return ""
