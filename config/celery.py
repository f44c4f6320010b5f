"""The Celery application. Messages only wake: JSON, early acks, no results, no ETA, no canvas.

Facts behind each option are in docs/decisions/0002. Must not import families.
"""

from __future__ import annotations

import os
import warnings

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from django.conf import settings

#: Socket options for every connection to Redis: a silent broker may cost milliseconds, never minutes.
TRANSPORT_OPTIONS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "visibility_timeout": 31_536_000,
    "max_retries": 0,
}

app = Celery("gantry", amqp="config.broker:QuietAmqp")
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options=TRANSPORT_OPTIONS,
    task_serializer="json",
    accept_content=["json"],
    result_backend=None,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_acks_late=False,
    task_publish_retry=False,
    task_send_sent_event=False,
    worker_prefetch_multiplier=1,
    worker_consumer="config.consumer:CoalescingConsumer",
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_send_task_events=True,
    task_default_queue="gantry",
    task_create_missing_queues=True,
    timezone="UTC",
    enable_utc=True,
)
# Said at each lost connection, six lines long, also to those who have chosen as we have above.
warnings.filterwarnings("ignore", r"\s*In Celery 5\.1 we introduced", CPendingDeprecationWarning)
app.autodiscover_tasks(["workers"])
