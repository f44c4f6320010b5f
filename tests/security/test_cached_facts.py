"""What an answer promises holds from that answer on, in processes that remember as well."""

from __future__ import annotations

from tests.integration.conftest import Api
from tests.support.fixtures import Account
from workers.callbacks import signing
from workers.models import CallbackSecret


def test_a_new_secret_signs_from_its_answer_on(api: Api, account: Account) -> None:
    """Catches a deliverer that goes on with what it remembers: it is another process, nobody tells it."""
    signing.forget()
    (unknown,) = signing.valid(account.tenant_id)
    remembered = dict(signing._known)

    def as_another_process() -> tuple[str, ...]:
        signing._known.clear()
        signing._known.update(remembered)
        return signing.valid(account.tenant_id)

    made = api(account, "POST", "/api/v1/callbacks/secrets")[1]
    assert as_another_process() == (made["secret"],) != (unknown,)
    again = api(account, "POST", "/api/v1/callbacks/secrets")[1]
    assert as_another_process() == (again["secret"], made["secret"])
    api(account, "DELETE", f"/api/v1/callbacks/secrets/{made['id']}")
    assert as_another_process() == (again["secret"],)
    assert CallbackSecret.objects.count() == 3
