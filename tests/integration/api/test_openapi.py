"""The OpenAPI document: complete, no warning, one spelling per route; a client made from it compiles."""

from __future__ import annotations

import compileall
import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from config.http import errors, openapi
from tests.integration.api.walk import routes
from tests.integration.conftest import Api
from tests.support.fixtures import Account
from tests.support.waiting import limit

#: Described by nothing: they are the description.
OWN_PAGES = {"/api/schema/", "/api/docs/"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi.document(""))
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, verb, item) for path, verbs in document["paths"].items() for verb, item in verbs.items()]


def test_generation_is_clean() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


def test_every_route_is_described_once_in_its_own_spelling(document: dict[str, Any]) -> None:
    assert sorted(document["paths"]) == sorted({route.path for route in routes()} - OWN_PAGES)
    # Seeds 000 and 003 write their paths with a trailing slash.
    slashed = {"/v1/{type}/", "/v1/{type}/{request_id}/", "/runtask/", "/job/", "/listjobs/", "/canceljob/"}
    assert {path for path in document["paths"] if path != "/" and path.endswith("/")} == slashed
    names = [item["operationId"] for _, _, item in operations(document)]
    assert len(names) == len(set(names))


def test_every_operation_has_shapes_errors_and_an_example(document: dict[str, Any]) -> None:
    for path, verb, item in operations(document):
        about = f"{verb} {path}"
        assert item["summary"], about
        success = [status for status in item["responses"] if status.startswith("2")]
        assert success, about
        for status, answer in item["responses"].items():
            if {"elementToken": []} in item.get("security", ()) and status == "200":
                assert "content" not in answer, "clients of these calls take any body for JSON"
                continue
            for kind, content in answer["content"].items():
                assert content["schema"], f"{about} {status}"
                if kind == "application/json" and status in success:
                    assert "examples" in content or "example" in content, f"{about} {status} has no example"
        if item.get("security"):
            assert {"401", "403", "405", "429", "500", "503"} <= set(item["responses"]), about
        if "requestBody" in item:
            assert {"400", "413", "415"} <= set(item["responses"]), about
            assert "examples" in item["requestBody"]["content"]["application/json"], about


def test_error_shapes_are_those_of_the_family(document: dict[str, Any]) -> None:
    for path, verb, item in operations(document):
        if path == "/readyz":
            continue
        names = {
            "tasks": "TaskError",
            "jobs": "JobError",
            "runtask": "RuntaskError",
            "queues": "QueueError",
            "workqueue": "WorkqueueError",
        }
        wanted = names.get(errors.family_of(path), "Error")
        for status, answer in item["responses"].items():
            if status >= "400" and status != "416":  # that is text: the test at the end
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": f"#/components/schemas/{wanted}"}, f"{verb} {path} {status}"


def test_only_health_needs_no_credentials(document: dict[str, Any], client: Client, db: None) -> None:
    for path, verb, item in operations(document):
        filled = re.sub(r"\{\w+\}", "1", path)
        status = client.generic(verb.upper(), filled).status_code
        if path in ("/healthz", "/readyz"):
            assert (status, item.get("security")) == (200, None)
        elif {"elementToken": []} in item["security"]:
            assert status == 403, path  # contract page 40: nothing but the element's own token counts
        else:
            assert status == 401, path
            assert {"bearer": []} in item["security"]
    for path in OWN_PAGES:
        assert client.get(path).status_code == 401
    static = client.get("/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css")
    assert static.status_code == 200
    static.close()


def test_one_family(api: Api, account: Account) -> None:
    everything = api(account, "GET", "/api/schema/")[1]
    tasks = api(account, "GET", "/api/schema?family=tasks")[1]
    assert tasks["paths"] == {
        path: item for path, item in everything["paths"].items() if path.startswith("/v1/tasks")
    }
    assert "Node" not in tasks["components"]["schemas"]
    status, body, _ = api(account, "GET", "/api/schema?family=nothing")
    assert (status, body["error"]["field"]) == (400, "family")


def test_pages_come_from_our_own_files_and_ask_for_a_login(account: Account) -> None:
    browser = Client()
    page = browser.get("/api/docs/", headers={"Sec-Fetch-Mode": "navigate"})
    assert (page.status_code, page["Location"]) == (302, "/admin/login/?next=/api/docs")
    browser.force_login(User.objects.get(username=account.user))
    for path in ("/api/docs/", "/api/docs", "/api/docs/?script="):
        page = browser.get(path)
        assert page.status_code == 200
        assert not re.findall(rb"(?:src|href)=.https?://", page.content)
        assert b"<script>" not in page.content, "the policy allows no inline script"
        assert "script-src" not in page["Content-Security-Policy"]
    assert browser.options("/api/docs/").status_code == 405
    assert browser.get("/api/schema/").status_code == 200


def test_a_generated_client_compiles(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(document))
    (tmp_path / "options.json").write_text(json.dumps({"post_hooks": []}))
    subprocess.run(
        [
            *(str(Path(sys.executable).parent / "openapi-python-client"), "generate", "--meta", "none"),
            *("--path", str(tmp_path / "schema.json"), "--config", str(tmp_path / "options.json")),
            *("--output-path", str(tmp_path / "gantry_client"), "--fail-on-warning"),
        ],
        check=True,
        capture_output=True,
        timeout=limit(200),
    )
    assert compileall.compile_dir(tmp_path / "gantry_client", quiet=1)
    made = {path.stem for path in (tmp_path / "gantry_client" / "api").glob("*/*.py")}
    assert {item["operationId"] for _, _, item in operations(document)} <= made


def test_a_range_of_which_nothing_is_stored_is_described(document: dict[str, Any]) -> None:
    for path in ("/api/v1/runs/{run_id}/logs", "/v1/tasks/{task_id}/logs"):
        assert set(document["paths"][path]["get"]["responses"]["416"]["content"]) == {"text/plain"}
