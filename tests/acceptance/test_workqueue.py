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

from tests.integration.workqueue.test_pull import Puller, listing
from tests.support.cluster import Cluster
from tests.support.fixtures import Account, make_account
from tests.support.sshd import Sshd
from tests.support.waiting import wait_until
from tests.support.workqueue import ROOT, WorkqueueClient, grow, shape
from workers.models import Run, Secret
from workqueue.models import Batch, Element, ElementAttempt, Job

pytestmark = pytest.mark.django_db(transaction=True)


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
    """Two workers that speak only HTTP and a node of ours: each element done once."""
    for number in range(500):
        (sshd.files / f"f{number}").write_bytes(b"x")
    site = user.sftp("there", sshd, path="/")
    folder = str(sshd.files)
    job = user.post("remove", site, folder + "/", protocol="SSH")
    pullers = [Puller(make_account("default", scopes=("worker",))) for _ in range(2)]
    done: list[int] = []

    def pull(puller: Puller) -> None:
        """The original's loop: one job after the other."""
        http = user.http
        while user.status(job) not in ("DONE", "FAILED"):
            answer = http.post(
                f"{ROOT}/worker/jobs", json={"types": [2]}, headers={"X-Token": puller.who.token}
            )
            if answer.status_code == 404:
                continue
            assert answer.status_code == 200, answer.text
            for given in answer.json():
                for element in given["elements"]:
                    _do(http, given, element, done)

    threads = [threading.Thread(target=pull, args=(puller,)) for puller in pullers]
    for thread in threads:
        thread.start()
    assert user.ended(job) == "DONE", user.logs(job)
    for thread in threads:
        thread.join()
    assert not sshd.files.exists() or list(sshd.files.iterdir()) == []
    assert len(done) == len(set(done))
    assert ElementAttempt.objects.filter(job_id=job).count() == Element.objects.filter(job_id=job).count()
    counters_add_up()


def _do(http: Any, given: dict[str, Any], element: dict[str, Any], done: list[int]) -> None:
    path: str = element["src_filepath"]
    body: dict[str, Any] = {"returncode": 0, "host": [["a", "b"]], "log": "", "timestamp": "now"}
    if element["type"] == 0:
        names = [item.name for item in Path(path).iterdir()]
        body["listing"] = {path.rstrip("/"): listing(*names, size=1)}
    elif path.endswith("/"):
        Path(path).rmdir()
    else:
        Path(path).unlink()
    where = f"{ROOT}/worker/jobs/{given['id']}/elements/{element['id']}"
    headers = {"X-Token": element["token"]}
    monitoring = {"transferred": -1, "elapsed": 0, "instant": -0.0, "average": 0}
    assert http.put(f"{where}/monitoring", json=monitoring, headers=headers).status_code == 200
    answer = http.put(where, json=body, headers=headers)
    assert (answer.status_code, answer.content) == (200, b""), answer.text
    assert http.put(where, json=body, headers=headers).status_code == 200
    done.append(element["id"])
