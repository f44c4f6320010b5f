"""Entry point of the API (granian serves it)."""

import gc
import os
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)

from config.serving import sockets  # noqa: E402  after Django's setup
from config.serving.application import Application  # noqa: E402
from workers.tenants import audit  # noqa: E402


class ApiRequest(WSGIRequest):
    """Django reads addresses in the charset that the body is declared in, and ends without any answer on some
    Content-Types. Here addresses are UTF-8, and a body's charset is its parser's business."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type = str(meta.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
        self.content_params = {}


class ApiHandler(WSGIHandler):
    """Django's handler; it tells the request's turn which request it is."""

    request_class = ApiRequest

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        request.META["gantry.turn"].request = request
        return super().get_response(request)


sockets.allow_many()
application = Application(ApiHandler())
audit.start()
# What is loaded stays: a full collection, every hundred requests or so, would look at all of it, for 50 ms.
import_module(settings.ROOT_URLCONF)
gc.collect()
gc.freeze()
