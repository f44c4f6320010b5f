"""/metrics in Prometheus' text form: this process's requests, and the engine's gauges read from the database.

Nothing here costs more as finished runs pile up: only waiting and running ones and nodes are counted. No
label names a tenant. Must not import views of families.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.db import connection
from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]
_registry = CollectorRegistry()
_requests = Counter(
    "gantry_http_requests", "Requests answered by this API process.", ["family", "status"], registry=_registry
)
_children: dict[tuple[str, int], Counter] = {}


def count(family: str, status: int) -> None:
    """Count one answer. Each (family, status class) keeps its counter at hand: every request comes here."""
    key = (family, status // 100)
    child = _children.get(key)
    if child is None:
        child = _children.setdefault(key, _requests.labels(family, f"{status // 100}xx"))
    child.inc()


_WAITING: Final = """
    SELECT family, count(*), extract(epoch FROM now() - min(created_at))
      FROM workers_run WHERE state = 'PENDING' GROUP BY family
"""
_RUNNING: Final = "SELECT family, count(*) FROM workers_run WHERE state = 'RUNNING' GROUP BY family"
_NODES: Final = """
    SELECT name, mode, cpu_m_total, cpu_m_used, mem_mb_total, mem_mb_used, slots_used,
           extract(epoch FROM now() - heartbeat_at)
      FROM workers_node WHERE mode <> 'removed' ORDER BY name
"""


#: Waiting ones stand in two partial indexes, dead ones in a third; delivered ones are counted by who did it.
_CALLBACKS: Final = """
    SELECT (SELECT count(*) FROM workers_callback WHERE state = 'due' AND next_at IS NOT NULL)
             + (SELECT count(*) FROM workers_callback WHERE state = 'due' AND next_at IS NULL),
           (SELECT count(*) FROM workers_callback WHERE state = 'dead'),
           (SELECT extract(epoch FROM now() - min(created_at)) FROM workers_callback
             WHERE state = 'due' AND next_at IS NOT NULL)
"""
_DELIVERERS: Final = """
    SELECT coalesce(sum(delivered), 0), coalesce(sum(failed), 0), coalesce(sum(dead), 0),
           extract(epoch FROM now() - max(heartbeat_at)) FROM workers_deliverer
"""


class _Engine(Collector):
    """Asks the database when it is scraped."""

    def collect(self) -> Iterable[Metric]:
        yield from _runs()
        yield from _nodes()
        yield from _callbacks()


def _runs() -> Iterable[Metric]:
    runs = GaugeMetricFamily(
        "gantry_runs", "Runs that have not ended, by family and state.", labels=["family", "state"]
    )
    oldest = GaugeMetricFamily(
        "gantry_oldest_pending_seconds", "Age of the oldest waiting run, by family.", labels=["family"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_WAITING)
        for family, number, age in cursor.fetchall():
            runs.add_metric([family, "pending"], number)
            oldest.add_metric([family], float(age))
        cursor.execute(_RUNNING)
        for family, number in cursor.fetchall():
            runs.add_metric([family, "running"], number)
    return runs, oldest


def _nodes() -> Iterable[Metric]:
    gauges = {
        "cpus": GaugeMetricFamily("gantry_node_cpus", "CPUs that the node offers.", labels=["node"]),
        "cpus_used": GaugeMetricFamily("gantry_node_cpus_used", "CPUs reserved by runs.", labels=["node"]),
        "memory": GaugeMetricFamily(
            "gantry_node_memory_bytes", "Memory that the node offers.", labels=["node"]
        ),
        "memory_used": GaugeMetricFamily(
            "gantry_node_memory_used_bytes", "Memory reserved by runs.", labels=["node"]
        ),
        "runs": GaugeMetricFamily("gantry_node_runs", "Runs on the node.", labels=["node"]),
        "age": GaugeMetricFamily(
            "gantry_node_heartbeat_age_seconds", "Since the last heartbeat.", labels=["node"]
        ),
        "ready": GaugeMetricFamily(
            "gantry_node_takes_work", "1 if an operator lets it take work.", labels=["node"]
        ),
    }
    with connection.cursor() as cursor:
        cursor.execute(_NODES)
        for name, mode, cpu, cpu_used, mem, mem_used, slots_used, age in cursor.fetchall():
            values = {
                "cpus": cpu / 1000,
                "cpus_used": cpu_used / 1000,
                "memory": mem * 1024 * 1024,
                "memory_used": mem_used * 1024 * 1024,
                "runs": slots_used,
                "age": float(age),
                "ready": 1.0 if mode == "ready" else 0.0,
            }
            for key, value in values.items():
                gauges[key].add_metric([name], value)
    return gauges.values()


def _callbacks() -> Iterable[Metric]:
    now = GaugeMetricFamily("gantry_callbacks", "Callbacks that are due or dead now.", labels=["state"])
    oldest = GaugeMetricFamily("gantry_oldest_due_callback_seconds", "Age of the oldest due callback.")
    done = CounterMetricFamily(
        "gantry_callback_deliveries",
        "What deliverers have done, as of their last heartbeats.",
        labels=["result"],
    )
    heard = GaugeMetricFamily("gantry_deliverer_heartbeat_age_seconds", "Since any deliverer was heard.")
    with connection.cursor() as cursor:
        cursor.execute(_CALLBACKS)
        due, dead, age = cursor.fetchone()
        cursor.execute(_DELIVERERS)
        delivered, failed, given_up, silence = cursor.fetchone()
    now.add_metric(["due"], due)
    now.add_metric(["dead"], dead)
    oldest.add_metric([], float(age or 0))
    for result, number in (("delivered", delivered), ("failed", failed), ("dead", given_up)):
        done.add_metric([result], float(number))
    if silence is not None:
        heard.add_metric([], float(silence))
    return now, oldest, done, heard


_registry.register(_Engine())


def page() -> tuple[bytes, str]:
    """The whole text and its Content-Type."""
    return generate_latest(_registry), CONTENT_TYPE
