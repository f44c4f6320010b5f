"""Addresses and methods that nobody expects: answered with 4xx and a sentence, never with 500."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from django.test import Client

from config.http import openapi
from tests.integration.api.walk import METHODS, routes
from tests.integration.conftest import Api
from tests.support.engine import submit
from tests.support.fixtures import Account
from workers.logs import signed_urls

ODD = (
    *(
        "http://[::1",
        "http://[::1]x:80/",
        "http://h:99999/",
        "http://h:x/",
        "http://[v1.x]/",
        "//[",
        "[::1]:5000/x",
    ),
    *(
        "http://\u2100/",
        "http://h\uff0fx/",
        "http://xn--\u00fc/",
        "::ffff:1.2.3.4%eth0",
        "1e400",
        "9" * 400,
        "\ud800",
    ),
)


def test_a_signed_url_is_for_reading(api: Api, account: Account) -> None:
    run_id = submit(account.tenant_id, "true")
    url = signed_urls.log_url(f"/v1/tasks/{run_id}/logs", "stdout").partition("/v1")[2]
    client = Client()
    for method in (*METHODS, "BREW"):
        answer = client.generic(method, f"/v1{url}")
        assert answer.status_code == (200 if method in ("GET", "HEAD", "OPTIONS") else 405), method


@pytest.mark.django_db(transaction=True)
def test_odd_addresses_in_every_parameter_and_every_method_of_every_route(operator: Account) -> None:
    """Catches ?receiver=http://[::1, and whatever else takes an address apart and finds that it is none."""
    document = json.loads(openapi.document(""))
    client = Client(raise_request_exception=False)
    odd = [quote(value.encode(errors="surrogatepass")) for value in ODD]
    asked = 0

    def ask(method: str, path: str) -> None:
        nonlocal asked
        answer = client.generic(method, path, headers=operator.headers)
        assert answer.status_code != 500, (method, path, answer.content)
        answer.close()
        asked += 1

    for number, route in enumerate(routes()):
        for method in (*METHODS, "BREW"):
            path = route.path
            for name in route.names:
                path = path.replace("{" + name + "}", odd[(number + len(method)) % len(odd)])
            ask(method, path)
        get = document["paths"].get(route.path, document["paths"].get(route.path + "/", {})).get("get", {})
        for parameter in get.get("parameters", ()):
            if parameter["in"] == "query":
                path = route.path
                for name in route.names:
                    path = path.replace("{" + name + "}", "1")
                for value in odd:
                    ask("GET", f"{path}?{parameter['name']}={value}")
    assert asked > 2000
