"""System checks: what is wrong or weak in the settings is named, with the fix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from config import checks
from tests.support.waiting import limit

ROOT = Path(__file__).resolve().parents[3]


def test_missing_and_malformed_secret_keys(settings: Any) -> None:
    settings.GANTRY_SECRET_KEYS = []
    (missing,) = checks.secret_keys()
    assert missing.id == "gantry.W001"
    assert missing.hint is not None
    assert "python3 -c" in missing.hint
    good = Fernet.generate_key().decode()
    settings.GANTRY_SECRET_KEYS = [good, "short", good, "%" * 44]
    found = checks.secret_keys()
    assert [(item.id, item.msg.split()[1]) for item in found] == [("gantry.E001", "2"), ("gantry.E001", "4")]
    assert all(good not in item.msg for item in found)
    settings.GANTRY_SECRET_KEYS = [good]
    assert checks.secret_keys() == []


@pytest.mark.parametrize(
    "name",
    [
        "GANTRY_TRUSTED_NETWORKS",
        "GANTRY_TRUSTED_PROXIES",
        "GANTRY_CALLBACK_ALLOW_NETWORKS",
        "GANTRY_URI_ALLOW_NETWORKS",
    ],
)
def test_an_unreadable_network_is_an_error_that_names_its_setting(settings: Any, name: str) -> None:
    setattr(settings, name, ["10.0.0.300/8=default"])
    (found,) = checks.network_lists()
    assert found.id == "gantry.E002"
    assert name in found.msg
    assert found.is_serious()


def test_trusted_networks_are_a_warning(settings: Any) -> None:
    assert checks.network_lists() == []
    settings.GANTRY_TRUSTED_NETWORKS = ["10.0.0.0/8=default"]
    (found,) = checks.network_lists()
    assert found.id == "gantry.W002"
    assert "10.0.0.0/8" in str(found.hint)


@pytest.mark.parametrize(("number", "errors"), [(-1, 1), (0, 1), (1, 1), (2, 0), (4096, 0)])
def test_a_command_needs_processes(settings: Any, number: int, errors: int) -> None:
    """Catches a node that takes work of which nothing could start."""
    settings.GANTRY_COMMAND_PROCESSES = number
    found = [item for item in checks.all_settings() if item.id == "gantry.E003"]
    assert len(found) == errors
    assert all(f"is {number}:" in item.msg for item in found)


def test_an_unreadable_registry_is_an_error(settings: Any) -> None:
    """Catches a setting with which every container would be refused, or none."""
    settings.GANTRY_REGISTRIES = [
        "ghcr.io",
        "https://quay.io",
        "gitlab.example:5050=gitlab.example",
        "http://x=any",
    ]
    (found,) = [item for item in checks.all_settings() if item.id == "gantry.E006"]
    assert found.is_serious()
    assert "'https://quay.io'" in found.msg
    settings.GANTRY_REGISTRIES = ["any"]
    assert checks.opened_registries() == []


def test_weak_settings(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", "x" * 50)
    settings.TOKEN_CACHE_S = 5
    assert checks.weak_settings() == []
    monkeypatch.delenv("DJANGO_SECRET_KEY")
    settings.ALLOWED_HOSTS = ["*"]
    settings.TOKEN_CACHE_S = 600
    assert [item.id for item in checks.weak_settings()] == ["gantry.W003", "gantry.W004", "gantry.W005"]


def test_the_api_does_not_start_with_an_unreadable_setting(settings: Any) -> None:
    settings.GANTRY_TRUSTED_NETWORKS = ["everywhere=default"]
    with pytest.raises(ImproperlyConfigured, match="GANTRY_TRUSTED_NETWORKS"):
        checks.warn_at_start()


def test_check_deploy_is_clean_in_a_production_like_environment() -> None:
    environment = {
        **os.environ,
        "DJANGO_SECRET_KEY": "kJ4-" * 20 + "Zq9_abcdefXYZ",
        "GANTRY_SECRET_KEYS": Fernet.generate_key().decode(),
        "GANTRY_HTTPS": "1",
        "GANTRY_ALLOWED_HOSTS": "gantry.example.org",
        "GANTRY_TOKEN_CACHE_S": "5",
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit(180),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
