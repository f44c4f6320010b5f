"""What a container is made of: from a ContainerSpec and the image's facts to the body of the create call.

Pure: no engine, no database, no Django. Hardened by default (docs/decisions/0021): no capabilities, no new
privileges, limits on memory, CPU, processes and files; what a policy opened comes checked in the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from workers.runtimes.engine.image import Image
from workers.vocabulary import docker_options
from workers.vocabulary.docker_options import Options
from workers.vocabulary.specs import ContainerSpec

#: Where a container finds its scratch folder: the path that programs written for Mesos know.
SANDBOX: Final = "/mnt/mesos/sandbox"
_CPU_PERIOD_US: Final = 100_000
_LEAST_QUOTA_US: Final = 1000
_PIDS: Final = 4096
NOFILE_MOST: Final = 65_536
#: How the engine keeps output until it is read: not in json-file, which replaces what is not UTF-8.
_LOG: Final = {"Type": "local", "Config": {"max-size": "32m", "max-file": "4", "compress": "false"}}
_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Place:
    """Where the container will stand. ``user`` is forced on images that name none; ``bridge`` is the network
    that BRIDGE means."""

    labels: Mapping[str, str]
    sandbox: str
    user: str = ""
    bridge: str = "bridge"
    #: Open files that a process here may have at most: an engine without the right to exceed its own limit
    #: refuses more.
    nofile: int = NOFILE_MOST


def create_body(spec: ContainerSpec, image: Image, place: Place) -> dict[str, Any]:
    """The JSON of POST /containers/create. Raises docker_options.BadParameter."""
    options = docker_options.parse(spec.parameters)
    if spec.network == "USER" and not options.network:
        raise docker_options.BadParameter(
            "net is USER: name the network with a parameter, {key: network, value: <its name>}"
        )
    environment = {"MESOS_SANDBOX": SANDBOX, "GANTRY_SANDBOX": SANDBOX, **spec.env, **options.env}
    body: dict[str, Any] = {
        "Image": image.id,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {**options.labels, **place.labels},
        "StopSignal": "SIGTERM",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": _host_config(spec, options, place),
        **options.config,
    }
    if spec.args:
        body["Cmd"] = list(spec.args)
    if "WorkingDir" not in body and (spec.uris or not image.working_dir):
        body["WorkingDir"] = SANDBOX
    if "User" not in body and not image.user and place.user:
        body["User"] = place.user
    if spec.ports and spec.network in ("BRIDGE", "USER"):
        body["ExposedPorts"] = {_port(item): {} for item in spec.ports}
    if options.aliases and spec.network == "USER":
        body["NetworkingConfig"] = {"EndpointsConfig": {options.network: {"Aliases": options.aliases}}}
    return body


def _host_config(spec: ContainerSpec, options: Options, place: Place) -> dict[str, Any]:
    memory = spec.mem_mb * _MIB
    networks = {"BRIDGE": place.bridge, "HOST": "host", "NONE": "none", "USER": options.network}
    host: dict[str, Any] = {
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "NetworkMode": networks[spec.network],
        "Init": True,
        "LogConfig": _LOG,
        "Memory": memory,
        "MemorySwap": memory,
        # Not NanoCpus: the engine refuses more of those than it has itself.
        "CpuPeriod": _CPU_PERIOD_US,
        "CpuQuota": max(spec.cpu_m * _CPU_PERIOD_US // 1000, _LEAST_QUOTA_US),
        "PidsLimit": _PIDS,
        "Mounts": [{"Type": "bind", "Source": place.sandbox, "Target": SANDBOX}, *_volumes(spec)],
    }
    added = dict(options.host)
    limits = {item["Name"]: item for item in added.pop("Ulimits", ())}
    nofile = min(place.nofile, NOFILE_MOST)
    host["Ulimits"] = list({"nofile": {"Name": "nofile", "Soft": nofile, "Hard": nofile}, **limits}.values())
    if spec.privileged:
        host["Privileged"] = True
    else:
        host["CapDrop"] = ["ALL"]
        security = added.pop("SecurityOpt", [])
        wanted = [item for item in security if not item.startswith("no-new-privileges")]
        said = [item for item in security if item.startswith("no-new-privileges")]
        host["SecurityOpt"] = [*wanted, said[-1] if said else "no-new-privileges"]
        added.pop("CapDrop", None)
    if spec.ports and spec.network in ("BRIDGE", "USER"):
        bindings: dict[str, list[dict[str, str]]] = {}
        for item in spec.ports:
            outside = str(item["host_port"]) if item["host_port"] else ""
            bindings.setdefault(_port(item), []).append({"HostPort": outside})
        host["PortBindings"] = bindings
    return {**host, **added}


def _volumes(spec: ContainerSpec) -> list[dict[str, Any]]:
    """Binds by ``Mounts``: a path that is not there is an error, the engine does not make it as root."""
    return [
        {
            "Type": "bind",
            "Source": item["host_path"],
            "Target": item["container_path"],
            "ReadOnly": item.get("mode") == "RO",
        }
        for item in spec.volumes
    ]


def _port(item: Mapping[str, Any]) -> str:
    return f"{item['container_port']}/{item.get('protocol', 'tcp')}"


def published(spec: ContainerSpec, inspected: Mapping[str, Any]) -> str:
    """Which port of the node each asked port got, in words; empty when none is published."""
    found = (inspected.get("NetworkSettings") or {}).get("Ports") or {}
    told = []
    for item in spec.ports:
        for binding in found.get(_port(item)) or ():
            text = f"port {_port(item)} is published on {binding.get('HostPort')}"
            if text not in told:
                told.append(text)
    return ", ".join(told)


def ran_s(state: Mapping[str, Any]) -> float:
    """Seconds from start to end, by the engine's clock; never negative, 0 when it is not known."""
    try:
        started, finished = (_time(state[name]) for name in ("StartedAt", "FinishedAt"))
    except (KeyError, ValueError):
        return 0.0
    return max(0.0, finished - started)


def _time(text: str) -> float:
    seconds, _, rest = text.rstrip("Z").partition(".")
    whole = datetime.strptime(seconds, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    return whole + float(f"0.{rest or 0}")
