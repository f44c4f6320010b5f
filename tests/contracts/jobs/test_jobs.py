"""Saving, listing, replacing and deleting jobs: documented JSON and every refusal, field by field."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.models import Executor, Job
from tests.contracts.jobs.conftest import BODY, NOBODY, Api, Stage, body, error, ok
from workers import secrets
from workers.models import Secret


def shown(**fields: Any) -> dict[str, Any]:
    """The answer for the seed's job, without its id."""
    return {**BODY, "SecretArgs": ["*", "**"], "Executors": [], **fields}


def test_the_seeds_job_comes_back_as_documented(api: Api) -> None:
    job = ok(api.post("/api/jobs", BODY))
    assert str(UUID(job["JobId"])) == job.pop("JobId")
    assert job == shown()
    assert list(job) == [
        *("AppName", "ServiceName", "Name", "Cmd", "Privileged", "User", "Env", "SecretArgs", "Executors")
    ]


def test_only_three_fields_are_needed_and_null_is_absent(api: Api) -> None:
    small = {"AppName": "a", "Name": "n", "Cmd": "true"}
    wanted = {
        **small,
        "ServiceName": "",
        "Privileged": False,
        "User": "",
        "Env": [],
        "SecretArgs": [],
        "Executors": [],
    }
    job = ok(api.post("/api/jobs", small))
    assert {**wanted, "JobId": job["JobId"]} == job
    nulls = dict.fromkeys(("ServiceName", "Privileged", "User", "Env", "SecretArgs"))
    job = ok(api.post("/api/jobs", {**small, "Name": "m", **nulls}))
    assert {**wanted, "Name": "m", "JobId": job["JobId"]} == job


def test_unknown_keys_are_ignored(api: Api) -> None:
    job = ok(api.post("/api/jobs", {**BODY, "Executors": ["1"], "secretArgs": "x", "JobId": NOBODY, "f": {}}))
    assert job["Executors"] == []
    assert job["JobId"] != NOBODY


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"AppName": ""}, "AppName"),
        ({"AppName": None}, "AppName"),
        ({"AppName": "a" * 256}, "AppName"),
        ({"Name": "  "}, "Name"),
        ({"Name": 7}, "Name"),
        ({"Name": "n" * 129}, "Name"),
        ({"Cmd": None}, "Cmd"),
        ({"Cmd": "c" * 4097}, "Cmd"),
        ({"Cmd": "echo 'a"}, "Cmd"),
        ({"Cmd": 'echo "a'}, "Cmd"),
        ({"Cmd": "echo a\\"}, "Cmd"),
        ({"Cmd": "''"}, "Cmd"),
        ({"ServiceName": ["a"]}, "ServiceName"),
        ({"Privileged": "true"}, "Privileged"),
        ({"User": "a b"}, "User"),
        ({"User": "a:"}, "User"),
        ({"User": ":a"}, "User"),
        ({"User": "a:b:c"}, "User"),
        ({"User": "-1"}, "User"),
        ({"Env": "a=b"}, "Env"),
        ({"Env": ["a"]}, "Env"),
        ({"Env": ["=b"]}, "Env"),
        ({"Env": ["a b=c"]}, "Env"),
        ({"Env": [1]}, "Env"),
        ({"Env": ["a=" + "é" * 65_536]}, "Env"),
        ({"SecretArgs": "x"}, "SecretArgs"),
        ({"SecretArgs": [1]}, "SecretArgs"),
        ({"SecretArgs": [""]}, "SecretArgs"),
        ({"SecretArgs": ["***"]}, "SecretArgs"),
        ({"SecretArgs": ["x"] * 101}, "SecretArgs"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_saved(api: Api, fields: dict[str, Any], wrong: str) -> None:
    found, message = error(api.post("/api/jobs", {**BODY, **fields}), 400)
    assert (found, wrong in message) == (f"invalid_{wrong}", True)
    assert not Job.objects.exists()
    assert not Secret.objects.exists()
    job = api.job()
    assert error(api.put(f"/api/jobs/{job['JobId']}", {**BODY, **fields}), 400)[0] == f"invalid_{wrong}"


@pytest.mark.parametrize("user", ["", "root", "root:root", "0", "1000:1000", "www-data", "_x:0"])
def test_users(api: Api, user: str) -> None:
    assert api.job(User=user)["User"] == user


def test_the_longest_values(api: Api) -> None:
    job = api.job(Name="n" * 128, Cmd="c" * 4096, Env=["a=", "a==b", "a=b\nc"])
    assert (len(job["Name"]), len(job["Cmd"]), job["Env"]) == (128, 4096, ["a=", "a==b", "a=b\nc"])


def test_names_are_unique_within_an_application_of_a_tenant(api: Api, stranger: Api) -> None:
    api.job()
    assert error(api.post("/api/jobs", BODY), 400) == ("jobs_name_duplicated_error", "上线")
    other = api.job(AppName="2049")
    stranger.job()
    renamed = api.put(f"/api/jobs/{other['JobId']}", BODY)
    assert error(renamed, 400) == ("jobs_name_duplicated_error", "上线")
    assert Job.objects.count() == 3
    assert Secret.objects.count() == 6


def test_lists_are_the_tenants_own_by_application(api: Api, stranger: Api) -> None:
    first, second = api.job(), api.job(AppName="2049")
    stranger.job()
    for path in ("/api/jobs", "/api/jobs/", "/api/jobs?AppName="):
        assert ok(api.get(path)) == [first, second]
    assert ok(api.get("/api/jobs?AppName=2049")) == [second]
    assert ok(api.get("/api/jobs/?AppName=none")) == []


def test_a_list_in_pages(api: Api) -> None:
    made = [api.job(Name=str(number))["JobId"] for number in range(5)]
    path, found = "/api/jobs?AppName=2048&limit=2", []
    for _ in range(3):
        answer = api.get(path)
        found += [job["JobId"] for job in ok(answer)]
        link = re.fullmatch(r'<http://testserver(.*)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else ""
    assert (found, path) == (made, "")
    for limit in ("0", "1001", "x"):
        assert error(api.get(f"/api/jobs?limit={limit}"), 400)[0] == "invalid_limit"
    assert error(api.get("/api/jobs?cursor=x"), 400)[0] == "invalid_cursor"


def test_a_list_without_limit_has_a_cap_that_leads_on(api: Api, settings: Any) -> None:
    settings.GANTRY_LIST_CAP = 3
    made = [api.job(Name=str(number))["JobId"] for number in range(3)]
    answer = api.get("/api/jobs")
    assert [job["JobId"] for job in ok(answer)] == made
    assert "Link" not in answer.headers
    last = api.job(Name="last")
    answer = api.get("/api/jobs")
    assert [job["JobId"] for job in ok(answer)] == made
    assert answer.headers["Warning"].startswith('299 - "only the first 3 entries')
    link = re.fullmatch(r'<http://testserver(.*)>; rel="next"', answer.headers["Link"])
    assert link is not None
    assert ok(api.get(link[1])) == [last]


def test_a_list_costs_as_many_queries_whatever_is_in_it(api: Api, stage: Stage) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as seen:
            ok(api.get("/api/jobs"))
        return len(seen)

    job = api.job()
    few = count()
    for number in range(20):
        api.start(api.job(Name=str(number)), ("c", "n1"))
        api.start(job, ("c", "n1"), ("d", "n2"))
    assert count() == few <= 3


def test_replacing_everything_without_touching_the_secrets(api: Api) -> None:
    job = api.job()
    stored = list(Secret.objects.values_list("pk", flat=True))
    changed = {
        **BODY,
        "Name": "下线",
        "Cmd": "sh -c 'echo $0'",
        "Env": [],
        "User": "",
        "SecretArgs": ["*", "**"],
    }
    for secret_args in ({"SecretArgs": ["*", "**"]}, {"SecretArgs": None}, {}):
        wanted = {key: value for key, value in changed.items() if key != "SecretArgs"} | secret_args
        answer = ok(api.put(f"/api/jobs/{job['JobId']}/", wanted))
        assert answer == {**changed, "JobId": job["JobId"], "Executors": []}
    assert list(Secret.objects.values_list("pk", flat=True)) == stored
    assert [secrets.reveal(secret_id) for secret_id in stored] == ["x", "yy"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (["*", "new"], ["x", "new"]),
        (["n", "**"], ["n", "yy"]),
        (["*"], ["x"]),
        (["*", "**", "new"], ["x", "yy", "new"]),
        ([], []),
    ],
)
def test_secrets_kept_replaced_and_cleared(api: Api, sent: list[str], kept: list[str]) -> None:
    job = api.job()
    answer = ok(api.put(f"/api/jobs/{job['JobId']}", {**BODY, "SecretArgs": sent}))
    assert answer["SecretArgs"] == ["*" * len(text) for text in kept]
    row = Job.objects.get()
    assert [secrets.reveal(secret_id) for secret_id in row.secret_ids] == kept
    assert Secret.objects.count() == len(kept), "what is not needed any more is wiped"


@pytest.mark.parametrize("sent", [["**", "*"], ["*", "*"], ["*", "**", "*"], ["***"], ["**", "new"]])
def test_asterisks_that_stand_for_nothing_are_refused(api: Api, sent: list[str]) -> None:
    job = api.job()
    before = Job.objects.values().get()
    assert error(api.put(f"/api/jobs/{job['JobId']}", {**BODY, "SecretArgs": sent}), 400)[0] == (
        "invalid_SecretArgs"
    )
    assert Job.objects.values().get() == before


def test_secrets_count_characters_and_leave_as_asterisks_only(api: Api) -> None:
    job = api.job(SecretArgs=["пароль", "canary 7f3a"])
    assert job["SecretArgs"] == ["*" * 6, "*" * 11]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(j::text, '') || (SELECT string_agg(s::text, '') FROM workers_secret s)"
            " FROM jobs_job j"
        )
        assert "canary" not in cursor.fetchone()[0]


def test_deleting_frees_the_name_and_answers_an_empty_text(api: Api) -> None:
    job = api.job()
    answer = api.send("DELETE", f"/api/jobs/{job['JobId']}")
    assert (answer.status_code, answer.content) == (202, b'""')
    assert ok(api.get("/api/jobs")) == []
    assert not Secret.objects.exists()
    again = f"/api/jobs/{job['JobId']}"
    assert error(api.send("DELETE", again), 404) == ("job_id_not_found", job["JobId"])
    assert error(api.put(again, BODY), 404) == ("job_id_not_found", job["JobId"])
    assert error(api.post(f"{again}/start", {"Target": []}), 404)[0] == "job_id_not_found"
    assert api.job()["JobId"] != job["JobId"]


@pytest.mark.parametrize("job_id", [NOBODY, "x", "history2", NOBODY[:-1], NOBODY.replace("-", ""), "1"])
def test_ids_of_nothing(api: Api, job_id: str) -> None:
    wanted = ("job_id_not_found", job_id)
    assert error(api.put(f"/api/jobs/{job_id}", BODY), 404) == wanted
    assert error(api.put(f"/api/jobs/{job_id}", {}), 404) == wanted
    assert error(api.send("DELETE", f"/api/jobs/{job_id}/"), 404) == wanted
    assert error(api.post(f"/api/jobs/{job_id}/start", {}), 404) == wanted
    for what in ("inspect", "explain", "log"):
        assert error(api.get(f"/api/jobs/{job_id}/{what}/1?ContainerId=c"), 404) == wanted
        assert error(api.get(f"/api/jobs/{job_id}/{what}/x?ContainerId=c"), 404) == wanted
    for what in ("cancel", "retry"):
        assert error(api.post(f"/api/jobs/{job_id}/{what}/1"), 404) == wanted


def test_another_tenants_job_is_none(api: Api, stranger: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("c", "n1"))
    path = f"/api/jobs/{job['JobId']}"
    before = Job.objects.values().get()
    for answer in (
        stranger.put(path, BODY),
        stranger.send("DELETE", path),
        stranger.post(f"{path}/start", {"Target": [{"ContainerId": "c", "NodeId": "n1"}]}),
        stranger.get(f"{path}/inspect/{executor}"),
        stranger.get(f"{path}/log/{executor}?ContainerId=c"),
        stranger.get(f"{path}/explain/{executor}"),
        stranger.post(f"{path}/cancel/{executor}"),
        stranger.post(f"{path}/retry/{executor}"),
    ):
        assert error(answer, 404) == ("job_id_not_found", job["JobId"])
    assert ok(stranger.get("/api/jobs/history")) == []
    assert ok(stranger.get(f"/api/jobs/history?JobId={job['JobId']}")) == []
    assert Job.objects.values().get() == before
    assert Executor.objects.count() == 1


def test_a_job_is_made_once_for_a_key(api: Api) -> None:
    first, again = (api.post("/api/jobs", BODY, Idempotency_Key="k") for _ in range(2))
    assert ok(first) == ok(again)
    assert body(api.post("/api/jobs", {**BODY, "Name": "b"}, Idempotency_Key="k"))["id"] == "conflict"
    assert Job.objects.count() == 1


def test_an_upper_case_id_is_the_same(api: Api) -> None:
    job = api.job()
    assert ok(api.put(f"/api/jobs/{job['JobId'].upper()}", BODY))["JobId"] == job["JobId"]
