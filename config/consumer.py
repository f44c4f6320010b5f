"""Celery's consumer, with events sent ten times a second instead of after every message.

Flower shows runs by these events; sending each group of one to three by itself cost a sixth of a worker's
CPU (measured, docs/decisions/0002). Used by name: setting ``worker_consumer``. Must not import the engine.
"""

from __future__ import annotations

from typing import Any

from celery.worker import consumer

#: The stubs of Celery know only a part of this class.
_Consumer: Any = consumer.Consumer

_FLUSH_S = 0.1
#: Events kept until then at most; beyond it Celery sends at once.
_BUFFER = 2000


class CoalescingConsumer(_Consumer):  # type: ignore[misc]
    """Sends buffered task events every _FLUSH_S seconds."""

    _planned = False

    def on_send_event_buffered(self) -> None:
        if self.hub and not self._planned:
            self._planned = True
            self.hub.call_soon(self._plan)

    def _plan(self) -> None:
        if self.event_dispatcher:
            self.event_dispatcher.buffer_limit = _BUFFER
        self.hub.call_later(_FLUSH_S, self._flush)

    def _flush(self, *_: Any) -> None:
        self._planned = False
        self._flush_events()
