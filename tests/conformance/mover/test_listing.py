"""LIST: what is told of a tree, and in which order."""

from __future__ import annotations

import os
import stat

import pytest

from tests.conformance.mover.moving import ALL, Mover, Report
from tests.conformance.trees.subjects import Subject, where
from workers.vocabulary.transfers.orders import Order


def tree(mover: Mover) -> None:
    """Three levels, an empty folder, two with names of different lengths."""
    for folder in (b"t/a/deep", b"t/longer", b"t/empty"):
        mover.subject.folder(mover.at(folder))
    for name in (b"t/f", b"t/a/g", b"t/a/deep/h", b"t/longer/i"):
        mover.put(name, name)


def listed(report: Report) -> dict[str, set[str]]:
    """Folder -> names; each folder once."""
    report.done()
    found = report.listing()
    assert len({folder for folder, _ in found}) == len(found)
    return {folder: {row[0] for row in rows} for folder, rows in found}


def below(mover: Mover, name: str) -> str:
    return os.fsdecode(mover.folder) + "/" + name


@pytest.mark.parametrize("act", ["LIST", "COPY", "REMOVE"])
def test_a_tree(mover: Mover, act: str) -> None:
    tree(mover)
    report = mover.run(mover.order("LIST", b"t", n=0), job_act=act)
    found = listed(report)
    assert found == {
        below(mover, "t"): {"a", "empty", "f", "longer"},
        below(mover, "t/a"): {"deep", "g"},
        below(mover, "t/a/deep"): {"h"},
        below(mover, "t/empty"): set(),
        below(mover, "t/longer"): {"i"},
    }
    assert report.end["names"] == 8
    lengths = [len(folder) for folder, _ in report.listing()]
    if act == "COPY":
        assert lengths == sorted(lengths)
    if act == "REMOVE":
        assert lengths == sorted(lengths, reverse=True)


def test_what_is_told_of_a_name(mover: Mover) -> None:
    mover.put(b"f", b"content")
    (row,) = mover.run(mover.order("LIST", b"f", n=0)).listing()[0][1]
    assert (row[0], row[2]) == ("f", 7)
    assert stat.S_ISREG(row[1])
    assert all(isinstance(number, int) for number in row[1:])
    assert len(row) == 9


@pytest.mark.parametrize(("depth", "folders"), [(0, 1), (1, 1), (2, 4), (3, 5), (-1, 5)])
def test_depth(mover: Mover, depth: int, folders: int) -> None:
    tree(mover)
    report = mover.run(mover.order("LIST", b"t", n=0), options={"depth": depth})
    assert len(listed(report)) == folders


@where(only=lambda subject: subject.id == "local")
def test_paths_are_told_as_they_were_asked_for(mover: Mover, subject: Subject) -> None:
    """``/a/``, ``~/a`` and ``a`` are one folder at a site whose default path is ``/``."""
    subject.folder(mover.at(b"t/a"))
    mover.put(b"t/f", b"")
    here = os.fsdecode(mover.folder).strip("/")

    mover.subject.put(b"/single", b"")
    tops = (f"/{here}/t", f"~/{here}/t", f"{here}/t")
    asked = [path for top in tops for path in (top, f"{top}/", f"{top}/f")]
    asked += ["/single", "single", "~/single"]
    report = mover.run(*(Order(n=n, act="LIST", src=path) for n, path in enumerate(asked)), streams=1)
    found: dict[str, dict[str, set[str]]] = {path: {} for path in asked}
    for line in (line for line in report.lines if line["r"] == "folder"):
        found[asked[line["n"]]][line["d"]] = {row[0] for row in line["e"]}
    for top in tops:
        assert found[top] == found[f"{top}/"] == {top: {"a", "f"}, f"{top}/a": set()}
        assert found[f"{top}/f"] == {top: {"f"}}
    assert found["/single"] == {"/": {"single"}}
    assert found["single"] == {"": {"single"}}
    assert found["~/single"] == {"~": {"single"}}


def test_nothing_there(mover: Mover) -> None:
    end = mover.run(mover.order("LIST", b"nothing", n=0)).failed(again=False)
    assert end["code"] == 2


@where(only=ALL)
def test_only_empty_folders(mover: Mover) -> None:
    for name in (b"t/a/b", b"t/c"):
        mover.subject.folder(mover.at(name))
    found = listed(mover.run(mover.order("LIST", b"t", n=0), job_act="COPY"))
    assert set(found) == {below(mover, name) for name in ("t", "t/a", "t/a/b", "t/c")}


@where(only=lambda subject: subject.id == "local")
def test_names_that_are_no_utf8(mover: Mover) -> None:
    r"""Each such byte as \xNN, a backslash doubled, in lines of their own; a folder of such a name, too."""
    mover.subject.folder(mover.at(b"t/\xff"))
    mover.put(b"t/back\\slash", b"")
    mover.put(b"t/\xfe\\", b"")
    mover.put(b"t/\xff/plain\\", b"")
    report = mover.run(mover.order("LIST", b"t", n=0), job_act="COPY")
    found = listed(report)
    top, inner = below(mover, "t"), below(mover, "t/\\xff")
    assert found == {top: {"back\\slash", "x:\\xfe\\\\", "x:\\xff"}, inner: {"x:plain\\\\"}}


@where(only=lambda subject: subject.links and subject.id in ("local", "sftp"))
def test_links(mover: Mover, subject: Subject) -> None:
    """Catches a loop, a folder that is walked twice, a link to a file that is lost."""
    subject.folder(mover.at(b"t/sub"))
    mover.put(b"t/f", b"content")
    links = {b"up": b"..", b"down": b"sub", b"file": b"f", b"none": b"nothing", b"self": b"self"}
    for name, to in links.items():
        subject.link(mover.at(b"t/" + name), to)
    report = mover.run(mover.order("LIST", b"t", n=0), job_act="COPY")
    found = listed(report)
    assert found == {
        below(mover, "t"): {"sub", "f", "up", "down", "file", "none", "self"},
        below(mover, "t/sub"): set(),
    }
    rows = {row[0]: row for _, rows in report.listing() for row in rows}
    assert (stat.S_ISREG(rows["file"][1]), rows["file"][2]) == (True, 7)
    assert all(stat.S_ISLNK(rows[name][1]) for name in ("up", "down", "none", "self"))
    assert all(f"/{name} is a link" in report.end["log"] for name in ("up", "down", "none", "self"))
    whole = mover.run(mover.order("LIST", b"t", n=0), job_act="REMOVE")
    rows = {row[0]: row for _, rows in whole.listing() for row in rows}
    assert stat.S_ISLNK(rows["file"][1])


@where(only=lambda subject: subject.id == "local")
def test_special_files(mover: Mover, subject: Subject) -> None:
    subject.folder(mover.at(b"t"))
    os.mkfifo(subject.real(mover.at(b"t/pipe")))  # type: ignore[attr-defined]
    report = mover.run(mover.order("LIST", b"t", n=0), job_act="COPY")
    assert listed(report) == {below(mover, "t"): {"pipe"}}
    assert "t/pipe is a pipe: skipped" in report.end["log"]


@where(only=lambda subject: subject.id == "local")
def test_a_folder_that_may_not_be_read(mover: Mover, subject: Subject) -> None:
    """Catches half a tree that is called whole. A link that leads out stands for what even root may not."""
    subject.folder(mover.at(b"t/sub"))
    subject.link(mover.at(b"out"), b"../../outside")
    mover.run(mover.order("LIST", b"out", n=0)).failed(again=False)


def test_renaming_looks_at_the_source_alone(mover: Mover) -> None:
    tree(mover)
    report = mover.run(mover.order("LIST", b"t", n=0), job_act="RENAME")
    assert listed(report) == {below(mover, "").rstrip("/"): {"t"}}


def test_what_a_transfer_writes_is_not_copied(mover: Mover) -> None:
    """Catches the part of another transfer in a copy of its folder; a REMOVE takes it along."""
    part = b".f.0123abcd.gantry-7-1.1.part"
    mover.subject.folder(mover.at(b"t"))
    mover.put(b"t/" + part, b"")
    assert listed(mover.run(mover.order("LIST", b"t", n=0), job_act="COPY")) == {below(mover, "t"): set()}
    removed = listed(mover.run(mover.order("LIST", b"t", n=0), job_act="REMOVE"))
    assert removed == {below(mover, "t"): {os.fsdecode(part)}}


@where(only=lambda subject: subject.id == "local")
def test_more_names_than_a_line_holds(mover: Mover) -> None:
    mover.subject.folder(mover.at(b"t"))
    for number in range(1200):
        mover.put(b"t/%d" % number, b"")
    report = mover.run(mover.order("LIST", b"t", n=0), job_act="COPY")
    lines = [line for line in report.lines if line["r"] == "folder"]
    assert max(len(line["e"]) for line in lines) == 1000
    assert len(listed(report)[below(mover, "t")]) == 1200
