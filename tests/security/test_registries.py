"""Names of images are addresses: which registries a tenant may name, and where these may send the engine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.nodes import claimed
from tests.integration.conftest import Api
from tests.support import images as rig
from tests.support.cluster import free_port
from tests.support.engines import Engine as Rig
from tests.support.fixtures import Account
from tests.support.images import BUSYBOX, Registry
from tests.support.pulls import as_node, ensure, refused
from tests.unit.addresses.test_http import certificate
from tests.unit.addresses.web_server import Server, hang, plain, redirect
from workers.addresses import Deadline
from workers.models import Tenant
from workers.runtimes.base import PrepareFailed
from workers.runtimes.container.runtime import ContainerRuntime
from workers.runtimes.engine import realms
from workers.runtimes.engine.client import Engine
from workers.runtimes.engine.images import PullStopped
from workers.runtimes.engine.pulling import Cause, Failure
from workers.tenants import policy, tenancy
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.references import Opening, Way
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason

INSIDE = "10.0.0.1:8080"


@pytest.fixture(autouse=True)
def ordinary(settings: Any) -> None:
    settings.TOKEN_CACHE_S = 0
    settings.GANTRY_REGISTRIES = ["docker.io=auth.docker.io", "Quay.io"]


def container(image: str) -> dict[str, Any]:
    return {"taskName": "c", "container": {"type": "DOCKER", "docker": {"image": image}}}


# --- which may be named ------------------------------------------------------------------------------


def test_only_what_is_opened(api: Api, account: Account) -> None:
    """400 that names the registry and the remedy; nothing is asked of the address."""
    for image, registry in (
        (f"{INSIDE}/x", INSIDE),
        ("localhost/x", "localhost"),
        ("169.254.169.254/x", "169.254.169.254"),
        ("0x7f.1/x", "0x7f.1"),
        ("Evil.Example/docker.io/x", "evil.example"),
        ("quay.io:444/x", "quay.io:444"),
        ("quay.io.evil.example/x@sha256:" + "0" * 64, "quay.io.evil.example"),
        ("auth.docker.io/x", "auth.docker.io"),
    ):
        status, body, _ = api(account, "POST", "/v1/tasks", container(image))
        assert status == 400, image
        assert f"the registry {registry} is not open for this tenant: an operator can" in body["message"]
    for image in ("busybox", "index.docker.io/team/app", "QUAY.io/team/app@sha256:" + "0" * 64, "team/app:1"):
        assert api(account, "POST", "/v1/tasks", container(image))[0] == 200, image
    credentials = {"username": "u", "password": "p"}
    for registry in (INSIDE, "localhost", "auth.docker.io", "evil.example"):
        status, answer, _ = api(account, "PUT", f"/api/v1/registries/{registry}", credentials)
        assert (status, answer["error"]["field"]) == (400, "registry")
        assert f"the registry {registry} is not open" in answer["error"]["message"]
    assert api(account, "PUT", "/api/v1/registries/quay.io", credentials)[0] == 200


def test_an_operator_opens_and_closes(api: Api, account: Account) -> None:
    for opened, status in (
        ([INSIDE], 200),
        ([f"http://{INSIDE}=any"], 200),
        (["any"], 200),
        (["quay.io", "ANY "], 200),
        ([], 400),
        (["quay.io"], 400),
        ([f"quay.io={INSIDE}"], 400),
        (None, 400),
    ):
        tenancy.update_tenant("default", opened={"registries": opened})
        assert api(account, "POST", "/v1/tasks", container(f"{INSIDE}/x"))[0] == status, opened
    for entry in (
        "https://quay.io",
        "quay.io/team",
        "quay.io=",
        "=x",
        "u:p@quay.io",
        "*.io",
        "[::1]:5000",
        "",
    ):
        with pytest.raises(InvalidInput, match=r"policy\.registries"):
            policy.checked({"registries": [entry]})


def test_what_waits_when_a_registry_is_closed_does_not_start(account: Account) -> None:
    rules = policy.of(account.tenant_id, fresh=True)
    assert f"{INSIDE} is not open" in policy.refusal(rules, "container", {"image": f"{INSIDE}/x"})
    assert policy.refusal(rules, "container", {"image": "busybox"}) == ""


@pytest.mark.django_db
def test_the_first_tenant_of_a_fresh_installation_has_any() -> None:
    tenancy.bootstrap(given_token="gnt_" + "x" * 40)
    assert Tenant.objects.get(name=tenancy.FIRST_TENANT).policy["registries"] == ["any"]


# --- where they may send the engine ------------------------------------------------------------------


@pytest.fixture
def web(settings: Any) -> Iterator[Server]:
    """A registry of an attacker's, opened by name all the same."""
    settings.GANTRY_REGISTRY_ALLOW_NETWORKS = ["127.0.0.1/32"]
    found = Server()
    yield found
    found.close()


@pytest.fixture
def inside(settings: Any) -> Iterator[Server]:
    """What it would like to read."""
    found = Server()
    yield found
    assert found.seen == [], "nobody was asked that nobody opened"
    found.close()


def opening(web: Server, *tokens: str, plain: bool = True) -> Opening:
    return Opening(f"127.0.0.1:{web.port}", frozenset(tokens), plain)


def objection(opened: Opening) -> Failure | None:
    return realms.objection(opened, Deadline(30.0))


def test_a_realm_elsewhere(web: Server, inside: Server) -> None:
    own, other = web.url("/token"), inside.url("/token")
    for challenge, fine in (
        (f'Bearer realm="{own}",service="r"', True),
        (f'Bearer service="r",REALM="{own}"', True),
        ("Bearer", True),
        (f'Basic realm="{other}"', True),
        (f'Bearer realm="{other}"', False),
        (f"bearer Realm={other}", False),
        (f'BEARER\tservice="x" , realm="{other}"', False),
        (f'Bearer realm="{own}",realm="{other}"', False),
        (f'Bearer x="realm={own}",realm="{other}"', False),
        (f'Bearer x="realm=",realm="{other}"', False),
        (f'Basic realm="r", Bearer realm="{other}"', False),
        (f'Bearer realm="{own.replace("127.0.0.1", "127.0.0.1@evil.example")}"', False),
        (f'Bearer realm="{own.replace("http:", "https:")}"', True),  # the same place, for the engine to try
        (f'Bearer realm="\\{own}"', False),
        ('Bearer realm="http://169.254.169.254/latest/meta-data/"', False),
        ('Bearer realm="http://localhost/token"', False),
        ('Bearer realm="/token"', False),
        ('Bearer realm="gopher://x"', False),
        ('Bearer realm="', False),
    ):
        web.answers["/v2/"] = plain(b"{}", 401, **{"WWW-Authenticate": challenge})
        found = objection(opening(web))
        assert (found is None) is fine, challenge
        assert fine or found == Failure(
            Cause.CLOSED, "its registry names another host, which is not opened with it"
        )
    web.answers["/v2/"] = plain(b"{}", 401, **{"WWW-Authenticate": f'Bearer realm="{other}"'})
    assert objection(opening(web, f"127.0.0.1:{inside.port}")) is None
    assert "authorization" not in web.seen[0][1]


def test_a_private_authority_is_no_obstacle(inside: Server, settings: Any, tmp_path: Path) -> None:
    """The engine may know whoever vouches for a registry, and its answer is believed in nothing."""
    settings.GANTRY_REGISTRY_ALLOW_NETWORKS = ["127.0.0.1/32"]
    web = Server(certificate(tmp_path, "r.example")[1])
    try:
        assert objection(opening(web, plain=False)) is None
        web.answers["/v2/"] = plain(b"", 401, **{"WWW-Authenticate": f'Bearer realm="{inside.url()}"'})
        found = objection(opening(web, f"127.0.0.1:{inside.port}", plain=False))
        assert found is not None, "that host is opened, but not without TLS"
        assert found.cause is Cause.CLOSED
    finally:
        web.close()


def test_a_redirect_elsewhere(web: Server, inside: Server) -> None:
    endless = Failure(Cause.BROKEN, "its registry redirects without end")
    web.answers["/v2/"] = redirect(inside.url("/v2/"))
    found = objection(opening(web))
    assert found is not None
    assert found.cause is Cause.CLOSED
    for status in (301, 307, 308):
        web.answers["/v2/"] = redirect("/moved", status)
        web.answers["/moved"] = plain(b"", 401, **{"WWW-Authenticate": f'Bearer realm="{inside.url()}"'})
        assert objection(opening(web)) == found
    for location in (
        "http://[",
        "//evil.example/v2/",
        "http://127.0.0.1:99999/",
        "https://u:p@127.0.0.1/",
        "",
    ):
        web.answers["/v2/"] = redirect(location)
        assert objection(opening(web)) == (found if location else endless), location
    web.answers["/v2/"] = redirect("/v2/")
    assert objection(opening(web)) == endless


def test_a_registry_inside_is_opened_by_name_and_by_network(web: Server, settings: Any) -> None:
    """A name that leads inside, or does so from now on: the guard has the last word."""
    settings.GANTRY_REGISTRY_ALLOW_NETWORKS = []
    assert objection(opening(web)) == Failure(Cause.CLOSED, "its registry has an address that is not open")
    assert web.seen == []


def test_what_answers_is_told_by_its_kind_only(web: Server) -> None:
    """A closed port, a name that is none, and one that says nothing are told alike."""
    nowhere = free_port()
    assert objection(Opening(f"127.0.0.1:{nowhere}", plain=True)) == Failure.of(Cause.UNREACHABLE)
    assert objection(Opening("nowhere.invalid", plain=True)) == Failure.of(Cause.UNREACHABLE)
    web.answers["/v2/"] = hang
    slow = realms.objection(opening(web), Deadline(0.5))
    assert slow == Failure.of(Cause.UNREACHABLE)
    assert objection(opening(web, plain=False)) == Failure(
        Cause.BROKEN, "its registry does not speak TLS, and is not opened without it"
    )


def test_a_cancel_ends_the_question(link: Engine, web: Server, settings: Any, tmp_path: Path) -> None:
    as_node(settings, tmp_path, 3600.0)
    web.answers["/v2/"] = hang
    with pytest.raises(PullStopped):
        ensure(link, f"127.0.0.1:{web.port}/x", opening=opening(web), cancelled=lambda: bool(web.seen))


def test_a_pull_waits_for_the_answer(
    engine: Rig, link: Engine, web: Server, settings: Any, tmp_path: Path
) -> None:
    """A realm inside: it never hears of the engine. Without the question it does."""
    as_node(settings, tmp_path, 1.0)
    visits: list[int] = []

    def listen(port: int) -> socket.socket:
        """Takes note of whoever comes, in the engine's network."""
        listener = engine.listen(port)

        def take() -> None:
            while True:
                try:
                    visit, _ = listener.accept()
                except OSError:
                    return
                visits.append(listener.getsockname()[1])
                visit.close()

        threading.Thread(target=take, daemon=True).start()
        return listener

    with listen(free_port()) as realm:
        at = f"127.0.0.1:{realm.getsockname()[1]}"
        with Registry(engine, port=free_port(), near=True, realm=f"http://{at}/token") as registry:
            name = f"{registry.address}/team/app:1"
            opened = Opening(registry.address, plain=True)
            told: list[str] = []
            node = ContainerRuntime(tmp_path / "node", link, "t", "n1", lambda run: Way(opening=opened))
            run = claimed("container", 1, ContainerSpec(image=name).to_json())
            with pytest.raises(PrepareFailed) as caught:
                node.prepare(run, lambda: False, told.append)
            failure = caught.value
            assert (failure.reason, failure.ours) == (Reason.IMAGE, False)
            assert failure.message.startswith(
                f"Image {name} cannot be pulled: its registry names another host, which is not opened "
                "with it; an operator can open it"
            )
            assert at not in failure.message + "".join(told)
            assert visits == []
            failure = refused(link, name, opening=Opening(registry.address, frozenset({"any"}), plain=True))
            assert "cannot be pulled: its registry" in failure.message
            assert at not in failure.message
            assert visits, "the engine follows what the registry names"
        realm.shutdown(socket.SHUT_RDWR)


def test_a_registry_that_is_opened(
    engine: Rig, link: Engine, web: Server, settings: Any, tmp_path: Path
) -> None:
    """The question stands in nobody's way; what is here already needs none."""
    as_node(settings, tmp_path, 1.0)
    with Registry(engine, port=free_port(), near=True) as registry:
        name = registry.push(BUSYBOX, "team/app:1")
        rig.forget(engine, name)
        opened = Opening(registry.address, plain=True)
        assert ensure(link, name, opening=opened).note == ""
    assert ensure(link, name, pull="missing", opening=opened).note == ""
    note = ensure(link, name, opening=opened).note
    assert note == (
        f"image {name} could not be pulled (its registry cannot be reached or has no time): the "
        "local image is used"
    )
    rig.forget(engine, name)
