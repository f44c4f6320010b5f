"""Job definitions: what their two files may say, and a folder in which some are broken."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project

from jobs.runtask.catalogue import folder
from jobs.runtask.catalogue.folder import Catalogue, catalogue
from jobs.runtask.catalogue.parsing import BadDefinition, Definition, parse
from jobs.runtask.errors import BrokenDefinition, NoSuchDefinition
from workers.vocabulary.errors import InvalidInput

SAMPLES = Path(project.BASE_DIR) / "jobs" / "runtask" / "definitions"


def defined(name: str = "d", script: str = "true\n", **told: Any) -> Definition:
    return parse(name, script.encode(), json.dumps(told).encode())


@pytest.mark.parametrize(
    ("told", "first", "parameters"),
    [
        ({}, False, 0),
        ({"first": None, "parameters": None}, False, 0),
        ({"first": True, "parameters": 3}, True, 3),
        (
            {"first": False, "parameters": ["threshold", "_x9"], "more": {"ignored": 1}},
            False,
            ("threshold", "_x9"),
        ),
        ({"parameters": []}, False, ()),
    ],
)
def test_what_is_read(told: dict[str, Any], first: bool, parameters: object) -> None:
    found = defined(**told)
    assert (found.first, found.parameters) == (first, parameters)


def test_what_is_ours() -> None:
    found = defined(description="d", image="busybox:1", cpus=1.5, mem_mb=64, timeout_s=5)
    assert (found.description, found.cpu_m, found.mem_mb, found.timeout_s) == ("d", 1500, 64, 5)
    assert "busybox" in found.image


def test_lines_with_carriage_returns_are_run_without_them() -> None:
    assert defined(script="echo a\r\necho b\r\n").script == "echo a\necho b\n"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"first": "true"}, "first must be"),
        ({"first": 1}, "first must be"),
        ({"parameters": -1}, "parameters is -1"),
        ({"parameters": True}, "number or a list"),
        ({"parameters": "a"}, "number or a list"),
        ({"parameters": 101}, "0 to 100"),
        ({"parameters": ["a b"]}, "environment variable"),
        ({"parameters": ["9"]}, "environment variable"),
        ({"parameters": ["é"]}, "environment variable"),
        ({"parameters": ["a", "a"]}, "twice"),
        ({"parameters": [1]}, "environment variable"),
        ({"image": "Not An Image"}, "image"),
        ({"image": 1}, "image must be text"),
        ({"mem_mb": "64"}, "mem_mb must be a number"),
        ({"timeout_s": 0}, "timeout_s must be"),
        *(
            ({"parameters": [name]}, "of its own")
            for name in ("PATH", "IFS", "BASH_ENV", "LD_PRELOAD", "GANTRY_X")
        ),
    ],
)
def test_what_is_refused(told: dict[str, Any], says: str) -> None:
    with pytest.raises(BadDefinition, match=says):
        defined(**told)


@pytest.mark.parametrize("name", ["", ".x", "a b", "ä", "a" * 65, "a/b"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(BadDefinition, match="folder's name"):
        defined(name)


@pytest.mark.parametrize(
    ("script", "define", "says"),
    [
        (b" \n", b"{}", "job.sh is empty"),
        (b"\xff", b"{}", "job.sh is not UTF-8"),
        (b"a\0b", b"{}", "NUL"),
        (b"#" * (128 * 1024), b"{}", "at most"),
        (b"true", b"{", "not JSON"),
        (b"true", b"[]", "must be an object"),
        (b"true", b"\xff", "not JSON"),
        (b"true", b"[" * 100_000, "not JSON"),
    ],
)
def test_files_that_are_refused(script: bytes, define: bytes, says: str) -> None:
    with pytest.raises(BadDefinition, match=says):
        parse("d", script, define)


# --- The folder --------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    settings.GANTRY_RUNTASK_DEFINITIONS = tmp_path / "d"
    monkeypatch.setattr(folder, "_known", None)
    (tmp_path / "d").mkdir()
    yield tmp_path / "d"
    monkeypatch.setattr(folder, "_known", None)


def put(place: Path, name: str, define: str = "{}", script: str = "true\n") -> None:
    (place / name).mkdir(exist_ok=True)
    (place / name / "job.sh").write_text(script)
    (place / name / "job_define.json").write_text(define)


def test_the_broken_ones_are_named_and_the_others_work(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(place, "good")
    put(place, "bad", '{"first": 3}')
    (place / "half").mkdir()
    (place / "half" / "job.sh").write_text("true")
    (place / "odd").mkdir()
    os.mkfifo(place / "odd" / "job.sh")
    (place / "odd" / "job_define.json").write_text("{}")
    (place / ".hidden").mkdir()
    (place / "README").write_text("no definition")
    found = catalogue()
    assert list(found.definitions) == ["good"]
    assert set(found.broken) == {"bad", "half", "odd"}
    assert found.broken["half"] == "job_define.json is missing"
    assert found.broken["odd"] == "job.sh is no file"
    told = [str(record.msg) for record in caplog.records]
    for name in ("bad", "half", "odd"):
        assert sum(f"'definition': '{name}'" in line for line in told) == 1
    assert catalogue() is found, "nothing is read again while nothing has changed"
    assert len(caplog.records) == 3
    put(place, "bad", '{"first": true}')
    assert catalogue().definitions["bad"].first, "a change counts at once"
    assert len(caplog.records) == 3, "the others are as broken as they were"


def test_a_folder_that_is_not_there(place: Path) -> None:
    place.rmdir()
    found = catalogue()
    assert "cannot be read" in found.trouble
    with pytest.raises(InvalidInput, match="none"):
        found.find("")


def test_which_one_is_meant() -> None:
    one, other, default = (defined(name) for name in ("one", "other", "default"))
    alone = Catalogue({"one": one})
    assert alone.find("") is one
    both = Catalogue({"one": one, "other": other})
    with pytest.raises(InvalidInput, match=r"job is missing: .*\(one, other\)"):
        both.find("")
    assert Catalogue({"one": one, "default": default}).find("") is default
    broken = Catalogue({"one": one}, {"default": "job.sh is missing"})
    with pytest.raises(BrokenDefinition, match=r"job.sh is missing"):
        broken.find("")
    assert broken.find("one") is one
    with pytest.raises(NoSuchDefinition, match="'three'"):
        both.find("three")


# --- The samples -------------------------------------------------------------------------------------


def test_the_samples_are_the_default_and_work() -> None:
    found = catalogue()
    assert (found.broken, found.trouble) == ({}, "")
    assert set(found.definitions) == {"default", "clustalo"}
    assert found.find("").name == "default"
    assert "FASTA" in found.find("").description


def bash(name: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """As the engine runs it."""
    script = catalogue().definitions[name].script
    return subprocess.run(
        ["bash", "-c", script, name, *arguments], capture_output=True, text=True, check=False, **more
    )


@pytest.mark.parametrize(
    ("content", "counts"),
    [
        (">a one\nACGT\nAC\n\n>b\nA\n", (2, 7, 1, 6)),
        (">a\r\nAC GT\r\n", (1, 4, 4, 4)),
        (">a\n>b\nA", (2, 1, 0, 1)),
        ("", (0, 0, 0, 0)),
    ],
)
def test_counting_the_sequences_of_a_fasta_file(
    tmp_path: Path, content: str, counts: tuple[int, ...]
) -> None:
    plain = tmp_path / "a b$(x).fa"
    plain.write_bytes(content.encode())
    packed = tmp_path / "packed"
    packed.write_bytes(
        subprocess.run(["gzip", "-c"], input=content.encode(), capture_output=True, check=True).stdout
    )
    for path in (plain, packed):
        done = bash("default", str(path))
        assert (done.returncode, done.stderr) == (0, "")
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert [name for name, _ in rows] == ["sequences", "letters", "shortest", "longest"]
        assert tuple(int(number) for _, number in rows) == counts


def test_what_is_no_fasta_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("ACGT\n")
    done = bash("default", str(tmp_path / "f"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "line 1 is no FASTA" in done.stderr
    assert bash("default", str(tmp_path / "none")).returncode != 0


def test_an_aligner_that_is_not_there_is_named(tmp_path: Path) -> None:
    bin_only = tmp_path / "bin"
    bin_only.mkdir()
    (bin_only / "bash").symlink_to("/bin/bash")
    done = bash("clustalo", "f", env={"PATH": str(bin_only)})
    assert done.returncode == 127
    assert "clustalo is not installed on this node" in done.stderr
