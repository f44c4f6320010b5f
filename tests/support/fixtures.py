"""Fixtures: a tenant with a token, nodes and an API as real processes on the session's servers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import remains
from tests.support.cluster import Cluster
from tests.support.receivers import Receivers
from tests.support.session import SESSION

#: Folders of tests whose nodes and APIs nobody warms.
AS_STARTED = {"acceptance", "deployment", "security"}


@dataclass(frozen=True)
class Account:
    """A user of one tenant, with a token of the given scopes."""

    tenant_id: int
    tenant: str
    user: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def make_account(
    tenant: str, *, scopes: tuple[str, ...] = ("read", "submit"), trusted: bool = False
) -> Account:
    """Create a tenant (if needed), a user in it and a token."""
    import hashlib
    import secrets

    from django.contrib.auth.models import User

    from workers.models import Membership, Tenant, Token

    row, _ = Tenant.objects.get_or_create(name=tenant, defaults={"trusted_with_worker_account": trusted})
    name = f"{tenant}-{secrets.token_hex(4)}"
    user = User.objects.create(username=name)
    Membership.objects.create(user=user, tenant=row, is_default=True)
    token = f"gnt_{secrets.token_urlsafe(32)}"
    Token.objects.create(
        user=user,
        name="test",
        digest=hashlib.sha256(token.encode()).hexdigest(),
        prefix=token[:12],
        scopes=list(scopes),
    )
    return Account(row.pk, tenant, name, token)


@pytest.fixture
def account(db: None) -> Account:
    """A user of the first tenant, who may read and submit."""
    return make_account("default", trusted=True)


@pytest.fixture
def stranger(db: None) -> Account:
    """A user of another tenant."""
    return make_account("stranger", trusted=True)


@pytest.fixture
def operator(db: None) -> Account:
    """A user of the first tenant with every scope."""
    return make_account("default", scopes=("read", "submit", "operate", "worker"), trusted=True)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[Cluster]:
    """Nodes and API processes of one test; everything is stopped and checked to be gone afterwards.

    Where the subject is the service as one starts it, or what its processes show of themselves, they are
    started as the operating system does; elsewhere from a process that has loaded their libraries.
    """
    folder = remains.also(SESSION, Path(tempfile.mkdtemp(prefix="gc-", dir="/tmp")))
    folder.chmod(0o711)
    running = Cluster(folder, dict(os.environ), warm=not AS_STARTED & set(request.path.parts))
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that commands of any user can write to. As root not in /tmp: each run has its own."""
    folder = Path(tempfile.mkdtemp(prefix="gantry-test-", dir="/var/lib" if os.geteuid() == 0 else "/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def them() -> Iterator[Receivers]:
    """Receivers of callbacks, of the test's own."""
    with Receivers() as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def _static_files_are_listed_once() -> Iterator[None]:
    """Every test client makes the middleware anew, and WhiteNoise then looks at each of 170 static files."""
    from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]

    listed: dict[str, Any] = {}
    look = WhiteNoiseMiddleware.add_files_from_finders

    def look_once(self: Any) -> None:
        if not listed:
            look(self)
            listed.update(self.files)
        self.files.update(listed)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(WhiteNoiseMiddleware, "add_files_from_finders", look_once)
        yield


@pytest.fixture(autouse=True)
def _fresh_caches() -> None:
    """Process-wide caches outlive a test's rows: forget them."""
    from config.http import throttles
    from tests.support.session import REDIS
    from workers.scheduling import claiming, explain, shapes
    from workers.tenants import audit, identity

    identity.forget()
    audit._waiting.clear()
    claiming._slots = (float("-inf"), 0)
    throttles.rates._accounts.clear()
    client = REDIS.client(60.0)
    if buckets := client.keys(f"{throttles.PREFIX}*"):
        client.delete(*buckets)
    shapes._shapes.clear()
    explain._cache = (0.0, [])


@pytest.fixture
def remembered(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is remembered for seconds is so for the whole test: for where queries are counted."""
    from workers.scheduling import claiming
    from workers.tenants import limits, policy

    settings.TOKEN_CACHE_S = 600
    for module, name in (
        *((limits, "_CACHE_S"), (limits, "_COUNT_S")),
        *((policy, "_CACHE_S"), (claiming, "_SLOTS_S")),
    ):
        monkeypatch.setattr(module, name, 600.0)
    yield
    limits.forget()
    policy.forget()


@pytest.fixture(autouse=True)
def _empty_broker(request: pytest.FixtureRequest) -> None:
    """Messages of an earlier test's nodes must not reach this one's."""
    if "cluster" in request.fixturenames:
        from tests.support.session import REDIS

        REDIS.client(60.0).flushall()


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: two for each core, since most tests wait for processes."""
    return min(2 * (os.cpu_count() or 1), 16)
