"""extra_opts: the known ones checked, others kept and ignored. Pure. Source: contract page 40.

| option | what |
| --- | --- |
| depth | LIST: -1 all levels (as without it), 1 that directory only, 0 the same |
| overwrite | COPY, RENAME: replace what is there |
| parent, parents | make missing parents; of a COPY true without it |
| checksum | true, or adler32, md5, sha256: verify by reading back where nobody can say it |
| timeout | seconds for one element |
| preserve | keep times and modes where the target can |
| limit | bytes per second of the job |
| nbstreams | streams for one file |
| permissions | of what is made, octal: "0750" |
| verbosity | how much the log says |
| escaped | the job's paths are in the form for names that are no UTF-8 |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from workers.storage.trees.base import ALGORITHMS
from workers.vocabulary.errors import InvalidInput
from workqueue import fields

_MODE: Final = re.compile(r"(0o?)?[0-7]{3,4}", re.ASCII)
#: A year.
_LONGEST_S: Final = 366 * 24 * 3600


def check(given: object) -> dict[str, Any]:
    """The options as they were sent. InvalidInput names the one that is wrong."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidInput("extra_opts must be an object", field="extra_opts")
    for name, (good, what) in _KNOWN.items():
        value = given.get(name)
        if value is not None and not good(value):
            raise InvalidInput(f"extra_opts.{name} must be {what}", field=f"extra_opts.{name}")
    return given


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _between(low: int, high: int) -> Callable[[object], bool]:
    def good(value: object) -> bool:
        number = fields.whole(value)
        return number is not None and low <= number <= high

    return good


def _is_timeout(value: object) -> bool:
    number = value if isinstance(value, float) else fields.whole(value)
    return number is not None and 0 < number <= _LONGEST_S


def _is_checksum(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in ALGORITHMS)


def _is_mode(value: object) -> bool:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return isinstance(text, str) and _MODE.fullmatch(text) is not None


_FLAG: Final = (_is_flag, "true or false")
_KNOWN: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "depth": (_between(-1, 2**31 - 1), "a whole number: -1 all levels, 1 that directory only"),
    "overwrite": _FLAG,
    "parent": _FLAG,
    "parents": _FLAG,
    "checksum": (_is_checksum, f"true, false or one of {', '.join(ALGORITHMS)}"),
    "timeout": (_is_timeout, "a number of seconds above 0"),
    "preserve": _FLAG,
    "limit": (_between(1, fields.BIGGEST), "a whole number of bytes per second, 1 or more"),
    "nbstreams": (_between(1, 1024), "a whole number from 1 to 1024"),
    "permissions": (_is_mode, 'octal digits such as "0750"'),
    "verbosity": (_between(0, 100), "a whole number from 0 to 100"),
    "escaped": _FLAG,
}
