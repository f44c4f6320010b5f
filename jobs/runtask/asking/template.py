"""cm: a command line with places for its files, {input_file[0]}, {input_file[1]} ..., {output_file}.

Pure. ``{{`` and ``}}`` mean { and }; every other single brace stays as it is, since awk programs and shell
variables are full of them. Read from left to right, once; what is inserted is not read again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from workers.vocabulary.errors import InvalidInput

_PLACES: Final = re.compile(r"\{\{|\}\}|\{input_file\[([0-9]+)\]\}|\{output_file\}", re.ASCII)
_OUTPUT: Final = "{output_file}"


def writes_output(cm: str) -> bool:
    """Does the command line name the output file? Else its standard output is the output."""
    return any(match[0] == _OUTPUT for match in _PLACES.finditer(cm))


def expand(cm: str, inputs: Sequence[str], output: str | None) -> str:
    """``cm`` with the paths in their places. InvalidInput for a place that has no file."""

    def path(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[0] == _OUTPUT:
            if output is None:
                raise InvalidInput("cm has {output_file}, but there is no output_file: give one", field="cm")
            return output
        # Not as a number first: thousands of digits would take long.
        number = int(match[1]) if len(match[1]) <= 6 else len(inputs)
        if number >= len(inputs):
            raise InvalidInput(
                f"cm has {match[0][:40]}, but input_file names {len(inputs)}: they count from 0", field="cm"
            )
        return inputs[number]

    return _PLACES.sub(path, cm)
