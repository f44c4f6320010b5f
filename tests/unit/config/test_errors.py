"""The one mapping from errors to answers, and the envelopes."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import DisallowedHost, PermissionDenied, RequestDataTooBig
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404
from django.test import RequestFactory
from rest_framework import exceptions as drf

from config.http import errors
from workers.tenants.identity import CredentialRefused, TenantRefused
from workers.vocabulary import errors as engine


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (engine.InvalidInput("x"), 400, "invalid"),
        (engine.RefusedByPolicy("x"), 400, "refused_by_policy"),
        (engine.AddressRefused("x"), 400, "address_refused"),
        (CredentialRefused("token_missing", "x"), 401, "token_missing"),
        (CredentialRefused("token_expired", "x"), 401, "token_expired"),
        (TenantRefused("x"), 403, "forbidden"),
        (engine.NotFound("x"), 404, "not_found"),
        (engine.Conflict("x"), 409, "conflict"),
        (engine.IdempotencyConflict("x"), 409, "idempotency_key_reused"),
        (engine.SecretUnreadable("x"), 500, "secret_unreadable"),
        (engine.Unavailable("x"), 503, "unavailable"),
        (drf.ParseError(), 400, "malformed"),
        (drf.NotAuthenticated(), 401, "token_missing"),
        (drf.PermissionDenied(), 403, "forbidden"),
        (drf.NotFound(), 404, "not_found"),
        (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (drf.UnsupportedMediaType("a/b"), 415, "unsupported_media_type"),
        (drf.Throttled(3), 429, "throttled"),
        (Http404(), 404, "not_found"),
        (PermissionDenied(), 403, "forbidden"),
        (RequestDataTooBig(), 413, "too_large"),
        (DisallowedHost(), 400, "bad_host"),
        (OperationalError("secret host"), 503, "database"),
        (InterfaceError("secret host"), 503, "database"),
        (DataError("x"), 400, "invalid"),
    ],
)
def test_every_foreseen_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    problem = errors.problem_of(error)
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    assert "secret" not in problem.message or status == 500


def test_every_engine_error_has_a_status() -> None:
    def below(cls: type[engine.EngineError]) -> list[type[engine.EngineError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in below(child))]

    for cls in below(engine.EngineError):
        assert any(base in errors.STATUS for base in cls.__mro__), cls


def test_nobody_foresaw_it() -> None:
    assert errors.problem_of(ValueError("x")) is None


def test_waiting_times_are_told() -> None:
    throttled, busy = (
        errors.problem_of(drf.Throttled(2.2)),
        errors.problem_of(engine.Unavailable("x", retry_after=7)),
    )
    assert throttled is not None
    assert throttled.headers["Retry-After"] == "3"
    assert busy is not None
    assert busy.headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("detail", "field", "code", "message"),
    [
        (
            {"name": [drf.ErrorDetail("This field is required.", "required")]},
            "name",
            "required",
            "name: This",
        ),
        ({"a": {"b": [drf.ErrorDetail("Bad.", "invalid")]}}, "a.b", "invalid", "a.b: Bad."),
        ({"scopes": {1: [drf.ErrorDetail("No.", "invalid_choice")]}}, "scopes.1", "invalid", "scopes.1: No."),
        ([drf.ErrorDetail("Plain.", "invalid")], None, "invalid", "Plain."),
    ],
)
def test_the_first_wrong_field_is_named(detail: object, field: str | None, code: str, message: str) -> None:
    problem = errors.problem_of(drf.ValidationError(detail))  # type: ignore[arg-type]
    assert problem is not None
    assert (problem.field, problem.code) == (field, code)
    assert problem.message.startswith(message)


@pytest.mark.parametrize(
    ("path", "family"),
    [
        ("/v1/tasks", "tasks"),
        ("/v1/tasks/", "tasks"),
        ("/v1/tasks/1/logs", "tasks"),
        ("/v1/tasksy", "queues"),
        ("/v1/vm/a", "queues"),
        ("/v1", "queues"),
        ("/v1y", "api"),
        ("/api/v1/runs", "api"),
        ("/", "api"),
    ],
)
def test_family_of_a_path(path: str, family: str) -> None:
    assert errors.family_of(path) == family


def test_envelopes() -> None:
    problem = errors.Problem(400, "invalid", "name is blank", "name")
    plain = errors.answer(RequestFactory().get("/api/v1/x"), problem)
    assert json.loads(plain.content) == {
        "error": {"code": "invalid", "message": "name is blank", "field": "name"}
    }
    tasks = errors.answer(RequestFactory().get("/v1/tasks/x"), problem)
    assert set(json.loads(tasks.content)) == {"status", "message"}
    assert json.loads(tasks.content)["status"] < 0


def test_browsers_are_not_offered_basic() -> None:
    refused = errors.Problem(401, "token_missing", "x")
    assert "Basic" in errors.answer(RequestFactory().get("/x"), refused)["WWW-Authenticate"]
    browser = RequestFactory().get("/x", HTTP_SEC_FETCH_SITE="same-origin")
    assert errors.answer(browser, refused)["WWW-Authenticate"] == 'Bearer realm="gantry"'
