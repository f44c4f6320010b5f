"""Secrets at rest: what the database holds, and the rotation drill."""

from __future__ import annotations

from io import StringIO

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from pytest_django import Settings

from workers import secrets
from workers.models import Secret, Tenant
from workers.vocabulary.errors import SecretUnreadable

pytestmark = [pytest.mark.django_db, pytest.mark.invariant]

OLD, NEW, LOST = (Fernet.generate_key().decode() for _ in range(3))


@pytest.fixture
def tenant(settings: Settings) -> int:
    settings.GANTRY_SECRET_KEYS = [OLD]
    return Tenant.objects.create(name="secretive").pk


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("rotate_secrets", *arguments, stdout=out)
    return out.getvalue()


def test_a_secret_comes_back_and_the_database_does_not_show_it(tenant: int) -> None:
    secret_id = secrets.store(tenant, "swift key", "hunter2 – ünïcode")

    row = Secret.objects.get()
    assert (row.pk, row.tenant_id, row.purpose) == (secret_id, tenant, "swift key")
    assert b"hunter2" not in bytes(row.ciphertext)
    assert secrets.reveal(secret_id) == "hunter2 – ünïcode"


def test_equal_secrets_look_different(tenant: int) -> None:
    for _ in range(2):
        secrets.store(tenant, "x", "same")

    first, second = Secret.objects.values_list("ciphertext", flat=True)
    assert bytes(first) != bytes(second)


def test_wiped_secrets_are_gone(tenant: int) -> None:
    kept, one, two = (secrets.store(tenant, "x", text) for text in ("kept", "one", "two"))

    assert secrets.wipe([one, two, 10**9]) == 2
    assert secrets.wipe([]) == 0
    assert secrets.reveal(kept) == "kept"
    with pytest.raises(SecretUnreadable, match=f"secret {one} does not exist"):
        secrets.reveal(one)


def test_a_wrong_key_tells_so_and_shows_nothing(tenant: int, settings: Settings) -> None:
    secret_id = secrets.store(tenant, "x", "hunter2")
    settings.GANTRY_SECRET_KEYS = [NEW, LOST]

    with pytest.raises(SecretUnreadable) as caught:
        secrets.reveal(secret_id)

    assert caught.value.message == (
        f"secret {secret_id} cannot be read with any key of GANTRY_SECRET_KEYS: "
        "add the key with which it was stored"
    )
    assert caught.value.__cause__ is None


def test_a_changed_ciphertext_is_not_believed(tenant: int) -> None:
    secret_id = secrets.store(tenant, "x", "hunter2")
    row = Secret.objects.get()
    changed = bytearray(row.ciphertext)
    changed[40] ^= 1
    Secret.objects.update(ciphertext=bytes(changed))

    with pytest.raises(SecretUnreadable):
        secrets.reveal(secret_id)


@pytest.mark.parametrize(
    ("keys", "says"),
    [([], "is not set"), (["too-short"], "key 1 of 1 is not a Fernet key"), ([OLD, ""], "key 2 of 2 is not")],
)
def test_missing_or_malformed_keys_name_the_setting(
    tenant: int, settings: Settings, keys: list[str], says: str
) -> None:
    settings.GANTRY_SECRET_KEYS = keys

    for use in (secrets.check_keys, lambda: secrets.store(tenant, "x", "y"), lambda: list(secrets.rotate())):
        with pytest.raises(ImproperlyConfigured) as caught:
            use()
        assert "GANTRY_SECRET_KEYS" in str(caught.value)
        assert says in str(caught.value)
        assert "Fernet.generate_key" in str(caught.value)
        assert "too-short" not in str(caught.value)
    assert Secret.objects.count() == 0
    with pytest.raises(CommandError, match="GANTRY_SECRET_KEYS"):
        command()


def test_the_rotation_drill(tenant: int, settings: Settings) -> None:
    before = {secrets.store(tenant, "x", f"text {number}"): f"text {number}" for number in range(7)}

    settings.GANTRY_SECRET_KEYS = [NEW, OLD]  # 1. the new key in front, everything restarted
    between = secrets.store(tenant, "x", "stored meanwhile")
    assert all(secrets.reveal(secret_id) == text for secret_id, text in before.items())

    said = command("--batch", "3")  # 2. rotate
    assert "8 of 8, up to secret" in said
    assert "7 encrypted with the first key, 1 were already, 0 unreadable." in said
    assert "The older keys can be removed" in said

    settings.GANTRY_SECRET_KEYS = [NEW]  # 3. the old key is gone
    assert all(secrets.reveal(secret_id) == text for secret_id, text in before.items())
    assert secrets.reveal(between) == "stored meanwhile"
    assert "0 encrypted with the first key, 8 were already" in command()


def test_a_rotation_goes_on_where_it_was_interrupted(tenant: int, settings: Settings) -> None:
    ids = [secrets.store(tenant, "x", str(number)) for number in range(6)]
    settings.GANTRY_SECRET_KEYS = [NEW, OLD]

    rotation = secrets.rotate(batch=2)
    state = next(rotation)
    assert (state.rotated, state.last_id) == (2, ids[1])
    rotation.close()  # type: ignore[attr-defined]  # killed here

    (*_, state) = secrets.rotate(after=state.last_id, batch=2)
    assert (state.rotated, state.last_id) == (4, ids[5])
    settings.GANTRY_SECRET_KEYS = [NEW]
    assert [secrets.reveal(secret_id) for secret_id in ids] == list("012345")


def test_unreadable_secrets_are_counted_and_left(tenant: int, settings: Settings) -> None:
    settings.GANTRY_SECRET_KEYS = [LOST]
    lost = secrets.store(tenant, "x", "whose key is lost")
    settings.GANTRY_SECRET_KEYS = [OLD]
    good = secrets.store(tenant, "x", "good")
    settings.GANTRY_SECRET_KEYS = [NEW, OLD]

    with pytest.raises(CommandError, match=f"1 secrets cannot be read .* left as they are: {lost}"):
        command()

    settings.GANTRY_SECRET_KEYS = [NEW, LOST]
    assert secrets.reveal(good) == "good"
    assert secrets.reveal(lost) == "whose key is lost"


def test_a_secret_that_is_wiped_during_the_rotation_stays_wiped(tenant: int, settings: Settings) -> None:
    ids = [secrets.store(tenant, "x", str(number)) for number in range(3)]
    settings.GANTRY_SECRET_KEYS = [NEW, OLD]

    rotation = secrets.rotate(batch=1)
    next(rotation)
    secrets.wipe(ids)

    assert list(rotation) == []
    assert Secret.objects.count() == 0


def test_a_tenants_secrets_go_with_it(tenant: int) -> None:
    secrets.store(tenant, "x", "y")

    Tenant.objects.get(pk=tenant).delete()

    assert Secret.objects.count() == 0
