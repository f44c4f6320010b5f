"""What clients send: jobs and targets, read into typed values or refused by an error naming field and fix.

Pure: no database, no HTTP. Absent and null mean the same, unknown keys are ignored (the original's front end
sends back what it was given). Source: contract page 20, "Job" and its rules.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.saved.errors import NoSuchExecutor, NoSuchJob
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.words import split_words

NAME_MOST: Final = 128
APP_MOST: Final = 255
CMD_MOST: Final = 4096
CONTAINER_MOST: Final = 255
NODE_MOST: Final = 128
TARGETS_MOST: Final = 1000
SECRETS_MOST: Final = 100
#: Linux refuses a single argument or NAME=value longer than this, in bytes.
ARGUMENT_MOST: Final = 128 * 1024 - 1

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_EXECUTOR: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_ACCOUNT: Final = r"([A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10})"
_USER: Final = re.compile(rf"{_ACCOUNT}(:{_ACCOUNT})?")
_ENV: Final = re.compile(r"[^=\s\x00-\x1f\x7f]+=.*", re.DOTALL)


@dataclass(frozen=True)
class JobRequest:
    """A job as a client wants it. ``secrets`` None: keep those that are stored."""

    app_name: str
    service_name: str
    name: str
    cmd: str
    privileged: bool
    user: str
    env: list[str]
    secrets: list[str] | None


@dataclass(frozen=True)
class TargetRequest:
    """A container and the node that it runs on, both as sent."""

    container: str
    node: str


def parse_job_id(given: str) -> uuid.UUID:
    """A job's id in its canonical form; anything else is the id of no job."""
    if not _UUID.fullmatch(given):
        raise NoSuchJob(given)
    return uuid.UUID(given)


def parse_executor_id(given: str) -> int:
    """An executor's id: whole seconds as text."""
    if not _EXECUTOR.fullmatch(given) or (given[0] == "0" and given != "0"):
        raise NoSuchExecutor(given)
    return int(given)


def parse_job(body: Any) -> JobRequest:
    """The body of POST and PUT, a JSON object. InvalidInput names the field that is wrong."""
    cmd = _required(body, "Cmd", CMD_MOST, 'give the command, such as "ps axu"')
    words(cmd)
    user = _text(body, "User", NAME_MOST)
    if user and not _USER.fullmatch(user):
        raise InvalidInput(f"User is {user!r}: write name, name:group or numbers such as 0:0", field="User")
    return JobRequest(
        app_name=_required(body, "AppName", APP_MOST, "name the application that the job belongs to"),
        service_name=_text(body, "ServiceName", APP_MOST),
        name=_required(body, "Name", NAME_MOST, "give the job a name"),
        cmd=cmd,
        privileged=_flag(body, "Privileged"),
        user=user,
        env=list(_env(body)),
        secrets=None if body.get("SecretArgs") is None else list(_secrets(body)),
    )


def parse_targets(body: Any) -> list[TargetRequest] | None:
    """The body of a start; None when Target is left out: then the job's service says which containers."""
    given = body.get("Target")
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise InvalidInput(
            'Target must be a list of {"ContainerId", "NodeId"} with at least one; leave it out to start in '
            "all running containers of the job's service",
            field="Target",
        )
    if len(given) > TARGETS_MOST:
        raise InvalidInput(
            f"Target has {len(given)} entries: at most {TARGETS_MOST} go into one start", field="Target"
        )
    found = []
    for number, item in enumerate(given):
        name = f"Target[{number}]"
        if not isinstance(item, dict):
            raise InvalidInput(f"{name} must be an object with ContainerId and NodeId", field=name)
        found.append(
            TargetRequest(
                container=_required(item, "ContainerId", CONTAINER_MOST, "name a container", name),
                node=_required(item, "NodeId", NODE_MOST, "name the node that it runs on", name),
            )
        )
    return found


def words(cmd: str) -> list[str]:
    """``Cmd`` split as a shell splits words; nothing is expanded and no shell is started."""
    try:
        found = split_words(cmd)
    except ValueError as error:
        raise InvalidInput(
            f"Cmd cannot be split into words: {str(error).lower()}. Close every quote, and write \\\\ for a "
            "backslash at the end",
            field="Cmd",
        ) from None
    if not found or not found[0]:
        raise InvalidInput("Cmd has no word to execute: give the command", field="Cmd")
    return found


def env(entries: Sequence[str]) -> dict[str, str]:
    """["a=b", ...] as a mapping; of two entries of one name the later counts."""
    return dict(entry.split("=", 1) for entry in entries)


def keep(sent: Sequence[str], lengths: Sequence[int]) -> list[int | None]:
    """For each secret sent: the place of the stored one that it stands for, None where it is a new one.

    ``lengths`` are those of the stored secrets. An entry of asterisks only, as long as the stored secret at
    its place, keeps that. One that does not fit what is stored is refused, beside clear ones, too: nobody
    means asterisks as a secret, they come from a form that shows another job or an older state.
    """
    kept = [
        place if place < len(lengths) and text == "*" * lengths[place] else None
        for place, text in enumerate(sent)
    ]
    unfit = [place for place, text in enumerate(sent) if text and not text.strip("*") and kept[place] is None]
    if unfit:
        raise InvalidInput(
            f"SecretArgs[{unfit[0]}] is only asterisks and not as long as the secret stored there: "
            "read the job again, or send the secrets in clear",
            field="SecretArgs",
        )
    return kept


# --- Single values -----------------------------------------------------------------------------------


def _text(body: dict[str, object], name: str, most: int, where: str = "") -> str:
    value = body.get(name)
    name = f"{where}.{name}" if where else name
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text", field=name)
    if len(value) > most:
        raise InvalidInput(f"{name} has {len(value)} characters: at most {most} are allowed", field=name)
    return value


def _required(body: dict[str, object], name: str, most: int, fix: str, where: str = "") -> str:
    value = _text(body, name, most, where)
    if not value.strip():
        name = f"{where}.{name}" if where else name
        raise InvalidInput(f"{name} is missing or blank: {fix}", field=name)
    return value


def _flag(body: dict[str, object], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true or false", field=name)
    return bool(value)


def _list(body: dict[str, object], name: str) -> Iterator[tuple[str, str]]:
    value = body.get(name)
    if value is None:
        return
    if not isinstance(value, list):
        raise InvalidInput(f"{name} must be a list of texts", field=name)
    for number, item in enumerate(value):
        if not isinstance(item, str):
            raise InvalidInput(f"{name}[{number}] must be text", field=f"{name}[{number}]")
        if len(item.encode()) > ARGUMENT_MOST:
            raise InvalidInput(
                f"{name}[{number}] is longer than the {ARGUMENT_MOST} bytes that a process takes",
                field=f"{name}[{number}]",
            )
        yield f"{name}[{number}]", item


def _env(body: dict[str, object]) -> Iterator[str]:
    for name, item in _list(body, "Env"):
        if not _ENV.fullmatch(item):
            raise InvalidInput(f"{name} must be written NAME=value", field=name)
        yield item


def _secrets(body: dict[str, object]) -> Iterator[str]:
    for number, (name, item) in enumerate(_list(body, "SecretArgs")):
        if number >= SECRETS_MOST:
            raise InvalidInput(f"SecretArgs may have at most {SECRETS_MOST} entries", field="SecretArgs")
        if not item:
            raise InvalidInput(f"{name} is empty: leave it out", field=name)
        yield item
