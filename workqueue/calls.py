"""What the family's views share: who asks, and one thing per Idempotency-Key. Must not import models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from workers.api.answers import answer
from workers.tenants import idempotency
from workers.tenants.identity import Identity
from workqueue.who import Who


class WorkqueueView(APIView):
    """Base: which scope each method needs (read by config.http.authentication), and who asks."""

    scopes: ClassVar[dict[str, str]] = {"GET": "read", "POST": "submit", "PUT": "submit", "DELETE": "submit"}
    #: Is it mounted at v1.1, with the later client's shapes?
    later: ClassVar[bool] = False

    def who(self) -> Who:
        """Whom this request acts for; authentication has set it."""
        found = cast(Identity, self.request.auth)
        return Who(found.tenant_id, found.user_id, found.operates, "pull_workers" in found.allowed)

    def body(self) -> dict[str, Any]:
        """What was sent: a JSON object, or nothing, which names nothing."""
        return cast(dict[str, Any], self.request.data)

    def once(self, request: Request, make: Callable[[], tuple[int, dict[str, Any]]]) -> HttpResponse:
        """What ``make`` answers; made once per Idempotency-Key of a user if the request has one."""
        who = self.who()
        status, body, _ = idempotency.for_request(request._request, who.tenant_id, who.user_id, make)
        return answer(body, status)
