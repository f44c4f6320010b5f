"""Secrets in output: masked wherever the pieces are cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.logs.redaction import Redactor

pytestmark = pytest.mark.invariant

few_letters = st.text(alphabet="abc", max_size=60).map(str.encode)
secrets = st.lists(st.text(alphabet="abc", min_size=4, max_size=9).map(str.encode), min_size=1, max_size=4)


def in_pieces(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    """What a reader makes of data that arrives cut at ``cuts``."""
    out, rest, start = b"", b"", 0
    for cut in [*sorted(cuts), len(data)]:
        rest += data[start:cut]
        start = max(start, cut)
        clean, used = redactor.replace(rest, last=cut == len(data) and start == len(data))
        out += clean
        rest = rest[used:]
    clean, used = redactor.replace(rest, last=True)
    assert used == len(rest)
    return out + clean


ONE_LINE = st.binary(min_size=4, max_size=40).filter(lambda secret: len(secret.splitlines()) == 1)


@given(data=few_letters, secrets=secrets, cuts=st.lists(st.integers(0, 60), max_size=8))
def test_pieces_give_what_the_whole_gives(data: bytes, secrets: list[bytes], cuts: list[int]) -> None:
    whole = re.sub(
        b"|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)), b"***", data
    )

    assert in_pieces(Redactor(secrets), data, [min(cut, len(data)) for cut in cuts]) == whole


@given(secret=ONE_LINE, before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_any_bytes_are_found(secret: bytes, before: bytes, after: bytes) -> None:
    redactor = Redactor([secret])
    if not redactor:
        return
    clean, used = redactor.replace(before + secret + after, last=True)

    assert used == len(before + secret + after)
    assert b"***".join((before + secret + after).split(secret)) == clean


@pytest.mark.parametrize("secret", [b"", b"abc", "äöü".encode()])
def test_short_secrets_are_left_alone(secret: bytes) -> None:
    redactor = Redactor([secret])

    assert not redactor
    assert redactor.replace(b"xx" + secret, last=False) == (b"xx" + secret, 2 + len(secret))


def test_a_secret_of_four_characters_is_masked() -> None:
    assert Redactor([b"1234"]).replace(b"<1234>", last=True) == (b"<***>", 6)


def test_each_long_line_of_a_secret_of_several_is_masked_too() -> None:
    """Catches `sed "s/^/> /"` over a key: line by line it was nowhere whole."""
    key = b"-----BEGIN KEY-----\r\nMIIEpAIBAAKC\nshort\nAQIDBAUGBwgJ\n-----END KEY-----\n"
    redactor = Redactor([key])
    shown = b"".join(b"> " + line + b"\n" for line in key.splitlines())
    assert redactor.replace(shown, last=True)[0] == b"> ***\n> ***\n> short\n> ***\n> ***\n"
    assert redactor.replace(b"<" + key + b">", last=True)[0] == b"<***>"


def test_the_longer_of_two_at_one_place_wins() -> None:
    redactor = Redactor([b"password", b"password-of-root"])

    assert redactor.replace(b"password-of-root password", last=True) == (b"*** ***", 25)
    assert redactor.replace(b"say password", last=False) == (b"say ", 4)


def test_what_may_begin_a_secret_waits_unless_it_is_the_end() -> None:
    redactor = Redactor([b"password"])

    assert redactor.replace(b"my pass", last=False) == (b"my ", 3)
    assert redactor.replace(b"my pass", last=True) == (b"my pass", 7)


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        (b"word is out", b"*** is out"),  # the end of a secret
        (b"my pass", b"my ***"),  # the beginning of one
        (b"asswor", b"***"),  # its middle
        (b"password", b"***"),
        (b"ord, my pas", b"ord, my pas"),  # less than 4 bytes of it
        (b"ssword xx password yy passw", b"*** xx *** yy ***"),
    ],
)
def test_torn_edges_show_no_part_of_a_secret(data: bytes, clean: bytes) -> None:
    assert Redactor([b"password"]).replace(data, last=True, torn_start=True, torn_end=True) == (
        clean,
        len(data),
    )


def test_after_a_tear_too_few_bytes_to_judge_wait() -> None:
    assert Redactor([b"password"]).replace(b"word", last=False, torn_start=True) == (b"", 0)
