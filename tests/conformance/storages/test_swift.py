"""Swift keeps the protocol of a storage: what is read, what is stored, and what is left behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.storages.subjects import MIB, Source, fails, read
from tests.support.swift import Swift
from workers.storage.base import Trouble
from workers.storage.swift import check, listing

NAMES = [
    *(
        "my name",
        "my%20name",
        "100%",
        "a?b#c+d&e=f",
        "é",
        "e\u0301",
        "日本/語",
        "//a",
        "a//b",
        "a/../b",
        "./x",
    ),
    *(".hidden", "..", "a;b,c", "quote\"d 'name'", "back\\slash", "[x]{y}|z^`~", " blanks ", "tab\there"),
]


def test_names_are_kept_to_the_letter(swift: Swift, source: Source) -> None:
    """Catches a name that is quoted twice, not at all, or straightened out."""
    container, storage = swift.container(), swift.storage()
    for name in NAMES:
        content = source.fill(10)
        source.store(storage, f"{container}/{name}")
        assert read(storage, f"{container}/{name}") == content, name
    assert sorted(swift.names(container)) == sorted(NAMES)
    content = source.fill(2 * MIB)
    source.store(storage, f"{container}/{NAMES[3]}", "run-2")
    assert read(storage, f"{container}/{NAMES[3]}") == content
    storage.remove(f"{container}/{NAMES[0]}")
    assert NAMES[0] not in swift.names(container)
    storage.close()


def test_replaced_by_larger_and_smaller_ones(swift: Swift, source: Source) -> None:
    """Catches an old content, a part of one, and segments that nobody removes."""
    container, storage = swift.container(), swift.storage()
    path = f"{container}/a b"
    for number, size in enumerate((2 * MIB, 3 * MIB, 3 * MIB + 1, MIB, MIB + 1, 0, 5)):
        content = source.fill(size)
        stat = source.store(storage, path, f"run-{number}")
        assert swift.get(f"{container}/a%20b") == content
        assert read(storage, path) == content
        assert storage.stat(path) == stat
        assert (stat.size, stat.mark) == (size, f"run-{number}")
        assert sum(source.moved) == size
        assert source.commits == number + 1
        segments = -(-size // MIB) if size > MIB else 0
        assert len(swift.names(f"{container}_segments")) == segments
    storage.close()


def test_from_any_offset_and_only_the_version_asked_for(swift: Swift, source: Source) -> None:
    """Catches a byte too many or too few, and halves of two versions."""
    container, storage = swift.container(), swift.storage()
    for size in (MIB, 3 * MIB + 7):
        path = f"{container}/{size}"
        content = source.fill(size)
        version = source.store(storage, path).version
        for offset in (0, 1, MIB - 1, MIB, MIB + 1, size - 1, size):
            if offset <= size:
                assert read(storage, path, offset=offset, version=version) == content[offset:]
        with fails(Trouble.CHANGED):
            read(storage, path, offset=size + 1)
        source.fill(size)
        source.store(storage, path, "run-2")
        for offset in (0, 5):
            with fails(Trouble.CHANGED, "changed"):
                read(storage, path, offset=offset, version=version)
    storage.close()


def test_there_with_its_mark_is_not_sent_again(swift: Swift, source: Source) -> None:
    """Catches a second upload after a worker's death, and another's that is taken for it."""
    container, storage = swift.container(), swift.storage()
    for size in (10, 2 * MIB + 1):
        source.fill(size)
        first = source.store(storage, f"{container}/{size}")
        before = len(swift.requests())
        assert source.store(storage, f"{container}/{size}") == first
        assert [method for method, *_ in swift.requests()[before:]] == ["HEAD"]
        assert source.moved == [size]
        assert source.store(storage, f"{container}/{size}", "run-2").mark == "run-2"
    storage.close()


class _DeathError(Exception):
    pass


@pytest.mark.parametrize("size", [10, MIB, 2 * MIB + 1])
def test_what_commit_raises_ends_it_unseen(swift: Swift, source: Source, size: int) -> None:
    """Catches an output that becomes visible after a cancel, and a first object that is lost with it."""
    container, storage = swift.container(), swift.storage()
    old = source.fill(MIB + 3)
    source.store(storage, f"{container}/a", "old")

    def commit() -> None:
        raise OSError("cancelled")  # libraries between would wrap it

    source.fill(size)
    with pytest.raises(OSError, match="cancelled"):
        source.store(storage, f"{container}/a", "run-1", commit=commit)
    assert swift.get(f"{container}/a") == old
    storage.discard(f"{container}/a", "run-1")
    assert len(swift.names(f"{container}_segments")) == 2
    storage.discard(f"{container}/a", "old")  # of what is there nothing is removed
    assert swift.get(f"{container}/a") == old
    storage.close()


def test_an_interrupted_upload_goes_on(swift: Swift, source: Source) -> None:
    """Catches segments that are sent twice, and one of another content that is taken for ours."""
    container, storage = swift.container(), swift.storage()
    content = source.fill(5 * MIB)

    def commit() -> None:
        raise _DeathError

    with pytest.raises(_DeathError):
        source.store(storage, f"{container}/a", commit=commit)
    place = f"{container}_segments"
    there = swift.names(place)
    assert len(there) == 5
    for number in (1, 4):
        swift.api("DELETE", f"/{place}/{there[number]}").raise_for_status()
    swift.put(f"{place}/{there[2]}", b"x" * MIB)
    before = len(swift.requests())
    source.store(storage, f"{container}/a")
    puts = [path for method, path, *_ in swift.requests()[before:] if method == "PUT"]
    assert sorted(path.rpartition("/")[2] for path in puts) == ["00000001", "00000002", "00000004", "a"]
    assert sum(source.moved) == 5 * MIB
    assert swift.get(f"{container}/a") == content
    storage.close()


def test_segments_of_others_stay(swift: Swift, source: Source) -> None:
    """Catches the removal of what another tool, another upload or another object owns."""
    container, storage = swift.container(), swift.storage()
    place = f"{container}_segments"
    assert swift.api("PUT", f"/{place}").status_code == 201
    others = ["a/slo/1/2/0", "a/.gantry/other-1/00000000", "a/.gantry/run-1/x", "ab/.gantry/run-1/00000000"]
    for name in others:
        swift.put(f"{place}/{name}", b"12345")
    manifest = [{"path": f"/{place}/a/slo/1/2/0", "size_bytes": 5}]
    answer = swift.api("PUT", f"/{container}/a?multipart-manifest=put", content=json.dumps(manifest))
    assert answer.status_code == 201
    assert read(storage, f"{container}/a") == b"12345"
    source.fill(2 * MIB)
    source.store(storage, f"{container}/a", "run-1")
    source.fill(1)
    source.store(storage, f"{container}/a", "run-2")
    storage.discard(f"{container}/a", "run-")
    assert sorted(swift.names(place)) == sorted(others)
    storage.close()


def test_a_death_before_old_segments_are_removed(
    swift: Swift, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches segments that stay for ever because the worker died between manifest and clean-up."""
    container, storage = swift.container(), swift.storage()

    remove = listing.delete_upload

    def died(connection: Any, of: str, name: str, mark: str) -> None:
        if mark in ("old-run-2", "old-run-3"):
            raise _DeathError
        remove(connection, of, name, mark)

    for mark, next_one in (("run-2", "run-2"), ("run-3", "run-4")):
        source.fill(2 * MIB)
        source.store(storage, f"{container}/a", f"old-{mark}")
        content = source.fill(3 * MIB)
        with monkeypatch.context() as patched:
            patched.setattr(listing, "delete_upload", died)
            with pytest.raises(_DeathError):
                source.store(storage, f"{container}/a", mark)
        assert len(swift.names(f"{container}_segments")) == 5
        source.store(storage, f"{container}/a", next_one)
        assert len(swift.names(f"{container}_segments")) == 3
        assert swift.get(f"{container}/a") == content
    storage.close()


def test_large_objects_of_others(swift: Swift) -> None:
    """Catches objects of other tools that cannot be read: ranges, nested manifests, dynamic ones."""
    container, storage = swift.container(), swift.storage()
    for name, content in (("p/1", b"a" * 100), ("p/2", b"b" * 100)):
        swift.put(f"{container}/{name}", content)
    entries = [{"path": f"/{container}/p/1", "range": "10-19"}, {"path": f"/{container}/p/2"}]
    put = "multipart-manifest=put"
    assert swift.api("PUT", f"/{container}/slo?{put}", content=json.dumps(entries)).status_code == 201
    outer = [{"path": f"/{container}/slo"}, {"path": f"/{container}/p/1"}]
    assert swift.api("PUT", f"/{container}/outer?{put}", content=json.dumps(outer)).status_code == 201
    swift.put(f"{container}/dlo", b"", **{"X-Object-Manifest": f"{container}/p/"})
    for name, content in (
        ("slo", b"a" * 10 + b"b" * 100),
        ("outer", b"a" * 10 + b"b" * 100 + b"a" * 100),
        ("dlo", b"a" * 100 + b"b" * 100),
    ):
        for offset in (0, 3, 10, 50):
            assert read(storage, f"{container}/{name}", offset=offset) == content[offset:], (name, offset)
    storage.close()


def test_content_types(swift: Swift, source: Source) -> None:
    """Catches a type that is lost, also on a segmented object, and one that a header cannot carry."""
    container, storage = swift.container(), swift.storage()
    for size, name, given, expected in (
        (3, "a.html", "", "text/html"),
        (3, "a.tar.gz", "", "application/gzip"),
        (3, "a.fa", "chemical/x-fasta", "chemical/x-fasta"),
        (MIB + 1, "b.fa", "chemical/x-fasta", "chemical/x-fasta"),
        (MIB + 1, "b.html", "", "text/html"),
        (3, "nothing", "", "application/octet-stream"),
        (3, "b.json", "te\nxt/é", "application/json"),
    ):
        source.fill(size)
        assert source.store(storage, f"{container}/{name}", content_type=given).content_type == expected
        head = swift.api("HEAD", f"/{container}/{name}").headers
        assert head["content-type"] == expected
        assert "content-encoding" not in head
    storage.close()


def test_what_is_missing_is_named(swift: Swift, source: Source) -> None:
    """Catches a 404 that leaves open which of two is missing, and containers that nobody asked for."""
    container, storage = swift.container(), swift.storage()
    source.fill(5)
    for act in (storage.stat, lambda path: read(storage, path), storage.remove):
        with fails(Trouble.MISSING, f"said 404 Not Found: {container}/a b"):
            act(f"{container}/a b")
        with fails(Trouble.MISSING, "said 404 Not Found: container nowhere"):
            act("nowhere/a")
    with fails(Trouble.MISSING, "container nowhere"):
        source.store(storage, "nowhere/a")
    assert swift.api("HEAD", "/nowhere").status_code == 404
    for size, name in ((5, "made"), (MIB + 1, "made-too")):
        source.fill(size)
        source.store(storage, f"{container}-{name}/a", make_container=True)
        assert read(storage, f"{container}-{name}/a") == source.path.read_bytes()
    for path in ("", "a", "a/", "/a"):
        with fails(Trouble.OTHER, "container/object"):
            storage.stat(path)
    with fails(Trouble.OTHER, "Unicode"):
        storage.stat("a/\udcff")
    storage.close()


def test_quotas(swift: Swift, source: Source) -> None:
    """Catches a full quota that looks like a network that is away, and what such an upload leaves."""
    container, storage = swift.container(), swift.storage()
    headers = {"X-Container-Meta-Quota-Bytes": "1000"}
    assert swift.api("POST", f"/{container}", headers=headers).status_code == 204
    source.fill(1001)
    with fails(Trouble.FULL, "413"):
        source.store(storage, f"{container}/a")
    source.fill(MIB)  # the answer comes while it is being sent
    with fails(Trouble.FULL, "413"):
        source.store(storage, f"{container}/a")
    assert swift.api("PUT", f"/{container}_segments", headers=headers).status_code == 201
    source.fill(3 * MIB)
    with fails(Trouble.FULL, "413"):
        source.store(storage, f"{container}/a")
    assert swift.names(container) == swift.names(f"{container}_segments") == []
    storage.close()


def test_check_tells_what_is_wrong(swift: Swift) -> None:
    """Catches credentials that are found to be bad when the run has ended."""
    container = swift.container()
    check(swift.store())
    check(swift.store(user="test:tester", tenant=""), container)
    check(
        swift.store(user="onlooker", key="looking")
    )  # may not see the account, but who knows which container
    others: list[dict[str, Any]] = [
        {"key": "wrong"},
        {"tenant": "nobody"},
        {"user": "nobody"},
        {"key": "schlüssel"},
    ]
    for other in others:
        with fails(Trouble.DENIED, "Unauthorized"):
            check(swift.store(**other))
    with fails(Trouble.DENIED, "403"):
        check(swift.store(user="onlooker", key="looking"), container)
    with fails(Trouble.MISSING, "container nowhere"):
        check(swift.store(), "nowhere")
    with fails(Trouble.OTHER):
        check(swift.store(auth="/nothing/v1.0"))
    for auth in ("", "/", "/auth", "/auth/", "/auth/v1", "/auth/v1.0/"):
        check(swift.store(auth=auth))
    check(swift.store(auth_version="1", auth=""))


def test_the_guard_refuses_both_addresses(swift: Swift, settings: Any) -> None:
    """Catches a storage URL that leads where no client may send us."""
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = []
    with fails(Trouble.REFUSED, "GANTRY_SWIFT_ALLOW_NETWORKS"):
        check(swift.store())
    for url in ("ftp://a/b", "http://", "nonsense"):
        with fails(Trouble.REFUSED):
            check(swift.store(auth_url=url))
