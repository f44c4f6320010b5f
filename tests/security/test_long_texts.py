"""No text of a client's takes a time that grows like its square.

A pattern of Python's holds the whole process. Without its mend a test of these does not end in time.
"""

from __future__ import annotations

import random
import re

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from config.http.middleware import GuardMiddleware
from tasks_api import fields
from tasks_api.codes import Malformed
from workers.vocabulary import references
from workers.vocabulary.errors import without_user_info

#: As long as a body may be.
LONG = 1024 * 1024


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(":" * LONG + "@sha256:", id="colons"),
        pytest.param("a" * LONG + "@", id="a word"),
        pytest.param("registries/" * (LONG // 11) + "@", id="registries"),
        pytest.param("@sha1" * (LONG // 5), id="halves of digests"),
    ],
)
def test_passwords_are_looked_for_once(text: str) -> None:
    """Of nobody's path, three times for each request: 30,000 colons took 23 s."""
    without_user_info(text)


def test_what_is_taken_for_a_password_is_as_it_was() -> None:
    slow = re.compile(r"(?:(?<=registries/)[^/]*|[^/\s@:]*:[^/\s]*)@(?!sha[0-9]+:)")
    words = ("a", "b", ":", "@", "@", "/", " ", "\n", "registries/", "@sha256:", "sha1:", "http://")
    drawn = random.Random(13)
    for _ in range(5_000):
        text = "".join(drawn.choices(words, k=drawn.randint(0, 12)))
        assert without_user_info(text) == slow.sub("***@", text), text


@pytest.mark.parametrize("end", ["x", ".x", "e", " x"])
def test_a_long_text_is_no_number_at_once(end: str) -> None:
    """20,000 digits took 15 s, a body of them hours."""
    with pytest.raises(Malformed):
        fields.decimal("1" * (LONG // 4) + end, "retry")


def test_numbers_are_what_they_were() -> None:
    for text in ("1", "1.", "1.5", ".5", " +1e3 ", "-2.5E-1"):
        assert fields.decimal(text, "retry") == float(text)
    for text in (".", "1.5.2", "e3", "1 2", "--1"):
        with pytest.raises(Malformed):
            fields.decimal(text, "retry")


def test_a_long_name_of_a_registry_is_refused_at_once() -> None:
    with pytest.raises(references.BadReference):
        references.host("A" * LONG + " ")


def test_a_cookie_of_backslashes_is_left_out() -> None:
    """Of nobody's: 30,000 took 7 s of http.cookies. The others are as they were."""
    seen = {}

    def view(request: HttpRequest) -> HttpResponse:
        seen.update(request.COOKIES)
        return HttpResponse()

    cookies = 'csrftoken=abc; sessionid="' + "\\" * LONG + '"; theme="dark, blue"'
    GuardMiddleware(view)(RequestFactory().get("/healthz", headers={"Cookie": cookies}))
    assert seen == {"csrftoken": "abc", "theme": "dark, blue"}
