"""A job definition: the text of its two files, read into a ``Definition`` or refused by a sentence.

Pure: no files, no settings. A definition is a folder with ``job.sh``, the bash lines, and
``job_define.json``: {"first": may it run without an input?, "parameters": names, or how many}. Ours, all
optional: "description", "image" (a container to run in), "cpus", "mem_mb", "timeout_s". Unknown keys are
ignored. Sources: contract page 30, seed 000.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from workers.vocabulary import references
from workers.vocabulary.references import BadReference

SCRIPT: Final = "job.sh"
DEFINE: Final = "job_define.json"
#: Linux refuses a longer argument, in bytes, and the lines travel as one. Room for what is put before them.
SCRIPT_MOST: Final = 128 * 1024 - 1024
PARAMETERS_MOST: Final = 100

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
#: Names that a shell, the loader or Gantry gives a meaning: a parameter of that name would change more than
#: the job's own lines.
_TAKEN: Final = frozenset(
    (
        *(
            "PATH",
            "HOME",
            "PWD",
            "OLDPWD",
            "TMPDIR",
            "IFS",
            "ENV",
            "SHELL",
            "SHLVL",
            "USER",
            "LOGNAME",
            "TERM",
        ),
        *("UID", "EUID", "PPID", "GROUPS", "RANDOM", "SRANDOM", "SECONDS", "LINENO", "REPLY", "_", "MAIL"),
        *("OPTARG", "OPTIND", "OPTERR", "HOSTNAME", "HOSTTYPE", "OSTYPE", "MACHTYPE", "DIRSTACK", "FUNCNAME"),
        *("FUNCNEST", "PIPESTATUS", "SHELLOPTS", "CDPATH", "GLOBIGNORE", "GLOBSORT", "POSIXLY_CORRECT"),
        *("TIMEFORMAT", "TMOUT", "MAILCHECK", "MAILPATH", "FCEDIT", "FIGNORE", "EXECIGNORE", "INPUTRC"),
        *("IGNOREEOF", "LANG", "LANGUAGE", "COLUMNS", "LINES", "PS0", "PS1", "PS2", "PS3", "PS4", "TZ"),
        *(
            "CHILD_MAX",
            "COPROC",
            "MAPFILE",
            "MESOS_SANDBOX",
            "GCONV_PATH",
            "NLSPATH",
            "LOCPATH",
            "HOSTALIASES",
        ),
        *("RES_OPTIONS", "LOCALDOMAIN", "AUTO_RESUME", "EDITOR", "VISUAL", "NODE_OPTIONS", "RUBYOPT"),
    )
)
_TAKEN_BEGINNINGS: Final = (
    *("BASH", "LD_", "LC_", "GANTRY_", "COMP_", "EPOCH", "HIST", "PROMPT_", "READLINE_", "PYTHON", "PERL"),
    *("MALLOC_", "GLIBC_", "DYLD_", "JAVA_TOOL_"),
)


class BadDefinition(ValueError):
    """It cannot be used; the text names the file, what is wrong and what to write."""


@dataclass(frozen=True)
class Definition:
    """A job that the server offers. ``parameters``: names of environment variables, or how many arguments."""

    name: str
    script: str
    first: bool = False
    parameters: tuple[str, ...] | int = 0
    description: str = ""
    image: str = ""
    #: None = as the settings say. Thousandths of a CPU, MiB, seconds of the command.
    cpu_m: int | None = None
    mem_mb: int | None = None
    timeout_s: int | None = None

    @property
    def named(self) -> bool:
        """Do its parameters have names?"""
        return not isinstance(self.parameters, int)


def parse(name: str, script: bytes, define: bytes) -> Definition:
    """The definition ``name`` from the bytes of its two files. BadDefinition says what is wrong."""
    if not NAME.fullmatch(name):
        raise BadDefinition(
            f"the folder's name {name[:80]!r} is not usable: letters, digits, dots, dashes and underscores, "
            "at most 64, the first a letter or digit"
        )
    told = _object(define)
    return Definition(
        name=name,
        script=_script(script),
        first=_first(told.get("first")),
        parameters=_parameters(told.get("parameters")),
        description=_text(told, "description", 2000),
        image=_image(_text(told, "image", 512)),
        cpu_m=_scaled(told, "cpus", 0.1, 1024, 1000),
        mem_mb=_scaled(told, "mem_mb", 16, 16 * 1024 * 1024),
        timeout_s=_scaled(told, "timeout_s", 1, 365 * 86_400),
    )


def _script(raw: bytes) -> str:
    if len(raw) > SCRIPT_MOST:
        raise BadDefinition(f"{SCRIPT} has {len(raw)} bytes: at most {SCRIPT_MOST} are possible")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadDefinition(f"{SCRIPT} is not UTF-8 (byte {error.start})") from None
    if "\0" in text:
        raise BadDefinition(f"{SCRIPT} has the character NUL in it, which no argument can hold")
    if not text.strip():
        raise BadDefinition(f"{SCRIPT} is empty: write the lines that bash shall run")
    # With carriage returns bash would look for commands that end in one.
    return text.replace("\r\n", "\n")


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadDefinition(f"{DEFINE} is not JSON: {error}") from None
    if not isinstance(told, dict):
        raise BadDefinition(f'{DEFINE} must be an object such as {{"first": false, "parameters": 0}}')
    return told


def _first(value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise BadDefinition(f"{DEFINE}: first must be true or false")
    return bool(value)


def _parameters(value: object) -> tuple[str, ...] | int:
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= PARAMETERS_MOST:
            raise BadDefinition(f"{DEFINE}: parameters is {value}: 0 to {PARAMETERS_MOST} are possible")
        return value
    if not isinstance(value, list):
        raise BadDefinition(f'{DEFINE}: parameters must be a number or a list of names, ["threshold"]')
    if len(value) > PARAMETERS_MOST:
        raise BadDefinition(f"{DEFINE}: parameters has {len(value)} names: at most {PARAMETERS_MOST}")
    for name in value:
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise BadDefinition(
                f"{DEFINE}: the parameter {str(name)[:60]!r} cannot be an environment variable: letters, "
                "digits and underscores, the first no digit"
            )
        if name in _TAKEN or name.startswith(_TAKEN_BEGINNINGS):
            raise BadDefinition(
                f"{DEFINE}: the parameter {name} has a meaning of its own for shells or programs: rename it"
            )
    if len(set(value)) < len(value):
        raise BadDefinition(f"{DEFINE}: parameters has a name twice")
    return tuple(value)


def _text(told: Mapping[str, Any], key: str, most: int) -> str:
    value = told.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        raise BadDefinition(f"{DEFINE}: {key} must be text of at most {most} characters")
    return value


def _image(text: str) -> str:
    try:
        return str(references.parse(text)) if text else ""
    except BadReference as error:
        raise BadDefinition(f"{DEFINE}: image: {error}") from None


def _scaled(told: Mapping[str, Any], key: str, least: float, most: float, times: int = 1) -> int | None:
    value = told.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadDefinition(f"{DEFINE}: {key} must be a number from {least:g} to {most:g}")
    return round(value * times)
