"""WSGI entry point of the API (granian serves it)."""

import gc
import os
from importlib import import_module
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)

from config.http import bodies  # noqa: E402  after Django's setup
from workers.tenants import audit  # noqa: E402


class ApiRequest(WSGIRequest):
    """Django reads addresses in the charset that the body is declared in, and ends without any answer on some
    Content-Types. Here addresses are UTF-8, and a body's charset is its parser's business."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type = str(meta.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
        self.content_params = {}


class ApiHandler(WSGIHandler):
    """Django's handler, with a gate before bodies."""

    request_class = ApiRequest

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        # Only headers named with an underscore make these two.
        for name in ("HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"):
            environ.pop(name, None)
        bodies.gated(environ)
        return super().__call__(environ, start_response)


application = ApiHandler()
audit.start()
# What is loaded stays: a full collection, every hundred requests or so, would look at all of it, for 50 ms.
import_module(settings.ROOT_URLCONF)
gc.collect()
gc.freeze()
