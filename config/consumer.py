"""Celery's consumer, with events sent ten times a second instead of after every message, and without acks.

Flower shows runs by these events; sending each group of one to three by itself cost a sixth of a worker's
CPU, and so did acknowledging messages of a queue that is consumed without acknowledgements (measured,
docs/decisions/0002). Used by name: setting ``worker_consumer``. Must not import the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker import consumer

#: The stubs of Celery know only a part of this class.
_Consumer: Any = consumer.Consumer

_FLUSH_S = 0.1
#: Events kept until then at most; beyond it Celery sends at once.
_BUFFER = 2000


def _no_ack(*_: Any, **__: Any) -> None:
    """Nothing waits for this acknowledgement."""


class CoalescingConsumer(_Consumer):  # type: ignore[misc]
    """Sends buffered task events every _FLUSH_S seconds, and no acknowledgements."""

    _planned = False

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            # kombu's virtual transports would send an ack even for a queue with no_ack.
            message.ack_log_error = _no_ack
            handle(message)

        return on_task_received

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
