"""docs/operations.md against what it speaks of: settings, variables, metrics, events, links."""

from __future__ import annotations

import re

import pytest

from config import start
from tests.support.cluster import ROOT
from workers.tenants import policy

PAGE = (ROOT / "docs" / "operations.md").read_text()
#: Read by the launcher, which knows no settings.
_LAUNCHER = {"GANTRY_UID_BASE"}


def _table() -> set[str]:
    settings = PAGE.partition("\n## Settings\n")[2]
    return set(re.findall(r"^\| ([A-Z_]+)(?: \*)? \|", settings, re.MULTILINE))


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    """Catches a setting that no operator can find, and one that does not exist any more."""
    settings = (ROOT / "config" / "settings.py").read_text()
    starts = (ROOT / "config" / "start.py").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', settings))
    read |= set(re.findall(r'"(GANTRY_[A-Z_]+)"', starts)) | set(start.SECRETS)
    assert _table() == read | _LAUNCHER


def test_the_table_says_which_may_be_in_a_file() -> None:
    assert set(re.findall(r"^\| ([A-Z_]+) \* \|", PAGE, re.MULTILINE)) == set(start.SECRETS)


def test_every_variable_of_the_compose_file_is_told() -> None:
    """Catches a variable of docker-compose.yml that is documented nowhere."""
    asked = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    told = set(re.findall(r"GANTRY_[A-Z_]+", PAGE.partition("What docker-compose.yml itself")[2]))
    assert asked == told


def test_every_metric_is_told() -> None:
    made = set(re.findall(r'"(gantry_\w+)"', (ROOT / "config" / "http" / "metrics.py").read_text()))
    missing = {name for name in made if name not in PAGE}
    assert not missing


def test_every_event_that_is_explained_exists() -> None:
    folders = (ROOT / "workers", ROOT / "config")
    source = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    table = PAGE.partition("\n## Reading logs\n")[2].partition("\n## ")[0]
    told = re.findall(r"\b[a-z]+\.[a-z_]+\b", "".join(re.findall(r"^\| ([a-z][^|]*)\|", table, re.MULTILINE)))
    assert told
    assert not [event for event in told if f'"{event}"' not in source]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(#([a-z-]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    titles = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    assert link in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["README.md", "docs/security.md"])
def test_what_a_policy_opens_for_execs_is_told(page: str) -> None:
    """Catches exec_privileged, which every job of the original's page needs, in no document."""
    assert "exec_privileged" in (ROOT / page).read_text()


def test_every_policy_that_is_off_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    off = {key for key, (default, _) in policy.KEYS.items() if not default}
    assert off == {key for key in off if f"| {key} |" in text}
