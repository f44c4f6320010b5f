"""Headers and addresses that say two things, or nothing that can be read: 400 before anything is done."""

from __future__ import annotations

from tests.security.wire import exchange
from tests.support.cluster import Cluster
from tests.support.fixtures import make_account
from workers.models import Run

BODY = b'{"taskName": "wire", "commands": "true"}'
POST = f"POST /v1/tasks HTTP/1.1\r\nContent-Length: {len(BODY)}"


def test_headers_and_addresses_that_say_two_things(cluster: Cluster) -> None:
    """Catches two URLs that the server joins into one, and a key that is neither of the two."""
    api, account = cluster.api(threads=2, GANTRY_TRUSTED_PROXIES="127.0.0.1/32"), make_account("default")

    def refused(*headers: str, status: int = 400) -> None:
        told, text = exchange(api, account, "\r\n".join([POST, *headers]), BODY)
        assert told == status, (headers, text)
        if status == 400:
            assert headers[0].partition(":")[0] in text.decode(), (headers, text)

    for name, first, second in (
        ("X-Callback-Url", "http://one.example/", "http://two.example/"),
        ("X-Callback-Url", "http://one.example/", ""),
        ("Last-Event-ID", "1:0:0", "1:9:9"),
        ("Range", "bytes=0-1", "bytes=5-6"),
    ):
        refused(f"{name}: {first}", f"{name}: {second}")
    refused("X-Tenant-Id: default", "X-Tenant-Id: default", status=403)
    refused(f"Authorization: Bearer {account.token}", status=401)  # beside the one that is always sent
    for more in ("Content-Length: 7", "Host: two.example"):
        told, _ = exchange(api, account, f"{POST}\r\n{more}", BODY)
        assert told in (0, 400), more
    assert not Run.objects.exists()
    for fine in (
        "Range: bytes=0-1,5-6",
        "X-Callback-Url: http://one.example/a,b?c=d,e",
        "Idempotency-Key: a,b",
    ):
        told, text = exchange(api, account, f"{POST}\r\n{fine}", BODY)
        assert told == 200, text

    def an_underscore_gives_a_body_no_other_length_or_type() -> None:
        told, text = exchange(api, account, f"{POST}\r\nContent_Length: 3\r\nContent_Type: text/html", BODY)
        assert told == 200, text

    def an_underscore_makes_another_header() -> None:
        """Catches a client that gets past a proxy which sets or removes the real one."""
        read = "GET /api/v1/me HTTP/1.1"
        assert exchange(api, None, f"{read}\r\nX_Token: {account.token}")[0] == 401
        both = f"{read}\r\nX_Token: gnt_x\r\nX-Token: {account.token}\r\nX_Token: gnt_y"
        assert exchange(api, None, both)[0] == 200
        assert exchange(api, account, f"{read}\r\nX_Tenant_Id: elsewhere")[0] == 200
        assert exchange(api, account, f"{read}\r\nX_Tenant_Id: default\r\nX-Tenant-Id: elsewhere")[0] == 403
        assert (
            exchange(api, account, f"{POST}\r\nX_Callback_Url: nonsense\r\nIdempotency_Key: k", BODY)[0]
            == 200
        )
        first, second = (exchange(api, account, f"{POST}\r\nIdempotency_Key: k", BODY)[1] for _ in range(2))
        assert first != second
        told = [
            exchange(api, None, f"GET /api/v1/me HTTP/1.1\r\nX_Forwarded_For: 192.0.2.{n}\r\nX-Token: g")
            for n in range(70)
        ]
        assert told[-1][0] == 429, "guesses of one address are one address' guesses"

    def too_many_parameters_are_refused_before_anything_is_done() -> None:
        """Catches a change that is carried out, answered 400 and not audited."""
        made = Run.objects.count()
        for count, wanted in ((1000, 200), (1001, 400), (5000, 400)):
            query = "&".join(f"p{number}=1" for number in range(count))
            told, text = exchange(api, account, POST.replace("/v1/tasks", f"/v1/tasks?{query}"), BODY)
            assert told == wanted, text
        assert Run.objects.count() == made + 1

    an_underscore_gives_a_body_no_other_length_or_type()
    too_many_parameters_are_refused_before_anything_is_done()
    an_underscore_makes_another_header()
