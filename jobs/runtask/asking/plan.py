"""What the engine runs for a request: its command, its files, its limits.

Pure: no database, no HTTP; what comes from settings is handed in. The policy is asked here, in the family's
words; ``workers.tenants.policy`` asks again before a run starts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from jobs.runtask.asking import places, template
from jobs.runtask.asking.places import Place
from jobs.runtask.asking.requests import ARGUMENT_MOST, PARAMETER, CommandRequest, DefinitionRequest, argument
from jobs.runtask.catalogue.parsing import Definition
from jobs.runtask.errors import Refused
from workers.tenants.bounds import Bounds
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.specs import ContainerSpec, ProcessSpec
from workers.vocabulary.staging import Input, Output, Store

TEXT: Final = "text/plain"
#: What opens cm.
CM_POLICY: Final = "runtask_cm"
#: Where a container finds its working folder; an image may have a working folder of its own.
_TO_SANDBOX: Final = 'cd -- "${GANTRY_SANDBOX:-.}" || exit 126\n'


@dataclass(frozen=True)
class Limits:
    """What the settings give to a job: thousandths of a CPU, MiB, seconds, bytes kept of each stream."""

    cpu_m: int
    mem_mb: int
    timeout_s: int
    log: int


@dataclass(frozen=True)
class Plan:
    """A job to be. ``output`` None: nothing is stored; an empty name in it stands for the job's id."""

    store: Store
    definition: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    inputs: Sequence[tuple[Place, str]] = ()
    output: Place | None = None
    #: The output's file; "" = the standard output.
    output_path: str = ""
    make_container: bool = True
    #: A container that has to be there when the job is submitted.
    needed: str = ""
    wait_s: int = 0
    cpu_m: int | None = None
    mem_mb: int | None = None
    timeout_s: int | None = None
    #: What the tenant's policy must allow beside what its kind needs, still when it starts.
    policies: Sequence[str] = ()


def of_command(asked: CommandRequest, allowed: Collection[str]) -> Plan:
    """The later form: ``sh -c`` of the command line with its paths inserted."""
    if CM_POLICY not in allowed:
        raise Refused(
            "cm is refused by this tenant's policy: name a job definition, or ask an operator to allow "
            f"{CM_POLICY}",
            field="cm",
        )
    _need_commands(allowed)
    inputs = [(place, places.input_path(number, place)) for number, place in enumerate(asked.inputs)]
    path = places.output_path(asked.output) if asked.output is not None else None
    text = template.expand(asked.cm, [path for _, path in inputs], path)
    writes = path is not None and template.writes_output(asked.cm)
    if len(text.encode()) > ARGUMENT_MOST:
        raise InvalidInput(f"cm is longer than the {ARGUMENT_MOST} bytes that a process takes", field="cm")
    return Plan(
        store=asked.store,
        definition="",
        argv=["/bin/sh", "-c", text],
        inputs=inputs,
        output=asked.output,
        output_path=path if path is not None and writes else "",
        wait_s=asked.wait_s,
        policies=[CM_POLICY],
    )


def of_definition(
    asked: DefinitionRequest,
    definition: Definition,
    container: str,
    allowed: Collection[str],
    bounds: Bounds,
) -> Plan:
    """The seed's form: the definition's lines over one object. ``container``: of jobs that name none."""
    if definition.image:
        if refused := bounds.image(definition.image):
            raise Refused(
                f"the job definition {definition.name} is refused by this tenant's policy: {refused}"
            )
    else:
        _need_commands(allowed)
    if not asked.file_name and not definition.first:
        raise InvalidInput(
            f"file_name is missing: the job definition {definition.name} is no first step",
            field="file_name",
        )
    holder = asked.container or container
    inputs = []
    if asked.file_name:
        place = Place(holder, asked.file_name)
        inputs.append((place, places.input_path(0, place)))
    arguments, env = _values(asked.given, definition)
    script = _TO_SANDBOX + definition.script if definition.image else definition.script
    return Plan(
        store=asked.store,
        definition=definition.name,
        argv=["bash", "-c", script, definition.name, inputs[0][1] if inputs else "", *arguments],
        env=env,
        image=definition.image,
        inputs=inputs,
        output=Place(holder, ""),
        make_container=not asked.container,
        needed=asked.container,
        wait_s=asked.wait_s,
        cpu_m=definition.cpu_m,
        mem_mb=definition.mem_mb,
        timeout_s=definition.timeout_s,
    )


def _need_commands(allowed: Collection[str]) -> None:
    if "commands" not in allowed:
        raise Refused(
            "processes are refused by this tenant's policy: ask an operator to allow commands, or for a job "
            "definition with an image"
        )


def _values(
    given: Sequence[str] | Mapping[str, str], definition: Definition
) -> tuple[list[str], dict[str, str]]:
    """The definition's arguments after $1, and its environment. One missing or one too many is refused."""
    wanted = definition.parameters
    if isinstance(wanted, int):
        if isinstance(given, Mapping):
            names = [str(number) for number in range(1, wanted + 1)]
            given = list(_all_of(given, names, definition.name).values())
        if len(given) != wanted:
            raise InvalidInput(
                f"parameters has {len(given)} values: the job definition {definition.name} takes {wanted}",
                field="parameters",
            )
        return list(given), {}
    if not isinstance(given, Mapping):
        if given or wanted:
            raise InvalidInput(
                f"parameters must be an object with {', '.join(wanted) or 'nothing in it'}, or give each as "
                f"{PARAMETER}<name>",
                field="parameters",
            )
        given = {}
    return [], {
        name: argument(value, name) for name, value in _all_of(given, wanted, definition.name).items()
    }


def _all_of(given: Mapping[str, str], names: Sequence[str], definition: str) -> dict[str, str]:
    for name in names:
        if name not in given:
            raise InvalidInput(
                f"{PARAMETER}{name} is missing: the job definition {definition} takes {', '.join(names)}",
                field=f"{PARAMETER}{name}",
            )
    for name in given:
        if name not in names:
            raise InvalidInput(
                f"{PARAMETER}{name[:60]} is one too many: the job definition {definition} takes "
                f"{', '.join(names) or 'no parameters'}",
                field=f"{PARAMETER}{name[:60]}",
            )
    return {name: given[name] for name in names}


def spec(plan: Plan, job_id: str, now: float, limits: Limits) -> ProcessSpec | ContainerSpec:
    """The engine's specification of the job ``job_id``; the store's key is in it in clear."""
    until = now + plan.wait_s if plan.wait_s else 0.0
    inputs = [
        Input(url=place.url, path=path, store=0, wait_until=until).to_json() for place, path in plan.inputs
    ]
    outputs = []
    if plan.output is not None:
        to = Place(plan.output.container, plan.output.name or job_id)
        stored = (
            Output(url=to.url, path=plan.output_path, store=0, make_container=plan.make_container)
            if plan.output_path
            else Output(
                url=to.url, stream="stdout", store=0, content_type=TEXT, make_container=plan.make_container
            )
        )
        outputs.append(stored.to_json())
    cpu_m, mem_mb = plan.cpu_m or limits.cpu_m, plan.mem_mb or limits.mem_mb
    env, stores = dict(plan.env), [plan.store.to_json()]
    log_head, log_tail = limits.log // 2, limits.log - limits.log // 2
    if plan.image:
        return ContainerSpec(
            image=plan.image,
            args=list(plan.argv),
            env=env,
            force_pull=False,
            cpu_m=cpu_m,
            mem_mb=mem_mb,
            stores=stores,
            inputs=inputs,
            outputs=outputs,
            log_head=log_head,
            log_tail=log_tail,
        )
    return ProcessSpec(
        argv=list(plan.argv),
        env=env,
        cpu_m=cpu_m,
        mem_mb=mem_mb,
        stores=stores,
        inputs=inputs,
        outputs=outputs,
        log_head=log_head,
        log_tail=log_tail,
        policies=list(plan.policies),
    )
