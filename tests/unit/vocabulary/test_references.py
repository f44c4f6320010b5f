"""Names of images are read as the engine reads them, and patterns allow no more than they say."""

from __future__ import annotations

import pytest

from workers.vocabulary import references
from workers.vocabulary.references import BadReference, Opening

ZEROS = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/team/app", "docker.io/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("Registry.Example/app", "Registry.Example/app:latest"),
        (f"app@{ZEROS}", f"docker.io/library/app@{ZEROS}"),
        (f"app:1@{ZEROS}", f"docker.io/library/app@{ZEROS}"),
        # Looks like an image's id, and is none once it is written in full.
        ("deadbeef", "docker.io/library/deadbeef:latest"),
    ],
)
def test_names_in_full(given: str, full: str) -> None:
    assert str(references.parse(given)) == full
    assert str(references.parse(full)) == full


def test_a_registry_has_one_name() -> None:
    """Compared in lower case, spelled to the engine as it was written."""
    assert references.parse("Registry.Example/app").registry == "registry.example"
    assert references.allows(["registry.example/*"], references.parse("Registry.Example/app"))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "is not the name of an image"),
        ("Busybox", "a repository is written in lower case"),
        ("Team/app", "a repository is written in lower case"),
        ("a b", "is not the name"),
        ("-x", "is not the name"),
        ("../../etc", "is not the name"),
        ("a//b", "is not the name"),
        ("https://registry.example/app", "is no"),
        ("app:", "is not usable"),
        ("app:-x", "is not usable"),
        ("app@sha256:12", "a digest is due"),
        ("0" * 64, "is an image's id"),
        (ZEROS, "is an image's id"),
        ("registry.example:99999/app", "is no registry"),
        ("[::1]:5000/app", "is no registry"),
        ("a" * 256, "is too long"),
    ],
)
def test_what_is_no_name(given: str, why: str) -> None:
    with pytest.raises(BadReference, match=why):
        references.parse(given)


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("*", ["busybox", "evil.example/x:1", f"a@{ZEROS}"], []),
        ("busybox", ["busybox", "busybox:1", f"busybox@{ZEROS}"], ["team/busybox", "localhost/busybox"]),
        (
            "registry.example/team/*",
            ["registry.example/team/app", "registry.example/team/a/b:1", "REGISTRY.example/team/app"],
            ["registry.example/other", "registry.example/teams/app", "registry.example:5000/team/app"],
        ),
        # The registry's part never reaches into the path.
        ("*.example/app", ["a.example/app"], ["evil.test/b.example/app", "app"]),
        ("registry.example/*", ["registry.example/x/y"], ["registry.example.evil/x", "xregistry.example/x"]),
        ("team/*", ["team/app"], ["app", "localhost/team/app"]),
        # Of a name with a digest the tag counts for nothing.
        ("busybox:1.*", ["busybox:1.36"], ["busybox", "busybox:2", f"busybox:1.36@{ZEROS}"]),
        (f"busybox@{ZEROS}", [f"busybox@{ZEROS}"], ["busybox", "busybox@sha256:" + "1" * 64]),
        ("docker.io/*", ["busybox", "team/app"], ["localhost/app"]),
    ],
)
def test_patterns(pattern: str, allowed: list[str], refused: list[str]) -> None:
    for name in allowed:
        assert references.allows([pattern], references.parse(name)), name
    for name in refused:
        assert not references.allows([pattern], references.parse(name)), name
    assert not references.allows([], references.parse("busybox"))


@pytest.mark.parametrize("given", ["", "a b", "app:", "/app", "registry.example/", "app@sha256:1", "a\n"])
def test_what_is_no_pattern(given: str) -> None:
    with pytest.raises(BadReference):
        references.pattern(given)


def test_how_registries_are_opened() -> None:
    """Entries of one registry add up; "any" opens all, and asks none."""
    entries = [
        "GHCR.io",
        "index.docker.io=auth.docker.io",
        "r.example:5000=a.example",
        "r.example:5000=b.example:1",
    ]
    assert references.opened(entries, "ghcr.io") == Opening("ghcr.io")
    assert references.opened(entries, "docker.io") == Opening("docker.io", frozenset({"auth.docker.io"}))
    tokens = frozenset({"a.example", "b.example:1"})
    assert references.opened(entries, "r.example:5000") == Opening("r.example:5000", tokens)
    for other in ("r.example", "auth.docker.io", "a.example", "any"):
        assert references.opened(entries, other) is None
    plain = references.opened([*entries, "http://r.example:5000", "Any"], "r.example:5000")
    assert plain == Opening("r.example:5000", tokens | {"any"}, plain=True)
    assert plain.unasked
    assert not Opening("r.example", frozenset({"any.example"})).unasked


@pytest.mark.parametrize(
    "given", ["", " ", "=", "r=", "=r", "a b", "https://r", "r/x", "u:p@r", "*", "[::1]", "r=a,b"]
)
def test_what_opens_nothing(given: str) -> None:
    with pytest.raises(BadReference) as refused:
        references.opening(given)
    assert ":p@" not in str(refused.value)
