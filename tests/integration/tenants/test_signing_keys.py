"""Keys that sign receipts: one in use, earlier ones stay verifiable, no private half is ever shown."""

from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.integration.conftest import Api, keys
from tests.support.fixtures import Account
from workers.api.keys import serializers
from workers.models import Secret, SigningKey
from workers.tenants import signing_keys

PATH = "/api/v1/keys"


def test_made_when_needed_replaced_and_kept(api: Api, account: Account, stranger: Account) -> None:
    assert api(account, "GET", PATH)[1] == []
    first = signing_keys.signer(account.tenant_id)
    assert signing_keys.signer(account.tenant_id).name == first.name
    status, made, _ = api(account, "POST", PATH)
    assert (status, set(made)) == (201, keys(serializers.SigningKeySerializer))
    second = signing_keys.signer(account.tenant_id)
    assert second.name == made["id"] != first.name
    listed = api(account, "GET", PATH)[1]
    assert [(item["id"], item["retired_at"] is None) for item in listed] == [
        (second.name, True),
        (first.name, False),
    ]
    public = {
        item["id"]: Ed25519PublicKey.from_public_bytes(base64.b64decode(item["public_key"]))
        for item in listed
    }
    for signer in (first, second):
        public[signer.name].verify(base64.b64decode(signer.sign(b"words")), b"words")
    with pytest.raises(InvalidSignature):
        public[first.name].verify(base64.b64decode(second.sign(b"words")), b"words")
    assert Secret.objects.filter(purpose="signing key").count() == 1, "the retired one's is deleted"
    assert api(stranger, "GET", PATH)[1] == []


def test_a_repeated_request_replaces_once(api: Api, account: Account) -> None:
    answers = [api(account, "POST", PATH, Idempotency_Key="k")[1]["id"] for _ in range(2)]
    assert answers[0] == answers[1]
    assert SigningKey.objects.count() == 1
