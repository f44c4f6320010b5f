"""Every error of runtask has the family's envelope; identity, policies, methods, bodies, scopes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.db import OperationalError, connection

from jobs.models import RuntaskJob
from tests.contracts.runtask.conftest import BODY, FORM, WHO, Api, error, member, ok
from workers.tenants import identity, tenancy

ROUTES = [
    ("POST", "/runtask/"),
    ("GET", "/job/?job_id=1"),
    ("GET", "/listjobs/"),
    ("POST", "/canceljob/?job_id=1"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_credentials_and_scopes(api: Api, method: str, path: str) -> None:
    reader = member("10002", "reader", "read")
    if method != "GET":
        assert error(reader.send(method, path), 403)[0] == "Forbidden"
    else:
        assert reader.send(method, path).status_code in (200, 404)
    for token in ("", "gnt_of_nobody"):
        api.token = token
        answer = api.send(method, path)
        assert error(answer, 401)[0] == "Unauthorized"
        assert answer.headers["WWW-Authenticate"]


def test_clients_of_a_trusted_network_send_no_credentials(api: Api, settings: Any) -> None:
    settings.GANTRY_TRUSTED_NETWORKS = ["127.0.0.1/32=10002"]
    nobody = Api(api.tenant, "")
    job_id = nobody.run()
    assert api.job(job_id)["job_id"] == job_id
    assert nobody.job(job_id)["job_id"] == job_id


def test_user_and_token_in_the_url(api: Api) -> None:
    basic = base64.b64encode(f"ann:{api.token}".encode()).decode()
    client = Api(api.tenant, "", {"Authorization": f"Basic {basic}"})
    assert client.run()
    answer = client.form("/runtask/", BODY, Sec_Fetch_Site="cross-site")
    assert error(answer, 403)[0] == "Forbidden"
    assert RuntaskJob.objects.count() == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/runtask/"),
        ("PUT", "/runtask"),
        ("POST", "/job/"),
        ("DELETE", "/listjobs/"),
        ("GET", "/canceljob/"),
    ],
)
def test_a_method_that_is_not_there(api: Api, method: str, path: str) -> None:
    answer = api.send(method, path)
    assert error(answer, 405)[0] == "BadRequest"
    assert answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/job/1", "/job/1/", "/runtask/x", "/listjobs//", "/canceljob/1"])
def test_a_path_that_is_not_there(api: Api, path: str) -> None:
    assert error(api.get(path), 404)[0] == "NotFound"


def test_a_path_outside_of_the_family_has_another_envelope(api: Api) -> None:
    for path in ("/jobs", "/runtasks/", "/joblist"):
        assert set(api.get(path).json()) == {"error"}


def test_bodies_that_cannot_be_read(api: Api) -> None:
    big = b"cm=" + b"x" * (1024 * 1024)
    assert error(api.send("POST", "/runtask/", big, FORM), 413)[0] == "TooLarge"
    assert error(api.send("POST", "/runtask/", b"<a/>", "application/xml"), 415)[0] == "BadRequest"
    many = "&".join(f"a{number}=1" for number in range(1001))
    file = '--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx\r\n--x--\r\n'
    for sent, declared in (
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b'{"key": "\\u0000"}', "application/json"),
        ("&".join([*(f"{name}=x" for name in ("user", "key", "tenant")), "authurl=http://a/&job=%FF"]), FORM),
        (many, FORM),
        (file, "multipart/form-data; boundary=x"),
        ("--x", "multipart/form-data; boundary=x"),
        ("--x", "multipart/form-data"),
        (b"", ""),
    ):
        kind, what = error(api.send("POST", "/runtask/", sent, declared), 400)
        assert kind == "BadRequest", what
        assert "job definition" not in what, "it was read"
    assert error(api.form("/runtask/", BODY, Idempotency_Key="k" * 256), 400)[0] == "BadRequest"
    assert not RuntaskJob.objects.exists()


def test_what_is_wrong_names_the_parameter(api: Api) -> None:
    for sent, name in (
        ({**BODY, "user": ""}, "user"),
        ({**BODY, "authurl": "x"}, "authurl"),
        ({**BODY, "job": "nothing"}, "nothing"),
        ({**WHO, "container_name": "c"}, "file_name"),
        ({**BODY, "param_x": "1"}, "param_x"),
        ({**WHO, "cm": "{input_file[0]}"}, "input_file"),
        ({**WHO, "cm": "{output_file}"}, "output_file"),
        ({**WHO, "cm": "true", "input_file": "a"}, "input_file"),
        ({**BODY, "file_name": ["a", "b"]}, "file_name"),
    ):
        kind, what = error(api.form("/runtask/", sent), 400)
        assert kind == "BadRequest"
        assert name in what
    assert error(api.get("/job/"), 400)[0] == "BadRequest"
    assert error(api.form("/canceljob/", {}), 400)[0] == "BadRequest"
    for job_id in ("x", "0", "01", "9" * 30, "-1", "1.0"):
        assert error(api.get(f"/job/?job_id={job_id}"), 404) == ("NotFound", "there is no such job")
    assert not RuntaskJob.objects.exists()


def test_command_lines_are_off_unless_an_operator_opens_them(api: Api, stranger: Api) -> None:
    sent = {**WHO, "cm": "true"}
    kind, what = error(stranger.form("/runtask/", sent), 403)
    assert (kind, "runtask_cm" in what) == ("Forbidden", True)
    assert stranger.run(), "a job definition is what the operator offers"
    ok(api.form("/runtask/", sent))
    tenancy.update_tenant("10003", opened={"commands": False})
    identity.forget()
    assert error(stranger.form("/runtask/", BODY), 403)[0] == "Forbidden"


def test_a_fresh_installation_has_them_on_for_its_first_tenant(db: None) -> None:
    tenancy.bootstrap(given_password="a long enough password")
    from workers.models import Tenant
    from workers.tenants import policy

    assert "runtask_cm" in policy.allowed(Tenant.objects.get(name="default").policy)
    assert "runtask_cm" not in policy.allowed(tenancy.create_tenant("second").policy)


def test_a_broken_definition(api: Api, tmp_path: Any, settings: Any) -> None:
    settings.GANTRY_RUNTASK_DEFINITIONS = tmp_path
    (tmp_path / "count").mkdir()
    kind, what = error(api.form("/runtask/", {**BODY, "job": "count"}), 409)
    assert (kind, "job.sh is missing" in what) == ("Conflict", True)


def test_a_limit_of_the_tenant(api: Api) -> None:
    tenancy.update_tenant("10002", given_limits={"waiting_runs": 1})
    from workers.tenants import limits

    limits.forget()
    api.run()
    answer = api.form("/runtask/", BODY)
    assert error(answer, 429)[0] == "TooManyRequests"
    assert answer.headers["Retry-After"]
    assert RuntaskJob.objects.count() == 1


def test_an_unknown_tenant_is_forbidden(api: Api) -> None:
    assert error(api.get("/listjobs/", X_Tenant_Id="nobody"), 403)[0] == "Forbidden"


def test_a_database_that_does_not_answer(api: Api) -> None:
    api.get("/listjobs/")

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("connection to server at 10.1.2.3 failed")

    with connection.execute_wrapper(refuse):
        answer = api.get("/job/?job_id=1")
    kind, what = error(answer, 503)
    assert (kind, "10.1.2.3" in what) == ("InternalError", False)
    assert answer.headers["Retry-After"]


def test_what_nobody_foresaw(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.runtask import reading

    def fail(*_: Any) -> Any:
        raise RuntimeError("canary-detail")

    monkeypatch.setattr(reading, "ended", fail)
    kind, what = error(api.get("/job/?job_id=1"), 500)
    assert (kind, "canary-detail" in what) == ("InternalError", False)
