"""Registry credentials: stored encrypted, shown to nobody, kept per tenant. The bounds of policies."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.test import Client

from tests.integration.api.walk import rows
from tests.integration.conftest import Api, keys
from tests.integration.engine_rows import together
from tests.support.fixtures import Account, make_account
from workers import secrets
from workers.api.registries import serializers
from workers.models import Registry, Secret, Tenant
from workers.tenants import policy, registries, tenancy
from workers.vocabulary.errors import SecretUnreadable

pytestmark = pytest.mark.invariant

CANARY = "canary-registry-password"
PATH = "/api/v1/registries"


def put(api: Api, who: Account, registry: str, password: str = CANARY, **more: Any) -> Any:
    return api(who, "PUT", f"{PATH}/{registry}", {"username": "robot", "password": password, **more})


def test_store_list_replace_remove(api: Api, account: Account, stranger: Account) -> None:
    status, stored, _ = put(api, account, "Registry.Example:5000")
    assert status == 200
    assert set(stored) == keys(serializers.RegistrySerializer)
    assert (stored["registry"], stored["username"]) == ("registry.example:5000", "robot")
    assert put(api, account, "index.docker.io")[1]["registry"] == "docker.io"
    listed = api(account, "GET", PATH)[1]
    assert [item["registry"] for item in listed] == ["docker.io", "registry.example:5000"]
    assert api(stranger, "GET", PATH)[1] == []

    status, again, _ = put(api, account, "registry.example:5000", "another password", username="robot2")
    assert (status, again["username"], again["created_at"]) == (200, "robot2", stored["created_at"])
    assert again["updated_at"] > stored["updated_at"]
    assert Secret.objects.count() == 2, "the one before is gone"

    assert api(stranger, "DELETE", f"{PATH}/registry.example:5000")[0] == 404
    status, removed, _ = api(account, "DELETE", f"{PATH}/registry.example:5000")
    assert (status, removed["registry"]) == (200, "registry.example:5000")
    assert api(account, "DELETE", f"{PATH}/registry.example:5000")[0] == 404
    assert Secret.objects.count() == Registry.objects.count() == 1


@pytest.mark.parametrize(
    ("registry", "body", "field"),
    [
        ("a%20b", {"username": "u", "password": "p"}, "registry"),
        ("r.example:0", {"username": "u", "password": "p"}, "registry"),
        ("r.example", {"password": "p"}, "username"),
        ("r.example", {"username": "u"}, "password"),
        ("r.example", {"username": "u:v", "password": "p"}, "username"),
        ("r.example", {"username": "u", "password": ""}, "password"),
        ("r.example", {"username": "u", "password": "p" * 16_385}, "password"),
    ],
)
def test_what_is_refused(api: Api, account: Account, registry: str, body: Any, field: str) -> None:
    status, answer, _ = api(account, "PUT", f"{PATH}/{registry}", body)
    assert (status, answer["error"]["field"]) == (400, field)
    assert Registry.objects.count() == Secret.objects.count() == 0


def test_scopes(api: Api, account: Account) -> None:
    """A tenant's own things: read to see, submit to change; operate is not needed."""
    reader = make_account("default", scopes=("read",))
    assert put(api, reader, "r.example")[0] == 403
    assert api(reader, "DELETE", f"{PATH}/r.example")[0] == 403
    assert api(reader, "GET", PATH)[0] == 200
    assert put(api, account, "r.example")[0] == 200


def test_the_password_is_nowhere(
    api: Api, account: Account, admin_client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in answers, the admin, the log or any row of the database; and yet it is there."""
    seen = [str(put(api, account, "r.example")), str(put(api, account, "r.example", CANARY, username=""))]
    seen += [str(api(account, verb, PATH)) for verb in ("GET", "OPTIONS", "POST")]
    row = Registry.objects.get()
    for page in ("", f"{row.pk}/change/", "?q=r.example"):
        shown = admin_client.get(f"/admin/workers/registry/{page}").content.decode()
        assert "r.example" in shown
        seen.append(shown)
    assert admin_client.get("/admin/workers/secret/").status_code == 404
    seen.append(str(rows()))
    found = registries.for_image(account.tenant_id, "r.example/app:1")
    assert found is not None
    assert found.password == CANARY
    seen += [repr(found), str(row), repr(row), str(capfd.readouterr())]
    for text in seen:
        assert CANARY not in text


def test_for_image(account: Account, stranger: Account, settings: Any) -> None:
    """By tenant and registry, exactly."""
    registries.put(account.tenant_id, "r.example:5000", "robot", CANARY)
    registries.put(account.tenant_id, "docker.io", "hub", "other")
    for image, username in (
        ("r.example:5000/team/app:1", "robot"),
        ("r.example/team/app", None),
        ("busybox", "hub"),
        ("docker.io/team/app", "hub"),
        ("localhost/app", None),
        ("not an image", None),
    ):
        found = registries.for_image(account.tenant_id, image)
        assert (found.username if found else None) == username, image
    assert registries.for_image(stranger.tenant_id, "r.example:5000/team/app:1") is None
    settings.GANTRY_SECRET_KEYS = ["bm9uZSBvZiB0aGUga2V5cyB0aGF0IHdlcmUgdXNlZCE="]
    with pytest.raises(SecretUnreadable, match=r"credentials for the registry docker\.io"):
        registries.for_image(account.tenant_id, "busybox")


def test_rotation_covers_them(account: Account, settings: Any) -> None:
    registries.put(account.tenant_id, "docker.io", "hub", CANARY)
    fresh = "bm9uZSBvZiB0aGUga2V5cyB0aGF0IHdlcmUgdXNlZCE="
    settings.GANTRY_SECRET_KEYS = [fresh, *settings.GANTRY_SECRET_KEYS]
    call_command("rotate_secrets")
    settings.GANTRY_SECRET_KEYS = [fresh]
    found = registries.for_image(account.tenant_id, "busybox")
    assert found is not None
    assert found.password == CANARY
    assert secrets.reveal(Registry.objects.get().secret_id) == CANARY


@pytest.mark.django_db(transaction=True)
def test_two_at_once(transactional_db: None) -> None:
    """The last one wins; one row, one secret."""
    tenant = make_account("default").tenant_id
    together(*(lambda n=n: registries.put(tenant, "r.example", f"u{n}", f"p{n}") for n in range(4)))
    found = registries.for_image(tenant, "r.example/x")
    assert found is not None
    assert found.username.removeprefix("u") == found.password.removeprefix("p")
    assert (Registry.objects.count(), Secret.objects.count()) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": "busybox"},
        {"images": [1]},
        {"images": ["a b"]},
        {"images": True},
        {"volume_paths": ["data"]},
        {"volume_paths": ["/data/../etc"]},
        {"volumes": ["/data"]},
        {"images": ["busybox"] * 1001},
    ],
)
def test_bounds_that_are_refused(api: Api, operator: Account, wrong: Any) -> None:
    status, answer, _ = api(operator, "PATCH", "/api/v1/tenants/default", {"policy": wrong})
    assert (status, answer["error"]["field"]) == (400, "policy")
    assert next(iter(wrong)) in answer["error"]["message"]


def container(image: str = "busybox", **docker: Any) -> dict[str, Any]:
    volumes = docker.pop("volumes", None)
    return {
        "taskName": "c",
        "container": {"type": "DOCKER", "docker": {"image": image, **docker}, "volumes": volumes},
    }


def test_bounds_at_submission(api: Api, operator: Account, account: Account, settings: Any) -> None:
    """400 in the family's envelope, naming the field; what is within them is accepted."""
    settings.TOKEN_CACHE_S = 0
    opened = {
        "images": ["registry.example/team/*", "busybox:1.*"],
        "volumes": True,
        "volume_paths": ["/data/team"],
        "host_ports": True,
    }
    assert api(operator, "PATCH", "/api/v1/tenants/default", {"policy": opened})[1]["policy"] == opened
    settings.GANTRY_HOST_PORTS = [(8000, 8999)]

    def asked(**given: Any) -> tuple[int, str]:
        status, body, _ = api(account, "POST", "/v1/tasks", container(**given))
        return status, body["message"]

    def volume(path: str) -> list[dict[str, str]]:
        return [{"containerPath": "/x", "hostPath": path}]

    def port(number: int, *more: int) -> list[dict[str, int]]:
        return [{"containerPort": 80, "hostPort": item} for item in (number, *more)]

    for given, words in (
        ({"image": "nginx"}, "container.docker.image is refused"),
        ({"image": "busybox:1.36@sha256:" + "0" * 64}, "container.docker.image is refused"),
        ({"image": "0" * 64}, "is an image's id"),
        ({"image": "busybox:1.36", "volumes": volume("/data/teams")}, "container.volumes[0].hostPath"),
        (
            {"image": "busybox:1.36", "volumes": volume("/data/team/../x")},
            "container.volumes[0].hostPath",
        ),
        ({"image": "busybox:1.36", "portMappings": port(80)}, "the operator allows 8000-8999"),
        ({"image": "busybox:1.36", "portMappings": port(8080, 8080)}, "a second time"),
    ):
        status, message = asked(**given)
        assert status == 400, given
        assert words in message, message
    for given in (
        {"image": "busybox:1.36"},
        {"image": "registry.example/team/app@sha256:" + "0" * 64},
        {"image": "busybox:1.36", "volumes": volume("/data/team/x")},
        {"image": "busybox:1.36", "portMappings": port(8080, 0, 0)},
    ):
        assert asked(**given)[0] == 200, given


def test_a_policy_without_lists_bounds_nothing(api: Api, account: Account) -> None:
    tenancy.update_tenant("default", opened={})
    assert api(account, "POST", "/v1/tasks", container("anything.example/x"))[0] == 200
    tenancy.update_tenant("default", opened={"images": []})
    assert api(account, "POST", "/v1/tasks", container("anything.example/x"))[0] == 400


def test_what_an_operator_said_before_registries_were_opened_is_kept(settings: Any, db: None) -> None:
    """A filled database: nothing changes for the first tenant, nor for a registry that a list names."""
    settings.GANTRY_REGISTRIES = ["docker.io=auth.docker.io", "quay.io"]
    before: dict[str, dict[str, Any]] = {
        "default": {"commands": False, "images": ["a.example/*"]},
        "named": {
            "images": ["R.example:5000/team/*", "localhost/x", "quay.io/*", "busybox", "[::1]:5/x", "*.io/x"]
        },
        "hub": {"images": ["busybox:1.*", "team/*"]},
        "plain": {},
        "set": {"registries": []},
    }
    for name, stored in before.items():
        Tenant.objects.update_or_create(name=name, defaults={"policy": stored})
    import_module("workers.migrations.0012_registries").keep(apps, None)
    after = {name: Tenant.objects.get(name=name).policy for name in before}
    assert after["default"] == {**before["default"], "registries": ["any"]}
    assert after["named"] == {
        **before["named"],
        "registries": ["docker.io=auth.docker.io", "quay.io", "localhost=any", "r.example:5000=any"],
    }
    assert policy.bounds(policy.checked(after["named"])).image("R.example:5000/team/app") == ""
    assert [after[name] for name in ("hub", "plain", "set")] == [before["hub"], {}, {"registries": []}]
