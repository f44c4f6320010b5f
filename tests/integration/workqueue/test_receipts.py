"""Manifests of finished jobs: signed, streamed, and a folder checked against one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now

from tests.integration.conftest import Api
from tests.support.fixtures import Account
from workers.tenants import signing_keys
from workers.vocabulary.errors import Conflict
from workers.vocabulary.transfers.names import name_to_wire
from workqueue.models import Element, Job, Site
from workqueue.models.jobs import Status, Type
from workqueue.receipts.manifest import manifest
from workqueue.receipts.verify import checksum

#: A composed and a decomposed letter, a name that looks escaped, one that is no UTF-8, an empty folder.
NAMES = (
    b"plain",
    b"two words",
    "\u00e9".encode(),
    "e\u0301".encode(),
    b"a%20b",
    b"\\x41",
    b"\xff",
    b"empty/",
)


def a_job(account: Account, folder: Path, root: str = "/out") -> Job:
    """A finished COPY of NAMES into ``folder``, in the tables as the engine leaves it."""
    site = Site.objects.create(
        tenant_id=account.tenant_id, name=f"site {root}", visibility="tenant", endpoints=[]
    )
    job = Job.objects.create(
        tenant_id=account.tenant_id, type=Type.COPY, source=site, target=site, protocol="LOCAL",
        src_filepath="/in", dst_filepath=root, log_uid="0" * 32, finished_at=Now(),
    )  # fmt: skip
    Element.objects.create(
        job=job, number=0, type=Type.LIST, src_filepath="/in", max_tries=2, attempts=1, status=Status.DONE
    )
    for number, name in enumerate(NAMES, 1):
        path = folder / os.fsdecode(name)
        if name.endswith(b"/"):
            path.mkdir()
        else:
            path.write_bytes(name * 3)
        text, escaped = name_to_wire(name)
        Element.objects.create(
            job=job, number=number, type=Type.COPY, src_filepath=f"/in/{text}", dst_filepath=f"{root}/{text}",
            escaped=escaped, size=0 if name.endswith(b"/") else len(name) * 3, mtime=7, max_tries=2,
            attempts=1, status=Status.DONE,
            checksum="" if name.endswith(b"/") else "adler32:" + checksum(os.fsencode(path), "adler32"),
        )  # fmt: skip
    job.refresh_from_db()
    return job


def verify(file: Path, folder: Path, *options: str) -> str:
    """What the command says; a refusal in the same way."""
    try:
        call_command("verify_manifest", str(file), str(folder), *options)
    except CommandError as error:
        return str(error)
    return "good"


@pytest.fixture
def receipt(account: Account, api: Api, tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """(manifest, folder, options with the keys)."""
    folder = tmp_path / "out"
    folder.mkdir()
    file, keys = tmp_path / "manifest", tmp_path / "keys.json"
    file.write_bytes(b"".join(manifest(a_job(account, folder))))
    keys.write_text(json.dumps(api(account, "GET", "/api/v1/keys")[1]))
    return file, folder, ["--keys", str(keys)]


def test_its_lines(account: Account, tmp_path: Path) -> None:
    job = a_job(account, tmp_path)
    head, *lines = [json.loads(text) for text in b"".join(manifest(job)).splitlines()]
    assert list(head) == [
        *("job", "tenant", "type", "root", "finished_at", "entries"),
        *("sha256", "key", "algorithm", "signature"),
    ]
    assert (head["job"], head["tenant"], head["root"], head["entries"]) == (
        job.pk,
        "default",
        "/out",
        len(NAMES) + 1,
    )
    assert head["key"] == signing_keys.in_use(account.tenant_id).name
    assert [item["element"] for item in lines] == list(range(len(NAMES) + 1))
    assert lines[1] == {
        "path": "/out/plain", "size": 15, "checksum": "adler32:3204063d", "mtime": 7,
        "type": "COPY", "status": "DONE", "element": 1, "attempt": 1,
    }  # fmt: skip
    assert [item["path"] for item in lines if item.get("escaped")] == ["/out/\\xff"]


def test_a_job_with_work_left_has_none(account: Account, tmp_path: Path) -> None:
    job = a_job(account, tmp_path)
    job.finished_at = None
    with pytest.raises(Conflict):
        manifest(job)


def test_a_folder_that_is_as_it_says(receipt: Any) -> None:
    file, folder, keys = receipt
    assert verify(file, folder, *keys) == "good"
    assert verify(file, folder, "--unsigned") == "good"
    assert "--keys" in verify(file, folder)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "plain").write_bytes(b"plainplainplaim"), "1 differ"),
        (lambda folder: (folder / "plain").write_bytes(b"short"), "1 differ"),
        (lambda folder: (folder / "two words").unlink(), "1 differ"),
        (lambda folder: (folder / "empty").rmdir(), "1 differ"),
    ],
)
def test_a_folder_that_is_not(receipt: Any, damage: Any, said: str) -> None:
    file, folder, keys = receipt
    damage(folder)
    assert said in verify(file, folder, *keys)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size":15', b'"size":16'),
        (b'"tenant":"default"', b'"tenant":"another"'),
        (b'"element":8,"attempt":1}\n', b'"element":8,"attempt":1}\n{}\n'),
    ],
)
def test_a_manifest_that_was_changed(receipt: Any, old: bytes, new: bytes) -> None:
    file, folder, keys = receipt
    text = file.read_bytes()
    assert old in text
    file.write_bytes(text.replace(old, new))
    assert "it was changed" in verify(file, folder, *keys)


def test_keys_that_are_none_are_named(receipt: Any) -> None:
    file, folder, (_option, keys) = receipt
    Path(keys).write_text('{"error": {"code": "token_missing", "message": "no credentials"}}')
    said = verify(file, folder, "--keys", keys)
    assert said.startswith(f"{keys}: ")
    assert "no credentials" in said


def test_a_single_file_lies_in_the_folder_of_its_destination(account: Account, tmp_path: Path) -> None:
    job = a_job(account, tmp_path, root="/out/plain")
    Element.objects.filter(job=job, number__gt=1).delete()
    Element.objects.filter(job=job, number=1).update(dst_filepath="/out/plain")
    file = tmp_path / "manifest"
    file.write_bytes(b"".join(manifest(job)))
    assert verify(file, tmp_path, "--unsigned") == "good"
