"""Places for long answers: a total, a share for each tenant, a share for each signed URL."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from config.serving.places import Place, Places
from workers.vocabulary.errors import Unavailable


def test_everybody_has_a_share_and_no_more(settings: Settings) -> None:
    """Catches a tenant, or a URL that somebody passed on, that leaves nothing to others."""
    settings.GANTRY_LONG_ANSWERS = 5
    settings.GANTRY_LONG_ANSWERS_TENANT = 3
    settings.GANTRY_LONG_ANSWERS_URL = 2
    places = Places()

    def refused(tenant: str, url: str, setting: str) -> None:
        with pytest.raises(Unavailable, match=rf"\({setting}\)") as caught:
            places.take(tenant, url)
        assert caught.value.retry_after == 5

    held: list[Place] = [places.take("a", "u"), places.take("a", "u")]
    refused("a", "u", "GANTRY_LONG_ANSWERS_URL")
    held.append(places.take("a", ""))
    refused("a", "", "GANTRY_LONG_ANSWERS_TENANT")
    refused("a", "v", "GANTRY_LONG_ANSWERS_TENANT")
    held += [places.take("b", ""), places.take("", "")]
    refused("c", "", "GANTRY_LONG_ANSWERS")
    held[0].give_back()
    held[0].give_back()
    assert places.taken == 4, "once, however often it is given back"
    held[0] = places.take("a", "u")
    for place in held:
        place.give_back()
    assert (places.taken, dict(places._of)) == (0, {})
