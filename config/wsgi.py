"""WSGI entry point of the API (granian serves it)."""

import os
from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class ApiRequest(WSGIRequest):
    """Django reads addresses in the charset that the body is declared in, and ends without any answer on some
    Content-Types. Here addresses are UTF-8, and a body's charset is its parser's business."""

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type = str(meta.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
        self.content_params = {}


application: WSGIHandler = get_wsgi_application()
application.request_class = ApiRequest
