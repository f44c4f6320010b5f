"""``parameters`` of a container: options of ``docker run`` as {key, value}, as in Mesos. Pure.

Checked at submission and again where the container is made. A value is stripped of blanks first, then
compared with what is permitted, never with what is not. What the engine itself decides (names, limits,
logs, restarts) and what has a field and a policy of its own is refused with the way to ask for it. Must not
import Django or the worker's side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from workers.vocabulary.words import split_words

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
#: Labels that begin so are the engine's own.
LABEL_PREFIX: Final = "gantry."


#: A network that somebody made and named. Only digits and a to f would do for a network's id, too, and the
#: engine takes the beginning of one for the whole: the host's own network has an id.
_NETWORK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_NETWORK_ID: Final = re.compile(r"[0-9a-f]+")
#: Networks that the engine, or this service, has made.
_NOT_THEIRS: Final = frozenset({"host", "none", "bridge", "default", "nat", "ingress", "gantry"})
#: The capabilities that the engine gives by itself; more of them is what the policy ``privileged`` is for.
_CAPABILITIES: Final = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
#: Devices that hold nobody else's data and give no way to the host's memory, disks or kernel.
_DEVICE: Final = re.compile(
    r"/dev/(?:null|zero|full|random|urandom|fuse|kvm|net/tun|kfd|nvidia[0-9a-z-]*"
    r"|dri/(?:card|renderD)[0-9]+|infiniband/[a-z]+[0-9]*)"
)
#: Those of a container's own namespaces.
_SYSCTL: Final = re.compile(r"(?:net\.[a-z0-9_.-]+|fs\.mqueue\.[a-z_]+|kernel\.(?:msg|sem|shm)[a-z_]*)")
_SECURITY: Final = re.compile(
    r"no-new-privileges(?:[=:](?:true|false))?|(?:apparmor|label)[=:][A-Za-z0-9_.:=-]+|seccomp[=:].+",
    re.DOTALL,
)


class BadParameter(ValueError):
    """A parameter that cannot be used; the text names it and says what to do."""


@dataclass
class Options:
    """What parameters ask for: parts of the body of the engine's create call."""

    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    #: The user-defined network, for net USER.
    network: str = ""
    #: Network aliases in it.
    aliases: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)

    def add(self, where: dict[str, Any], name: str, value: Any) -> None:
        where.setdefault(name, []).append(value)


def _pair(value: str, sign: str = "=") -> tuple[str, str]:
    name, found, rest = value.partition(sign)
    if not name or not found:
        raise ValueError(f"write NAME{sign}VALUE")
    return name, rest


def _size(value: str) -> int:
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError("write a size such as 64m or 1g")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _size_or_unlimited(value: str) -> int:
    return -1 if value.strip() == "-1" else _size(value)


def _flag(value: str) -> bool:
    if value.strip().lower() in ("true", "1", ""):
        return True
    if value.strip().lower() in ("false", "0"):
        return False
    raise ValueError("write true or false")


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError("write a whole number") from None


def _between(least: int, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        number = _whole(value)
        if not least <= number <= most:
            raise ValueError(f"write a whole number from {least} to {most}")
        return number

    return read


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("it is blank")
    return value.strip()


def _env(options: Options, value: str) -> None:
    name, text = _pair(value)
    options.env[name] = text


def _label(options: Options, value: str) -> None:
    name, _, text = value.partition("=")
    if not name.strip() or name.strip().casefold().startswith(LABEL_PREFIX):
        raise ValueError(f"a label needs a name that does not begin with {LABEL_PREFIX}")
    options.labels[name] = text


def _ulimit(options: Options, value: str) -> None:
    name, text = _pair(value)
    soft, _, hard = text.partition(":")
    limits = {"Name": name, "Soft": _whole(soft), "Hard": _whole(hard or soft)}
    options.add(options.host, "Ulimits", limits)


def _tmpfs(options: Options, value: str) -> None:
    path, _, how = value.partition(":")
    if not path.startswith("/"):
        raise ValueError("write an absolute path, perhaps followed by :options")
    options.host.setdefault("Tmpfs", {})[path] = how


def _sysctl(options: Options, value: str) -> None:
    name, text = _pair(value)
    if not _SYSCTL.fullmatch(name):
        raise ValueError("use one of the container's own: net., fs.mqueue., kernel.msg, .sem or .shm")
    options.host.setdefault("Sysctls", {})[name] = text


def _device(options: Options, value: str) -> None:
    outside, _, rest = value.partition(":")
    inside, _, how = rest.partition(":")
    if not _DEVICE.fullmatch(outside):
        raise ValueError("it is no device for containers; for all of them use container.docker.privileged")
    if not set(how) <= set("rwm"):
        raise ValueError("after the second colon write r, w, m")
    mapping = {
        "PathOnHost": outside,
        "PathInContainer": inside or outside,
        "CgroupPermissions": how or "rwm",
    }
    options.add(options.host, "Devices", mapping)


def _entrypoint(options: Options, value: str) -> None:
    # An empty one takes the image's away, as docker run --entrypoint "" does.
    options.config["Entrypoint"] = split_words(value) if value.strip() else [""]


def _ipc(options: Options, value: str) -> None:
    if value not in ("private", "none", "shareable"):
        raise ValueError("use private, none or shareable")
    options.host["IpcMode"] = value


def _security(options: Options, value: str) -> None:
    if not _SECURITY.fullmatch(value):
        raise ValueError("use apparmor=, seccomp=, label= or no-new-privileges")
    options.add(options.host, "SecurityOpt", value)


def _network(options: Options, value: str) -> None:
    if (
        not _NETWORK.fullmatch(_text(value))
        or value.casefold() in _NOT_THEIRS
        or _NETWORK_ID.fullmatch(value.casefold())
    ):
        raise ValueError(
            "it names a user-defined network by its name (letters, digits, _ . -; not 0 to 9, a to f only, "
            "as an id has); for others use container.docker.net"
        )
    options.network = value


def _capability(part: str) -> Callable[[Options, str], None]:
    def apply(options: Options, value: str) -> None:
        name = _text(value).upper().removeprefix("CAP_")
        if name not in _CAPABILITIES:
            known = ", ".join(sorted(_CAPABILITIES))
            raise ValueError(f"use one of {known}; for all of them container.docker.privileged")
        options.add(options.host, part, name)

    return apply


def _alias(options: Options, value: str) -> None:
    options.aliases.append(_text(value))


def _set(part: str, name: str, read: Callable[[str], Any]) -> Callable[[Options, str], None]:
    def apply(options: Options, value: str) -> None:
        getattr(options, part)[name] = read(value)

    return apply


def _append(part: str, name: str) -> Callable[[Options, str], None]:
    def apply(options: Options, value: str) -> None:
        options.add(getattr(options, part), name, _text(value))

    return apply


_KNOWN: Final[Mapping[str, Callable[[Options, str], None]]] = {
    "env": _env,
    "label": _label,
    "hostname": _set("config", "Hostname", _text),
    "domainname": _set("config", "Domainname", _text),
    "user": _set("config", "User", _text),
    "workdir": _set("config", "WorkingDir", _text),
    "entrypoint": _entrypoint,
    "dns": _append("host", "Dns"),
    "dns-search": _append("host", "DnsSearch"),
    "dns-option": _append("host", "DnsOptions"),
    "add-host": _append("host", "ExtraHosts"),
    "cap-add": _capability("CapAdd"),
    "cap-drop": _append("host", "CapDrop"),
    "group-add": _append("host", "GroupAdd"),
    "security-opt": _security,
    "ulimit": _ulimit,
    "shm-size": _set("host", "ShmSize", _size),
    "tmpfs": _tmpfs,
    "sysctl": _sysctl,
    "device": _device,
    "read-only": _set("host", "ReadonlyRootfs", _flag),
    "init": _set("host", "Init", _flag),
    "ipc": _ipc,
    "memory-swap": _set("host", "MemorySwap", _size_or_unlimited),
    "memory-swappiness": _set("host", "MemorySwappiness", _whole),
    "memory-reservation": _set("host", "MemoryReservation", _size),
    "pids-limit": _set("host", "PidsLimit", _between(1, 4096)),
    "cpu-shares": _set("host", "CpuShares", _whole),
    "cpuset-cpus": _set("host", "CpusetCpus", _text),
    "cpuset-mems": _set("host", "CpusetMems", _text),
    "oom-score-adj": _set("host", "OomScoreAdj", _between(0, 1000)),
    "network": _network,
    "network-alias": _alias,
}
#: Text of the client's own, in which a blank may be meant.
_VERBATIM: Final = frozenset({"env", "label", "entrypoint"})
_SHORT: Final = {"e": "env", "l": "label", "h": "hostname", "u": "user", "w": "workdir", "net": "network"}
_ELSEWHERE: Final = {
    "volume": "use container.volumes",
    "v": "use container.volumes",
    "mount": "use container.volumes",
    "volumes-from": "use container.volumes",
    "privileged": "use container.docker.privileged",
    "publish": "use container.docker.portMappings",
    "p": "use container.docker.portMappings",
    "publish-all": "use container.docker.portMappings",
    "memory": "use resources.mem",
    "m": "use resources.mem",
    "cpus": "use resources.cpu",
    "cpu-quota": "use resources.cpu",
    "cpu-period": "use resources.cpu",
    "name": "the container's name is derived from the task",
    "restart": "use retry",
    "rm": "containers are removed once their result and log are stored",
    "detach": "every container runs detached",
    "d": "every container runs detached",
    "tty": "containers have no terminal: their output is kept byte for byte",
    "t": "containers have no terminal: their output is kept byte for byte",
    "interactive": "containers have no standard input",
    "i": "containers have no standard input",
    "log-driver": "the output is kept by this service",
    "log-opt": "the output is kept by this service",
    "pid": "each container has its own processes",
    "userns": "the engine decides it",
    "stop-signal": "a kill sends TERM, then KILL",
    "stop-timeout": "a kill sends TERM, then KILL",
}


def parse(parameters: Sequence[Mapping[str, str]]) -> Options:
    """What the parameters ask for. Raises BadParameter."""
    options = Options()
    for item in parameters:
        key = item["key"].strip().lstrip("-").lower()
        key = _SHORT.get(key, key)
        if key in _ELSEWHERE:
            raise BadParameter(f"parameter {item['key']!r} is not supported: {_ELSEWHERE[key]}")
        apply = _KNOWN.get(key)
        if apply is None:
            raise BadParameter(
                f"parameter {item['key']!r} is not supported: known are {', '.join(sorted(_KNOWN))}"
            )
        try:
            value = item.get("value", "")
            apply(options, value if key in _VERBATIM else value.strip())
        except ValueError as error:
            raise BadParameter(
                f"parameter {item['key']!r} has a value that cannot be used: {error}"
            ) from None
    return options
