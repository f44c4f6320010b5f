"""Addresses that only a machine knows to be its own, and metadata of every cloud."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address
from typing import Any

import pytest

from config.settings import BASE_DIR
from workers.addresses.guard import METADATA, own, permitted
from workers.runtimes.engine import firewall
from workers.vocabulary.errors import AddressRefused

_ASK = """
import os, sys
from django.conf import settings
settings.configure(GANTRY_URI_ALLOW_NETWORKS=sys.argv[2:])
from workers.addresses.guard import permitted
from workers.vocabulary.errors import AddressRefused
try:
    print(permitted("x.example", [sys.argv[1]], "uri"))
except AddressRefused as error:
    print(error)
"""


def asked(address: str, *opened: str) -> str:
    """What the guard says on a machine whose public addresses are 93.184.216.34 and 2606:2800:220::34."""
    script = (
        "busybox ip link set lo up; busybox ip address add 93.184.216.34/32 dev lo; "
        'busybox ip address add 2606:2800:220::34/128 dev lo; exec "$@"'
    )
    command = ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", _ASK, address, *opened]
    done = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_machines_own_public_addresses_are_refused_unless_opened() -> None:
    for address in ("93.184.216.34", "2606:2800:220::34"):
        assert "it leads to this machine" in asked(address)
        assert address in asked(address, address)
    assert "93.184.216.35" in asked("93.184.216.35"), "a neighbour's is an ordinary one"


def test_an_address_is_own_without_being_told() -> None:
    assert own(ip_address("127.0.0.1"))
    assert not own(ip_address("93.184.216.34"))


def test_uris_have_networks_of_their_own(settings: Any) -> None:
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = ["10.0.0.0/8"]
    settings.GANTRY_URI_ALLOW_NETWORKS = []
    assert permitted("x.example", ["10.1.2.3"], "callback")
    with pytest.raises(AddressRefused, match="GANTRY_URI_ALLOW_NETWORKS"):
        permitted("x.example", ["10.1.2.3"], "uri")


def test_the_setting_of_uris_does_not_follow_that_of_callbacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from config import settings as s; print(s.GANTRY_URI_ALLOW_NETWORKS)"],
        cwd=BASE_DIR,
        env={"GANTRY_CALLBACK_ALLOW_NETWORKS": "10.0.0.0/8", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_containers_do_not_reach_what_the_guard_calls_metadata(settings: Any) -> None:
    """One list for both, whatever an operator adds; names are still found (port 53)."""
    settings.GANTRY_CONTAINER_DENY_NETWORKS = []
    rules = firewall._rules("gantry00000000", ("IN", "OUT"))
    for address in METADATA:
        if address.version == 4:
            assert f"-A OUT -d {address}/32 {firewall._REJECT}" in rules, address
    names = "-A OUT -d 168.63.129.16/32 -p udp -m udp --dport 53 -j RETURN"
    assert rules.index(names) < rules.index(f"-A OUT -d 168.63.129.16/32 {firewall._REJECT}")
