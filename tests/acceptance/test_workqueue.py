"""File operations between sites as their users see them: over HTTP, by a node as it runs, on real servers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from tests.integration.workqueue.test_pull import listing
from tests.support.cluster import Cluster
from tests.support.fixtures import Account, make_account
from tests.support.sshd import Sshd
from tests.support.waiting import wait_until
from tests.support.workqueue import ROOT, WorkqueueClient, grow, shape
from workers.models import Run, Secret
from workqueue.models import Batch, Element, ElementAttempt, Job

pytestmark = pytest.mark.django_db(transaction=True)

#: Bytes of each file that is shared with other workers.
_SHARED = 64 << 20


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    server = Sshd()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def user(cluster: Cluster, operator: Account, tmp_path: Path) -> Iterator[WorkqueueClient]:
    """A client of a service with one node that offers ``tmp_path``."""
    settings = {"GANTRY_LOCAL_SITES": str(tmp_path), "GANTRY_TRANSFER_RETRY_BASE_S": "0.1"}
    cluster.env |= settings
    cluster.node()
    with WorkqueueClient(cluster.api(), operator) as client:
        yield client


def counters_add_up() -> None:
    for job in Job.objects.all():
        told = [job.num_new, job.num_done, job.num_failed, job.num_submitted, job.num_running]
        recount = [Element.objects.filter(job=job, status=each).count() for each in range(5)]
        assert told == recount, job


def no_parts(folder: Path) -> None:
    assert [name for name in shape(folder) if name.endswith(b".part")] == []


def test_trees_travel_whole(user: WorkqueueClient, sshd: Sshd, tmp_path: Path) -> None:
    """LOCAL -> SSH -> LOCAL with names that hurt, then each other operation. Each step: what it catches."""
    source, back = tmp_path / "source", tmp_path / "back"
    grow(source, files=200)
    back.mkdir()
    here, there = user.local("here", tmp_path), user.sftp("there", sshd)

    out = user.done("copy", here, "/source", there, "/tree")
    user.done("copy", there, "/tree/", here, "back/tree")
    assert shape(back / "tree") == shape(source)
    no_parts(tmp_path)
    no_parts(sshd.files)
    _the_listing(user, there, source)
    _its_receipt(user, out, sshd.files / "tree", tmp_path)
    _a_second_copy_replaces_nothing(user, here, there, sshd)
    _rename_and_mkdir(user, there, sshd)
    _remove(user, there, sshd)
    _what_is_not_there(user, here, there)
    counters_add_up()
    assert not Batch.objects.filter(closed_at=None).exists()
    wait_until(lambda: not Run.objects.filter(finished_at=None).exists(), why="the runs end")


def _the_listing(user: WorkqueueClient, site: int, source: Path) -> None:
    """Catches a listing that forgets, renames or mangles what it saw."""
    job = user.done("list", site, "/tree", extra_opts={"depth": 1})
    (output,) = user.call("GET", f"/jobs/{job}/output")
    names = sorted(os.fsencode(path.name) for path in source.iterdir())
    wire = {name.decode() if b"\xff" not in name else "\\xff is no UTF-8" for name in names}
    assert set(output["listing"]["/tree"]) == wire
    entries = {item["name"]: item for item in output["entries"]["/tree"]}
    assert entries["plain"]["st_size"] == (source / "plain").stat().st_size
    assert entries["\\xff is no UTF-8"]["escaped"] is True


def _its_receipt(user: WorkqueueClient, job: int, folder: Path, tmp_path: Path) -> None:
    """Catches a receipt that does not fit what is there, or whose signature nobody can check."""
    answer = user.http.get(f"{ROOT}/jobs/{job}/manifest")
    assert answer.status_code == 200, answer.text
    manifest, keys = tmp_path / "manifest", tmp_path / "keys"
    manifest.write_bytes(answer.content)
    keys.write_bytes(user.http.get("/api/v1/keys").content)
    call_command("verify_manifest", str(manifest), str(folder), "--keys", str(keys))
    lines = [json.loads(line) for line in answer.content.splitlines()[1:]]
    assert all(line["status"] == "DONE" for line in lines)
    assert {line["type"] for line in lines} == {"LIST", "COPY"}


def _a_second_copy_replaces_nothing(user: WorkqueueClient, here: int, there: int, sshd: Sshd) -> None:
    """Catches an overwrite that nobody asked for, a second try of it, and a part that stays."""
    target = sshd.files / "tree" / "plain"
    target.write_bytes(b"precious")
    job = user.post("copy", here, "/source/plain", there, "/tree/plain")
    assert user.ended(job) == "FAILED"
    element = user.elements(job)[1]
    assert (element["attempts"], element["status"]) == (1, "FAILED")
    assert target.read_bytes() == b"precious"
    no_parts(sshd.files)
    user.done("copy", here, "/source/plain", there, "/tree/plain", extra_opts={"overwrite": True})
    assert target.read_bytes() == b"plain"


def _rename_and_mkdir(user: WorkqueueClient, site: int, sshd: Sshd) -> None:
    """Catches a rename that copies, one that replaces, and a folder that is made twice."""
    user.done("rename", site, "/tree/plain", to="/tree/renamed")
    assert (sshd.files / "tree" / "renamed").read_bytes() == b"plain"
    user.done("mkdir", site, "/made/in/depth", extra_opts={"parent": True})
    assert (sshd.files / "made" / "in" / "depth").is_dir()
    job = user.post("mkdir", site, "/made")
    assert user.ended(job) == "FAILED"
    assert [item["attempts"] for item in user.elements(job)] == [1], "nothing changes by trying it again"


def _remove(user: WorkqueueClient, site: int, sshd: Sshd) -> None:
    """Catches what stays, and what goes although it lies beside it."""
    (sshd.files / "beside").write_bytes(b"stays")
    user.done("remove", site, "/tree")
    assert sorted(path.name for path in sshd.files.iterdir()) == ["beside", "made"]


def _what_is_not_there(user: WorkqueueClient, here: int, there: int) -> None:
    """Catches a missing source that is tried again, or called done."""
    job = user.post("copy", here, "/no such file", there, "/x")
    assert user.ended(job) == "FAILED"
    (element,) = user.elements(job)
    assert (element["attempts"], element["status"]) == (1, "FAILED")
    assert "no such file" in user.logs(job)


def test_strangers_servers_and_wrong_keys(user: WorkqueueClient, sshd: Sshd, tmp_path: Path) -> None:
    here, there = user.local("here", tmp_path), user.sftp("there", sshd)
    (tmp_path / "file").write_bytes(b"content")
    sshd.stop()
    sshd.start("ecdsa")
    job = user.post("copy", here, "/file", there, "/file")
    assert user.ended(job) == "FAILED"
    log = user.logs(job)
    assert "host key" in log, log
    assert "SHA256:" in log, log
    assert list(sshd.files.iterdir()) == []
    sshd.stop()
    sshd.start()
    assert user.call("POST", f"/jobs/{job}/retry")["retried"] == 1
    assert user.ended(job) == "DONE", user.logs(job)
    assert (sshd.files / "file").read_bytes() == b"content"
    key = Secret.objects.count()
    assert key == 1, "one key, as it was given"


def test_cancel_in_the_middle(user: WorkqueueClient, tmp_path: Path) -> None:
    """Catches work that goes on after a cancel, a part that stays, a job that is never told to have ended."""
    here = user.local("here", tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(6):
        with (tmp_path / "in" / f"{number}").open("wb") as file:
            file.truncate(400 << 20)
    user.call("PUT", f"/sites/{here}/limits", {"max_bytes_per_s": 20 << 20})
    job = user.post("copy", here, "/in", here, "/out")
    wait_until(lambda: user.status(job) == "RUNNING", why="it runs")
    answer = user.call("POST", f"/jobs/{job}/cancel")
    assert answer["cancelled"] is True
    assert user.ended(job) == "FAILED"
    assert "ancelled" in user.logs(job)
    wait_until(lambda: not Run.objects.filter(finished_at=None).exists(), why="its runs end")
    out = tmp_path / "out"
    wait_until(lambda: not out.exists() or not any(out.iterdir()), why="its parts are swept away")
    counters_add_up()


def test_pull_workers_and_ours_share_a_job(
    user: WorkqueueClient, cluster: Cluster, sshd: Sshd, tmp_path: Path
) -> None:
    """Two workers that speak only HTTP, one that dies with what it had, and a node of ours: each element done
    once, and whoever comes too late is told so."""
    for number in range(500):
        with (sshd.files / f"f{number}").open("wb") as file:
            file.truncate(_SHARED)  # so that 8 GiB, the most of one batch of ours, are but a part of them
    site = user.sftp("there", sshd, path="/")
    user.call("PUT", f"/sites/{site}/limits", {"max_active_out": 8})  # one batch of ours at a time
    job = user.post("remove", site, str(sshd.files) + "/", protocol="SSH")
    tokens = [make_account("default", scopes=("worker",)).token for _ in range(3)]
    done: list[int] = []

    def take(token: str) -> list[Any]:
        body = {"types": [2]}
        answer = user.http.post(f"{ROOT}/worker/jobs", json=body, headers={"X-Token": token})
        assert answer.status_code in (200, 404), answer.text
        return list(answer.json()) if answer.status_code == 200 else []

    def dying() -> list[dict[str, Any]]:
        """Does what is a listing, and dies with the rest."""
        kept = []
        for given in take(tokens[2]):
            for element in given["elements"]:
                if element["type"] == 0:
                    _do(user.http, given, element, done)
                else:
                    kept.append(element)
        return kept

    def pull(token: str) -> None:
        """The original's loop: one job after the other."""
        while user.status(job) not in ("DONE", "FAILED"):
            for given in take(token):
                for element in given["elements"]:
                    _do(user.http, given, element, done)

    lost = wait_until(dying, why="one has elements")
    held = Element.objects.get(job=job, number=lost[0]["id"]).batch_id
    assert held is not None
    Batch.objects.filter(pk=held).update(lease_until=timezone.now())
    threads = [threading.Thread(target=pull, args=(token,)) for token in tokens[:2]]
    for thread in threads:
        thread.start()
    assert user.ended(job) == "DONE", user.logs(job)
    for thread in threads:
        thread.join()
    assert not sshd.files.exists() or list(sshd.files.iterdir()) == []
    ended = ElementAttempt.objects.filter(job_id=job, status=1)
    assert sorted(ended.values_list("number", flat=True)) == list(range(502)), "each is done once"
    assert len(done) == len(set(done)) == ended.filter(run_id=None).count()
    assert 0 < len(done) < 502, "theirs, and ours"
    assert {_report(user.http, element)[0].status_code for element in lost} == {409}
    counters_add_up()


def _do(http: Any, given: dict[str, Any], element: dict[str, Any], done: list[int]) -> None:
    """As the original's scripts do: it happens, how far it is is told, and then its end."""
    path: str = element["src_filepath"]
    more: dict[str, Any] = {}
    if element["type"] == 0:
        names = [item.name for item in Path(path).iterdir()]
        more["listing"] = {path.rstrip("/"): listing(*names, size=_SHARED)}
    elif path.endswith("/"):
        Path(path).rmdir()
    else:
        Path(path).unlink()
    assert given["id"] == element["job_id"]
    monitoring = {"transferred": -1, "elapsed": 0, "instant": -0.0, "average": 0}
    where = f"{ROOT}/worker/jobs/{element['job_id']}/elements/{element['id']}/monitoring"
    answer = http.put(where, json=monitoring, headers={"X-Token": element["token"]})
    assert answer.status_code == 200, answer.text
    for answer in _report(http, element, times=2, **more):
        assert (answer.status_code, answer.content) == (200, b""), answer.text
    done.append(element["id"])


def _report(http: Any, element: dict[str, Any], times: int = 1, **more: Any) -> list[Any]:
    """The same report, so many times."""
    body = {"returncode": 0, "host": [["a", "b"]], "log": "", "timestamp": "now", **more}
    where = f"{ROOT}/worker/jobs/{element['job_id']}/elements/{element['id']}"
    return [http.put(where, json=body, headers={"X-Token": element["token"]}) for _ in range(times)]
