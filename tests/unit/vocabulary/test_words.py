"""Lines are split into words as the machine's own shell splits them."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.vocabulary.words import split_words

#: Pieces that a shell splits without expanding anything; whatever they are joined to stays so.
PIECES = (
    "a", "-b=c", "é", " ", "  ", "\t", "\\\n", "\\ ", "\\a", "\\\\", "\\'", '\\"', "\\$", "\\`", "''", '""',
    "'$x `y` \\ \\n'", "'\n'", '"a b"', '"\\$x"', '"\\`"', '"\\\\"', '"\\""', '"\\\n"',
    '"\\a\\ "', "\"'\"", '"\n"',
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=60, deadline=None)
def test_as_the_shell_does(line: str) -> None:
    told = subprocess.run(["sh", "-c", f"printf '%s\\0' x {line}"], capture_output=True, check=True)
    assert split_words(line) == told.stdout.decode().split("\0")[1:-1]


def test_what_people_paste() -> None:
    assert split_words('sh -c "echo \\$HOME"') == ["sh", "-c", "echo $HOME"]
    assert split_words('printf "<%s>" "a\\$b"') == ["printf", "<%s>", "a$b"]
    assert split_words("tool \\\n  --one \\\r\n  --two") == ["tool", "--one", "--two"]
    assert split_words(" # is no; | nor ") == ["#", "is", "no;", "|", "nor"]


@pytest.mark.parametrize(
    ("line", "said"),
    [('echo "a', "quotation"), ("echo 'a", "quotation"), ("a\\", "escaped"), ('"a\\', "quotation")],
)
def test_what_is_not_closed(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split_words(line)
