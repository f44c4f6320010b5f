"""The container of a submission: its Docker options, each dangerous one checked against the tenant's policy.

Pure: no database, no HTTP. Source: contract page 10, "container". A container of type MESOS is refused even
without ``docker``: running its commands outside of any container would not be what was asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tasks_api import fields
from tasks_api.codes import NotAllowed, Refused, Unsupported
from workers.tenants.bounds import Bounds
from workers.vocabulary import docker_options
from workers.vocabulary.references import BadReference, parse
from workers.vocabulary.specs import ContainerSpec

#: Ports from the first to the second, both included.
Ranges = Sequence[tuple[int, int]]


def check(allowed: Collection[str], thing: str, name: str) -> None:
    """Refuse what the policy key ``thing`` does not open; ``name`` is the field that asks for it."""
    if thing not in allowed:
        raise Refused(
            f"{name} is refused by this tenant's policy: leave it out, or ask an operator to allow {thing}",
            field=name.partition(" ")[0],
        )


def asked(given: object) -> dict[str, object]:
    """The container object if it names a Docker container, {} if none is asked for."""
    container = fields.mapping(given, "container")
    if fields.choice(container.get("type"), "container.type", ("DOCKER", "MESOS")) == "MESOS":
        raise Unsupported(
            "container.type is MESOS: Mesos' own containerizer does not exist here, use DOCKER",
            field="container.type",
        )
    return container if fields.mapping(container.get("docker"), "container.docker") else {}


def spec(
    container: dict[str, object], allowed: Collection[str], bounds: Bounds, host_ports: Ranges
) -> ContainerSpec:
    """What the engine runs for a container object that ``asked`` has returned."""
    docker = fields.mapping(container.get("docker"), "container.docker")
    image = fields.short(docker.get("image"), "container.docker.image")
    fields.required(image, "container.docker.image", "name the image to run")
    try:
        parse(image)
    except BadReference as error:
        raise NotAllowed(f"container.docker.image: {error}", field="container.docker.image") from None
    if refused := bounds.image(image):
        raise Refused(
            f"container.docker.image is refused by this tenant's policy: {refused}",
            field="container.docker.image",
        )
    privileged = fields.flag(docker.get("privileged"), "container.docker.privileged", default=False)
    if privileged:
        check(allowed, "privileged", "container.docker.privileged")
    network = fields.choice(docker.get("net"), "container.docker.net", ("BRIDGE", "HOST", "NONE", "USER"))
    if network == "HOST":
        check(allowed, "host_network", "container.docker.net HOST")
    parameters = _parameters(docker.get("parameters"), allowed)
    if network == "USER" and not any(item["key"] in ("network", "net") for item in parameters):
        raise NotAllowed(
            "container.docker.net is USER: name the network with a parameter, "
            '{"key": "network", "value": "<its name>"}',
            field="container.docker.net",
        )
    return ContainerSpec(
        image=image,
        network=network,
        force_pull=fields.flag(docker.get("forcePullImage"), "container.docker.forcePullImage", default=True),
        privileged=privileged,
        ports=_ports(docker.get("portMappings"), allowed, host_ports),
        volumes=_volumes(container.get("volumes"), allowed, bounds),
        parameters=parameters,
    )


def _ports(given: object, allowed: Collection[str], host_ports: Ranges) -> list[dict[str, object]]:
    ports: list[dict[str, object]] = []
    seen: set[tuple[int, str]] = set()
    for name, item in fields.objects(given, "container.docker.portMappings"):
        host_port = fields.port(item.get("hostPort"), f"{name}.hostPort", 0)
        if host_port:
            check(allowed, "host_ports", f"{name}.hostPort {host_port}")
            if not any(least <= host_port <= most for least, most in host_ports):
                usable = ", ".join(f"{least}-{most}" for least, most in host_ports) or "none"
                raise Refused(
                    f"{name}.hostPort is {host_port}: the operator allows {usable} (0 = any free port)",
                    field=f"{name}.hostPort",
                )
        protocol = fields.choice(item.get("protocol"), f"{name}.protocol", ("tcp", "udp"))
        if host_port and (host_port, protocol) in seen:
            raise NotAllowed(
                f"{name}.hostPort is {host_port}/{protocol} a second time: each can be given once",
                field=f"{name}.hostPort",
            )
        seen.add((host_port, protocol))
        ports.append(
            {
                "container_port": fields.port(item.get("containerPort"), f"{name}.containerPort", 1),
                "host_port": host_port,
                "protocol": protocol,
            }
        )
    return ports


def _volumes(given: object, allowed: Collection[str], bounds: Bounds) -> list[dict[str, object]]:
    volumes: list[dict[str, object]] = []
    for name, item in fields.objects(given, "container.volumes"):
        check(allowed, "volumes", "container.volumes")
        inside = fields.text(item.get("containerPath"), f"{name}.containerPath")
        outside = fields.text(item.get("hostPath"), f"{name}.hostPath")
        mode = item.get("mode") if fields.unused(item.get("dvo")) else item.get("dvo")
        for path, where in ((inside, "containerPath"), (outside, "hostPath")):
            fields.required(path, f"{name}.{where}", "give an absolute path")
            if not path.startswith("/"):
                raise NotAllowed(
                    f"{name}.{where} is {fields.show(path)}: it must be an absolute path",
                    field=f"{name}.{where}",
                )
        if refused := bounds.volume(outside):
            raise Refused(
                f"{name}.hostPath is refused by this tenant's policy: {refused}", field=f"{name}.hostPath"
            )
        volumes.append(
            {
                "container_path": inside,
                "host_path": outside,
                "mode": fields.choice(mode, f"{name}.dvo", ("RW", "RO")),
            }
        )
    return volumes


def _parameters(given: object, allowed: Collection[str]) -> list[dict[str, str]]:
    parameters = []
    for name, item in fields.objects(given, "container.docker.parameters"):
        check(allowed, "parameters", "container.docker.parameters")
        key = fields.short(item.get("key"), f"{name}.key")
        fields.required(key, f"{name}.key", "name the parameter")
        parameter = {"key": key, "value": fields.text(item.get("value"), f"{name}.value")}
        try:
            docker_options.parse([parameter])
        except docker_options.BadParameter as error:
            raise NotAllowed(f"{name}: {error}", field=name) from error
        parameters.append(parameter)
    return parameters
