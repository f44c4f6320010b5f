"""What a worker process is made of: capacity, runtimes, registration, agent.

Used by ``manage.py node``. Must not import families.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from workers.launcher.isolation import NAMESPACES, UIDS
from workers.messages.handover import CeleryPublisher
from workers.node import clearance, registration
from workers.node.agent import Agent
from workers.node.offers import storage_attributes
from workers.node.registration import ENGINE_ATTRIBUTE, Capacity, Registration, register
from workers.runtimes.base import Runtime
from workers.runtimes.container.runtime import ContainerRuntime
from workers.runtimes.engine.client import Address, Engine
from workers.runtimes.exec.runtime import ExecRuntime
from workers.runtimes.process.runtime import ProcessRuntime
from workers.runtimes.transfer.runtime import TransferRuntime
from workers.scheduling.obstacles import ISOLATION_ATTRIBUTE, NODE_ATTRIBUTE

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def machine_cpus() -> float:
    """CPUs that this process may use."""
    return float(len(os.sched_getaffinity(0)))


def machine_mem_mb() -> int:
    """Memory of the machine in MiB, less a tenth for the system."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return int(pages * size * 0.9) // (1024 * 1024)


def attributes() -> dict[str, str]:
    """hostname and what GANTRY_NODE_ATTRIBUTES adds ("rack_id=r1,zone=a"); names in lower case.

    ``engine_id`` joins them where a Docker Engine answers.
    ``node`` is the node's own name: the constraint by which a run is meant for one node and no other.
    """
    found = {"hostname": socket.gethostname()}
    for item in settings.GANTRY_NODE_ATTRIBUTES:
        name, sign, value = item.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise ImproperlyConfigured(
                f"GANTRY_NODE_ATTRIBUTES has {item!r}: write name=value, e.g. rack_id=r1"
            )
        found[name.strip().lower()] = value.strip()
    return {**found, NODE_ATTRIBUTE: settings.GANTRY_NODE_NAME}


def build_runtimes() -> dict[str, Runtime]:
    """The runtimes that work here and are not excluded by GANTRY_RUNTIMES; says why one is left out."""
    wanted = set(settings.GANTRY_RUNTIMES)
    built: dict[str, Runtime] = {}
    if not wanted or "process" in wanted:
        if os.geteuid() != 0 and not settings.GANTRY_COMMANDS_UNISOLATED:
            log.warning(
                "runtime.left_out",
                runtime="process",
                why="this worker is not root, and GANTRY_COMMANDS_UNISOLATED=0 forbids commands as its user",
            )
        else:
            if os.geteuid() != 0:
                log.warning(
                    "runtime.unisolated",
                    runtime="process",
                    why="this worker is not root: commands run as its own user and can read what it can read",
                    fix="run the worker as root, or set GANTRY_COMMANDS_UNISOLATED=0",
                )
            built["process"] = ProcessRuntime(settings.GANTRY_NODE_DIR, clearance.permit)
    on_engine = {"container", "exec"}
    engine = _engine(asked_for=bool(on_engine & wanted)) if not wanted or on_engine & wanted else None
    if engine is not None and (not wanted or "container" in wanted):
        built["container"] = ContainerRuntime(
            settings.GANTRY_NODE_DIR,
            engine,
            registration.installation(),
            settings.GANTRY_NODE_NAME,
            registration.container_key(),
            clearance.clear,
        )
    if engine is not None and (not wanted or "exec" in wanted):
        built["exec"] = ExecRuntime(
            settings.GANTRY_NODE_DIR, engine, registration.installation(), settings.GANTRY_NODE_NAME
        )
    if not wanted or "transfer" in wanted:
        built["transfer"] = TransferRuntime(settings.GANTRY_NODE_DIR)
    unknown = wanted - {"process", "container", "exec", "transfer"}
    if unknown:
        raise ImproperlyConfigured(
            f"GANTRY_RUNTIMES names {', '.join(sorted(unknown))}: known are process, container, exec, "
            "transfer"
        )
    return built


def _engine(*, asked_for: bool) -> Engine | None:
    """The Docker Engine of this node: DOCKER_HOST's, or the one at the usual place if there is one."""
    try:
        address = Address.from_environment()
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from error
    if not (asked_for or os.environ.get("DOCKER_HOST") or Path(address.path).exists()):
        log.info(
            "runtime.left_out",
            runtime="container, exec",
            why=f"no Docker Engine at {address.shown}",
            fix="start one, or set DOCKER_HOST, and start this worker again",
        )
        return None
    return Engine(address)


def capacity(runtimes: dict[str, Runtime]) -> Capacity:
    """What this worker offers, from the settings and the machine."""
    engine, swarm_node = _engine_names(runtimes)
    isolation = _isolation(runtimes)
    return Capacity(
        cpu_m=int((settings.GANTRY_NODE_CPUS or machine_cpus()) * 1000),
        mem_mb=settings.GANTRY_NODE_MEM_MB or machine_mem_mb(),
        slots=settings.GANTRY_NODE_SLOTS,
        runtimes=sorted(runtimes),
        attributes={
            **attributes(),
            **({ENGINE_ATTRIBUTE: engine} if engine else {}),
            **(storage_attributes() if "transfer" in runtimes else {}),
            **({ISOLATION_ATTRIBUTE: isolation} if isolation else {}),
            **_bounds(runtimes),
        },
        isolates_users=isolation == NAMESPACES,
        swarm_node_id=swarm_node,
    )


def _isolation(runtimes: dict[str, Runtime]) -> str:
    """How commands are separated here; empty where there are none. Says what is missing (decision 91)."""
    asked = (item for item in runtimes.values() if isinstance(item, ProcessRuntime))
    found = next((item.isolates() for item in asked), "")
    if found == UIDS:
        log.warning(
            "runtime.half_isolated",
            runtime="process",
            why="no namespaces here: each command has a user of its own, but sees others' command lines, "
            "/tmp and world-writable folders",
            meaning="commands of the first tenant only, and of those whose policy says commands_unisolated",
            fix="give the worker SYS_ADMIN (compose: deploy/compose-isolation.yml)",
        )
    return found


def _bounds(runtimes: dict[str, Runtime]) -> dict[str, str]:
    """How this node bounds what commands use."""
    found = runtimes.get("process")
    return found.bounds() if isinstance(found, ProcessRuntime) else {}


def _engine_names(runtimes: dict[str, Runtime]) -> tuple[str, str]:
    """The id of this node's engine, and its Swarm's name for it; empty where there is none, or no answer."""
    asked = (item for item in runtimes.values() if isinstance(item, ContainerRuntime | ExecRuntime))
    return next((item.engine_names() for item in asked), ("", ""))


def _warn_of_a_shared_engine(held: Registration) -> None:
    """One engine belongs to one worker. Not refused: machines that were cloned have one id, too."""
    if others := registration.on_the_same_engine(held):
        log.warning(
            "engine.shared",
            nodes=others,
            why="its memory and CPUs are offered twice, and which private image came with whose credentials "
            "is known to each of these nodes for itself only",
            fix="give each worker its own engine, or leave container out of GANTRY_RUNTIMES on all but one",
        )


def build(app: Any) -> tuple[Agent, Registration]:
    """Register this node and make its agent (not yet started). Raises registration.NameTaken."""
    name = settings.GANTRY_NODE_NAME
    if not _NAME.fullmatch(name):
        raise ImproperlyConfigured(
            f"GANTRY_NODE_NAME is {name!r}: use letters, digits, '.', '_' and '-', at most 100"
        )
    runtimes = build_runtimes()
    held = register(name, settings.GANTRY_NODE_DIR, capacity(runtimes))
    _warn_of_a_shared_engine(held)
    return Agent(held, runtimes, CeleryPublisher(app, name), settings.GANTRY_NODE_SLOTS), held


def free_mb(path: str) -> int:
    """Free space for this process where ``path`` is, in MiB."""
    return shutil.disk_usage(path).free // (1024 * 1024)
