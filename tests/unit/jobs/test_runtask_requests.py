"""What clients of runtask send: the two styles, what counts as absent, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.runtask.asking import places, requests, template
from jobs.runtask.asking.places import Place
from jobs.runtask.asking.requests import CommandRequest, DefinitionRequest
from workers.vocabulary.errors import InvalidInput

WHO: dict[str, Any] = {
    "user": "ann",
    "key": "canary-key",
    "tenant": "lab",
    "authurl": "http://swift.example:8080/auth/v1.0",
}
ABSENT: tuple[object, ...] = (None, "", "None")


def definition(**more: Any) -> DefinitionRequest:
    found = requests.parse({**WHO, **more})
    assert isinstance(found, DefinitionRequest)
    return found


def command(**more: Any) -> CommandRequest:
    found = requests.parse({**WHO, **more})
    assert isinstance(found, CommandRequest)
    return found


def refused(body: dict[str, Any]) -> tuple[str | None, str]:
    with pytest.raises(InvalidInput) as caught:
        requests.parse(body)
    assert "canary-key" not in caught.value.message
    return caught.value.field, caught.value.message


def test_the_account() -> None:
    store = definition().store
    assert (store.user, store.key, store.tenant, store.auth_url) == tuple(WHO.values())
    assert (store.auth_version, store.user_domain, store.project_domain) == ("", "Default", "Default")
    store = definition(auth_version="3", user_domain_name="u", project_domain_name="p").store
    assert (store.auth_version, store.user_domain, store.project_domain) == ("3", "u", "p")
    assert "canary-key" not in repr(definition())


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("1", "1"),
        ("1.0", "1"),
        ("v1", "1"),
        (2, "2"),
        (2.0, "2"),
        ("v2.0", "2"),
        (3, "3"),
        ("v3", "3"),
        *((x, "") for x in ABSENT),
    ],
)
def test_versions_of_the_authentication(sent: object, read: str) -> None:
    assert definition(auth_version=sent).store.auth_version == read


@pytest.mark.parametrize("sent", ["4", "x", 1.5, True, ["1", "2"], "1 "])
def test_versions_that_are_none(sent: object) -> None:
    assert refused({**WHO, "auth_version": sent})[0] == "auth_version"


@pytest.mark.parametrize("name", ["user", "key", "tenant", "authurl"])
@pytest.mark.parametrize("value", [None, "", 1, ["a", "b"], "a\0b", "a\nb", "x" * 5000])
def test_every_part_of_the_account_is_needed(name: str, value: object) -> None:
    assert refused({**WHO, name: value})[0] == name
    assert refused({key: item for key, item in WHO.items() if key != name})[0] == name


@pytest.mark.parametrize("url", ["swift.example", "ftp://a/", "http://", "http://u:p@swift/", "http://h:22/"])
def test_addresses_that_are_none(url: str) -> None:
    assert refused({**WHO, "authurl": url})[0] == "authurl"


@pytest.mark.parametrize("nothing", ABSENT)
def test_absent_in_three_ways(nothing: object) -> None:
    names = (
        *("job", "container_name", "file_name", "parameters", "cm", "input_file", "output_file"),
        *("auth_version", "user_domain_name", "project_domain_name", "wait_for_input"),
    )
    assert requests.parse({**WHO, **dict.fromkeys(names, nothing)}) == requests.parse(WHO)
    of_cm = {"cm": "true", **{name: nothing for name in names if name != "cm"}}
    assert requests.parse({**WHO, **of_cm}) == requests.parse({**WHO, "cm": "true"})


def test_a_field_that_is_sent_twice_with_one_value_is_one() -> None:
    twice = {name: [value, value] for name, value in {**WHO, "cm": "true", "auth_version": "2"}.items()}
    assert requests.parse(twice) == command(cm="true", auth_version="2")
    assert definition(parameters=["a", "a"]).given == ["a", "a"], "two values"


def test_unknown_parameters_are_ignored() -> None:
    assert definition(colour="red", callback=["x"]) == definition()


def test_the_seeds_form() -> None:
    found = definition(job="count", container_name="c", file_name="a/b?c#d%20", wait_for_input="60")
    assert (found.job, found.container, found.file_name, found.wait_s) == ("count", "c", "a/b?c#d%20", 60)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({}, {}),
        ({"parameters": ["a", "b c"]}, ["a", "b c"]),
        ({"parameters": '["a", "1"]'}, ["a", "1"]),
        ({"parameters": "just one"}, ["just one"]),
        ({"parameters": [1, 2.5]}, ["1", "2.5"]),
        ({"parameters": {"x": "1"}}, {"x": "1"}),
        ({"parameters": ' {"x": 1}'}, {"x": "1"}),
        ({"param_x": "", "param_y": "None"}, {"x": "", "y": "None"}),
        ({"param_1": "[not json", "param_2": 7}, {"1": "[not json", "2": "7"}),
        ({"param_x": None}, {}),
        ({"parameters": []}, {}),
    ],
)
def test_values_for_a_definition(sent: dict[str, Any], read: object) -> None:
    assert definition(**sent).given == read


@pytest.mark.parametrize(
    "sent",
    [
        {"parameters": "[broken"},
        {"parameters": [["a"]]},
        {"parameters": [None]},
        {"parameters": [True]},
        {"parameters": ["a\0"]},
        {"parameters": ["x" * (128 * 1024)]},
        {"parameters": ["a"], "param_x": "b"},
        {"param_x": ["a", "b"]},
        {"param_x": {"a": 1}},
        {"param_x": True},
    ],
)
def test_values_that_are_refused(sent: dict[str, Any]) -> None:
    field, _ = refused({**WHO, **sent})
    assert field is not None
    assert field.startswith("param")


@pytest.mark.parametrize("value", ["-1", "1.5", "86401", "x", True, "1e3", [1, 2], "9999999"])
def test_waits_that_are_none(value: object) -> None:
    assert refused({**WHO, "wait_for_input": value})[0] == "wait_for_input"


def test_the_longest_wait() -> None:
    assert (definition(wait_for_input="86400").wait_s, definition(wait_for_input=0).wait_s) == (86_400, 0)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cm": "true", "file_name": "a"}, "file_name"),
        ({"cm": "true", "container_name": "a"}, "container_name"),
        ({"cm": "true", "job": "a"}, "job"),
        ({"cm": "true", "param_x": "a"}, "param_x"),
        ({"input_file": "c/a"}, "input_file"),
        ({"output_file": "c/a"}, "output_file"),
        ({"cm": ["a", "b"]}, "cm"),
        ({"cm": 1}, "cm"),
        ({"cm": "x" * (128 * 1024)}, "cm"),
        ({"cm": "a\0"}, "cm"),
        ({"container_name": "a/b"}, "container_name"),
        ({"container_name": "é" * 129}, "container_name"),
        ({"file_name": "x" * 1025}, "file_name"),
        ({"cm": "true", "input_file": "c"}, "input_file"),
        ({"cm": "true", "input_file": "/a"}, "input_file"),
        ({"cm": "true", "input_file": "c/"}, "input_file"),
        ({"cm": "true", "input_file": "c/a||b"}, "input_file"),
        ({"cm": "true", "input_file": "c/a|"}, "input_file"),
        ({"cm": "true", "input_file": "c/" + "|".join("a" * 101)}, "input_file"),
        ({"cm": "true", "output_file": "c"}, "output_file"),
        ({"cm": "true", "output_file": "c/"}, "output_file"),
        ({"cm": "true", "output_file": "../a"}, "output_file"),
    ],
)
def test_what_is_refused(body: dict[str, Any], field: str) -> None:
    assert refused({**WHO, **body})[0] == field


ODD = (
    "my name",
    "my%20name",
    "100%",
    "a?b#c",
    "e\u0301te\u0301.fa",
    "x/y//z",
    "$(touch pwned);`id`",
    "a'\"b",
    "..",
    "a/..",
)


def test_names_are_taken_as_they_are() -> None:
    found = command(cm="true", input_file="my c/" + "|".join(ODD), output_file="c/a|b/c")
    assert found.inputs == [Place("my c", name) for name in ODD]
    assert found.output == Place("c", "a|b/c")


def test_urls_hold_every_name() -> None:
    from urllib.parse import unquote

    for name in (*ODD, "a\nb", "é"):
        url = Place("my c?#%", name).url
        assert url.isascii()
        assert not set(url.removeprefix("swift://")) & set(" ?#")
        container, _, rest = url.removeprefix("swift://").partition("/")
        assert (unquote(container), unquote(rest)) == ("my c?#%", name)


# --- Paths and the command line ----------------------------------------------------------------------


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_paths_are_safe_in_any_quoting(name: str) -> None:
    path = places.input_path(3, Place("c", name))
    assert path.startswith("in/3/")
    last = path.removeprefix("in/3/")
    assert last
    assert len(last) <= 200
    assert last.strip(".")
    assert set(last) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("reads.fasta", "reads.fasta"),
        ("a/b/my name.fa", "my_name.fa"),
        ("e\u0301.fa", "e_.fa"),
        ("a/", "_"),
        ("..", "__"),
        (".", "_"),
        (".hidden", ".hidden"),
        ("$(x).gz", "__x_.gz"),
        ("x" * 300 + ".fasta", "x" * 194 + ".fasta"),
    ],
)
def test_the_last_part_stays_readable(name: str, last: str) -> None:
    assert places.input_path(0, Place("c", name)) == f"in/0/{last}"
    assert places.output_path(Place("c", name)) == f"out/0/{last}"


@pytest.mark.parametrize(
    ("cm", "text"),
    [
        ("cat {input_file[0]} {input_file[1]} > {output_file}", "cat A B > O"),
        ("{input_file[0]}{input_file[0]}", "AA"),
        ("awk '{print $1}' {input_file[0]}", "awk '{print $1}' A"),
        ("echo ${HOME} {a,b} {} {input_file} {input_file[x]} {input_file[-1]}", None),
        ("{{input_file[0]}}", "{input_file[0]}"),
        ("{{{input_file[0]}}}", "{A}"),
        ("{{}}", "{}"),
        ("{{{{", "{{"),
        ("}} } {", "} } {"),
        ("{input_file[00001]}", "B"),
    ],
)
def test_braces(cm: str, text: str | None) -> None:
    assert template.expand(cm, ["A", "B"], "O") == (cm if text is None else text)


@pytest.mark.parametrize(
    "cm", ["{input_file[2]}", "{input_file[99999999999999999999]}", "a {{ {input_file[2]}"]
)
def test_a_place_without_a_file(cm: str) -> None:
    with pytest.raises(InvalidInput, match="names 2"):
        template.expand(cm, ["A", "B"], None)
    with pytest.raises(InvalidInput, match="output_file"):
        template.expand("{output_file}", [], None)


def test_what_is_inserted_is_not_read_again() -> None:
    assert template.expand("{input_file[0]}", ["{output_file}"], None) == "{output_file}"
    assert not template.writes_output("{{output_file}}")
    assert template.writes_output("x {output_file}")


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2", 2),
        (2, 2),
        ("02", None),
        ("x", None),
        (2.5, None),
        ("-1", None),
        ("0", None),
        ("9" * 19, None),
        (True, None),
        ([1, 2], None),
        ("²", None),
    ],
)
def test_ids(sent: object, read: int | None) -> None:
    assert requests.parse_job_id(sent) == read


@pytest.mark.parametrize("sent", ABSENT)
def test_no_id(sent: object) -> None:
    with pytest.raises(InvalidInput, match="job_id is missing"):
        requests.parse_job_id(sent)
