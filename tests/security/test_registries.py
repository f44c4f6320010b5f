"""Which registries a tenant may name: those that an operator opened, in images and for credentials."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import Api, api  # noqa: F401  a fixture
from tests.support.fixtures import Account
from workers.models import Tenant
from workers.tenants import policy, tenancy
from workers.vocabulary.errors import InvalidInput

INSIDE = "10.0.0.1:8080"


@pytest.fixture(autouse=True)
def ordinary(settings: Any) -> None:
    settings.TOKEN_CACHE_S = 0
    settings.GANTRY_REGISTRIES = ["docker.io", "Quay.io"]


def container(image: str) -> dict[str, Any]:
    return {"taskName": "c", "container": {"type": "DOCKER", "docker": {"image": image}}}


def test_only_what_is_opened(api: Api, account: Account) -> None:  # noqa: F811
    """400 that names the registry; nothing is asked, so nothing is learnt about the address."""
    for image in (f"{INSIDE}/x", "localhost/x", "169.254.169.254/x", "evil.example/docker.io/x"):
        status, body, _ = api(account, "POST", "/v1/tasks", container(image))
        assert status == 400, image
        assert "is not open for this tenant" in body["message"]
    for image in ("busybox", "index.docker.io/team/app", "QUAY.io/team/app"):
        assert api(account, "POST", "/v1/tasks", container(image))[0] == 200, image
    credentials = {"username": "u", "password": "p"}
    status, answer, _ = api(account, "PUT", f"/api/v1/registries/{INSIDE}", credentials)
    assert (status, answer["error"]["field"]) == (400, "registry")
    assert api(account, "PUT", "/api/v1/registries/quay.io", credentials)[0] == 200


def test_an_operator_opens_and_closes(api: Api, account: Account) -> None:  # noqa: F811
    for opened, status in (([INSIDE], 200), (["any"], 200), ([], 400), (["quay.io"], 400), (None, 400)):
        tenancy.update_tenant("default", opened={"registries": opened})
        assert api(account, "POST", "/v1/tasks", container(f"{INSIDE}/x"))[0] == status, opened
    with pytest.raises(InvalidInput, match="registries"):
        policy.checked({"registries": ["https://quay.io/"]})


def test_what_waits_when_a_registry_is_closed_does_not_start(account: Account) -> None:
    rules = policy.of(account.tenant_id, fresh=True)
    assert "is not open" in policy.refusal(rules, "container", {"image": f"{INSIDE}/x"})
    assert policy.refusal(rules, "container", {"image": "busybox"}) == ""


@pytest.mark.django_db
def test_the_first_tenant_of_a_fresh_installation_has_any() -> None:
    tenancy.bootstrap(given_token="gnt_" + "x" * 40)
    assert Tenant.objects.get(name=tenancy.FIRST_TENANT).policy["registries"] == ["any"]
