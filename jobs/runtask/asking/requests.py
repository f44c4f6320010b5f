"""POST /runtask/: the parameters of a call, read into a request or refused by an error naming field and fix.

Pure. Absent, null, empty and the four letters None mean the same for every optional one: the known caller
formats absent values so. Unknown parameters are ignored. No message holds a key. Source: contract page 30.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jobs.runtask.asking import places
from jobs.runtask.asking.places import Place
from workers import addresses
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.staging import Store

#: Linux refuses a longer argument or environment variable, in bytes.
ARGUMENT_MOST: Final = 128 * 1024 - 1
WAIT_MOST_S: Final = 86_400
PARAMETER: Final = "param_"
_NAME_MOST: Final = 255
_KEY_MOST: Final = 4096
_URL_MOST: Final = 2048
_VERSIONS: Final = re.compile(r"v?([123])(\.0)?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ID: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

#: Parameters of one style only: beside the other style they would be ignored silently.
_OF_DEFINITIONS: Final = ("job", "container_name", "file_name", "parameters")
_OF_COMMANDS: Final = ("input_file", "output_file")


@dataclass(frozen=True)
class DefinitionRequest:
    """The seed's form: a definition over one object; "" = not named. ``given``: in order, or by name."""

    store: Store
    job: str
    container: str
    file_name: str
    given: Sequence[str] | Mapping[str, str]
    wait_s: int


@dataclass(frozen=True)
class CommandRequest:
    """The later form: a command line over objects."""

    store: Store
    cm: str
    inputs: Sequence[Place]
    output: Place | None
    wait_s: int


def parse(body: Any) -> DefinitionRequest | CommandRequest:
    """The body of a call: a JSON object, or a form's fields (a repeated one as a list)."""
    store = _store(body)
    cm = _optional(body, "cm")
    wait_s = _wait(body)
    if cm:
        for name in (*_OF_DEFINITIONS, *(name for name in body if name.startswith(PARAMETER))):
            if not absent(body.get(name)):
                raise InvalidInput(
                    f"{name} belongs to a job definition: leave it out, or leave out cm", field=name
                )
        inputs = places.inputs(_optional(body, "input_file"))
        output = places.output(_optional(body, "output_file"))
        return CommandRequest(store, argument(cm, "cm"), inputs, output, wait_s)
    for name in _OF_COMMANDS:
        if not absent(body.get(name)):
            raise InvalidInput(f"{name} belongs to cm, which is missing: give cm, or file_name", field=name)
    container, file_name = _optional(body, "container_name"), _optional(body, "file_name")
    return DefinitionRequest(
        store=store,
        job=_optional(body, "job"),
        container=container and places.container(container, "container_name"),
        file_name=file_name and places.name(file_name, "file_name"),
        given=_given(body),
        wait_s=wait_s,
    )


def parse_job_id(value: object) -> int | None:
    """The number of a job, sent as text or as a number; None for what can be no job's id."""
    value = _once(value)
    if absent(value):
        raise InvalidInput("job_id is missing: give the job_id that /runtask/ answered", field="job_id")
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if _ID.fullmatch(text) else None


def absent(value: object) -> bool:
    """Is an optional parameter not given?"""
    return value is None or value in ("", "None") or value == [] or value == {}


# --- Single values -----------------------------------------------------------------------------------


def _store(body: Mapping[str, Any]) -> Store:
    authurl = _required(body, "authurl", _URL_MOST, "the address of the Swift's or Keystone's authentication")
    addresses.parse(authurl, field="authurl")
    return Store(
        auth_url=authurl,
        auth_version=_version(_once(body.get("auth_version"))),
        user=_required(body, "user", _NAME_MOST, "the name of a user of the Swift"),
        tenant=_required(body, "tenant", _NAME_MOST, "the tenant (project, account) of the Swift"),
        key=_required(body, "key", _KEY_MOST, "the user's password"),
        user_domain=_optional(body, "user_domain_name", _NAME_MOST) or "Default",
        project_domain=_optional(body, "project_domain_name", _NAME_MOST) or "Default",
    )


def _version(value: object) -> str:
    if absent(value):
        return ""
    text = f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value
    found = _VERSIONS.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidInput("auth_version must be 1, 2 or 3, or left out", field="auth_version")
    return found[1]


def _text(body: Mapping[str, Any], name: str) -> str:
    value = _once(body.get(name))
    if isinstance(value, list):
        raise InvalidInput(f"{name} is given {len(value)} times: give it once", field=name)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text", field=name)
    if "\0" in value:
        raise InvalidInput(f"{name} has the character NUL in it, which nothing can be called", field=name)
    return value


def _once(value: object) -> object:
    """A form's field that some clients send twice, always with the same text."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value


def _optional(body: Mapping[str, Any], name: str, most: int | None = None) -> str:
    if absent(_once(body.get(name))):
        return ""
    text = _text(body, name)
    return text if most is None else _tidy(text, name, most)


def _required(body: Mapping[str, Any], name: str, most: int, what: str) -> str:
    if body.get(name) in (None, ""):
        raise InvalidInput(f"{name} is missing: give {what}", field=name)
    return _tidy(_text(body, name), name, most)


def _tidy(text: str, name: str, most: int) -> str:
    """What goes into a header of a request to the Swift."""
    if len(text) > most:
        raise InvalidInput(f"{name} has {len(text)} characters: at most {most} are possible", field=name)
    if _CONTROL.search(text):
        raise InvalidInput(f"{name} has a control character in it", field=name)
    return text


def _wait(body: Mapping[str, Any]) -> int:
    value = _once(body.get("wait_for_input"))
    if absent(value):
        return 0
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or int(text) > WAIT_MOST_S:
        raise InvalidInput(
            f"wait_for_input must be whole seconds from 0 to {WAIT_MOST_S}", field="wait_for_input"
        )
    return int(text)


def argument(value: object, name: str) -> str:
    """A value as a process gets it: text, or a JSON number as it is written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):  # an int may be beyond any float
            raise InvalidInput(f"{name} is a number that is too large: write it as text", field=name)
        value = json.dumps(value)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text or a number", field=name)
    if "\0" in value:
        raise InvalidInput(f"{name} has the character NUL in it, which no argument can hold", field=name)
    if len(value.encode()) > ARGUMENT_MOST - len(name.encode()) - 1:
        raise InvalidInput(
            f"{name} is longer than the {ARGUMENT_MOST} bytes that a process takes", field=name
        )
    return value


def _given(body: Mapping[str, Any]) -> Sequence[str] | Mapping[str, str]:
    """The values for a definition: ``param_<name>``, ``param_1``, ``param_2`` ..., or ``parameters``."""
    single = {
        name.removeprefix(PARAMETER): argument(
            _text(body, name) if isinstance(body[name], list) else body[name], name
        )
        for name in body
        if name.startswith(PARAMETER) and body[name] is not None
    }
    value = _several(body.get("parameters"))
    if absent(value):
        return single
    if single:
        raise InvalidInput("parameters and param_... are both given: use one of them", field="parameters")
    if isinstance(value, dict):
        return {name: argument(item, f"parameters.{name}") for name, item in value.items()}
    items = value if isinstance(value, list) else [value]
    return [argument(item, f"parameters[{number}]") for number, item in enumerate(items)]


def _several(value: object) -> object:
    """In a form a list or an object comes as its JSON."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise InvalidInput(
            "parameters begins like JSON and is none: write a list or an object, or give the value as "
            "param_1",
            field="parameters",
        ) from None
