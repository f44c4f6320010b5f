"""runtask end to end: HTTP, a node, a real Swift (issue 11, "must show" 1, 4, 5 and 7)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.cluster import Cluster
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.keystone_v2 import KeystoneV2
from tests.support.runtask import RuntaskClient, define
from tests.support.staged import OPEN
from tests.support.swift import KEY, Swift
from tests.support.waiting import wait_until
from workers.models import Secret
from workers.tenants import identity, tenancy

pytestmark = pytest.mark.django_db(transaction=True)

FASTA = ">one human\nMKTAYIAKQR\nQISFVKSHFS\n>two mouse\nMKTAYIAKQRQISF\n>three rat\nMKTAYAKQRQISFV\n"
ODD = (
    "a b",
    "it's",
    '"',
    "$(touch /tmp/gantry-pwned)",
    "`id`",
    "two\nlines",
    "-n",
    "",
    "é",
    "\\",
    "*",
    "{{x}}",
)
NAMES = (
    "my name",
    "my%20name",
    "100%",
    "a?b#c",
    "e\u0301.fa",
    "x/y//z",
    "$(touch pwned);`id`",
    "a'\"b",
    "a/..",
    "é\nx",
)


@pytest.fixture
def client(cluster: Cluster, account: Account, swift: Swift, tmp_path: Path) -> RuntaskClient:
    """A node and an API; cm is open, and the definitions are the test's own beside the samples."""
    tenancy.update_tenant("default", opened={"runtask_cm": True})
    identity.forget()
    folder = cluster.folder / "definitions"
    samples = Path(__file__).parents[2] / "jobs" / "runtask" / "definitions"
    for sample in samples.iterdir():
        define(folder, sample.name, (sample / "job.sh").read_text(), (sample / "job_define.json").read_text())
    define(folder, "first", 'printf "[%s]" "$1" "$#"; ls', '{"first": true}')
    define(folder, "show", 'shift; printf "%s\\0" "$@"', f'{{"first": true, "parameters": {len(ODD)}}}')
    define(
        folder,
        "named",
        'printf "%s\\0" "$a" "$b"; env | grep -c key',
        '{"first": true, "parameters": ["a", "b"]}',
    )
    define(folder, "broken", "true", '{"first": 7}')
    cluster.env |= {**OPEN, "GANTRY_RUNTASK_DEFINITIONS": str(folder), "GANTRY_RUNTASK_MEM_MB": "64"}
    cluster.node()
    return RuntaskClient(cluster.api(), account, swift)


def test_jobs_over_a_swift(client: RuntaskClient, cluster: Cluster, swift: Swift) -> None:
    """On one node; the steps say what they show."""
    box = swift.container()
    swift.put(f"{box}/reads.fasta", FASTA.encode(), **{"Content-Type": "text/x-fasta"})
    with client:
        fasta_in_counts_out(client, swift, box)
        a_first_step_makes_the_servers_container(client, swift)
        values_arrive_as_plain_arguments(client, swift, box)
        two_inputs_and_an_output_file(client, swift, box)
        a_real_aligner(client, swift, box)
        a_command_line_that_fails(client, swift, box)
        names_of_all_kinds(client, swift, box)
        an_output_replaces_its_input(client, swift)
        an_output_that_was_not_made(client, swift, box)
        more_output_than_is_shown(client, swift, box)
        the_key_is_shown_nowhere(client)
        a_chain_that_does_not_wait_and_one_that_does(client, swift)
        an_ended_job_is_not_cancelled(client)
        the_seeds_own_keystone(client, swift, box)
    wait_until(lambda: not Secret.objects.filter(run__isnull=False).exists(), why="the keys are wiped")
    wait_until(lambda: not list((cluster.folder / "n1" / "scratch").iterdir()), why="no scratch is left")
    assert not Path("/tmp/gantry-pwned").exists()
    assert KEY not in "".join(process.text() for process in cluster.processes)
    assert_invariants(cluster)


def fasta_in_counts_out(client: RuntaskClient, swift: Swift, box: str) -> None:
    """The default definition, named by nobody; its output is the object <job_id>, as text."""
    job_id = client.run(container_name=box, file_name="reads.fasta", job="None")
    counts = "sequences\t3\nletters\t48\nshortest\t14\nlongest\t20\n"
    assert client.good(job_id) == counts
    assert swift.get(f"{box}/{job_id}").decode() == counts
    head = swift.api("HEAD", f"/{box}/{job_id}")
    assert head.headers["Content-Type"].partition(";")[0] == "text/plain"
    assert set(swift.names(box)) == {"reads.fasta", job_id}


def a_first_step_makes_the_servers_container(client: RuntaskClient, swift: Swift) -> None:
    job_id = client.run(job="first", file_name="None", container_name="")
    assert client.good(job_id).startswith("[][1]")
    assert swift.get(f"runtask/{job_id}").startswith(b"[][1]")


def values_arrive_as_plain_arguments(client: RuntaskClient, swift: Swift, box: str) -> None:
    job_id = client.run(
        job="show", container_name=box, **{f"param_{n}": value for n, value in enumerate(ODD, 1)}
    )
    client.good(job_id)
    assert swift.get(f"{box}/{job_id}").decode() == "".join(f"{value}\0" for value in ODD)
    job_id = client.run(job="named", container_name=box, param_a=ODD[3], param_b=ODD[5])
    found = client.ended(job_id)
    assert found["out"] == f"{ODD[3]}\0{ODD[5]}\0" + "0\n", "and nothing of the credentials"


def two_inputs_and_an_output_file(client: RuntaskClient, swift: Swift, box: str) -> None:
    swift.put(f"{box}/x/one.txt", b"1\n")
    swift.put(f"{box}/two.txt", b"2\n")
    job_id = client.run(
        cm="echo said; cat {input_file[1]} '{input_file[0]}' > \"{output_file}\"; "
        "awk 'BEGIN {{ print \"{{}}\" }}'; echo > {input_file[0]}.idx",
        input_file=f"{box}/x/one.txt|two.txt",
        output_file=f"{box}-made/r/all.html",
    )
    assert client.good(job_id) == "said\n{}\n"
    assert swift.get(f"{box}-made/r/all.html") == b"2\n1\n"
    assert swift.api("HEAD", f"/{box}-made/r/all.html").headers["Content-Type"].startswith("text/html")
    assert swift.names(f"{box}-made") == ["r/all.html"]


def a_real_aligner(client: RuntaskClient, swift: Swift, box: str) -> None:
    job_id = client.run(
        cm="clustalo -i {input_file[0]} -o {output_file} --outfmt=fa",
        input_file=f"{box}/reads.fasta",
        output_file=f"{box}/aligned.fasta",
    )
    client.good(job_id)
    aligned = swift.get(f"{box}/aligned.fasta").decode().split(">")[1:]
    assert [entry.partition("\n")[0] for entry in aligned] == ["one human", "two mouse", "three rat"]
    rows = [entry.partition("\n")[2].replace("\n", "") for entry in aligned]
    assert len({len(row) for row in rows}) == 1, "aligned: all of one length"
    assert any("-" in row for row in rows)
    same = client.good(client.run(job="clustalo", container_name=box, file_name="reads.fasta"))
    assert same.count(">") == 3


def a_command_line_that_fails(client: RuntaskClient, swift: Swift, box: str) -> None:
    job_id = client.run(cm="echo half; echo no such gene >&2; exit 3", output_file=f"{box}/never")
    found = client.ended(job_id)
    assert (found["job_error"], found["out"], found["error"]) == (True, "half\n", "no such gene\n")
    assert found["error_message"] == found["error"]
    assert "process_out" not in found
    assert "never" not in swift.names(box)
    warned = client.ended(client.run(cm="echo only a warning >&2"))
    assert (warned["job_error"], warned["error"]) == (False, "only a warning\n")


def names_of_all_kinds(client: RuntaskClient, swift: Swift, box: str) -> None:
    """In and out under the same odd name; nothing of a name is run or decoded."""
    for name in NAMES:
        made = client.run(cm="printf %s made", output_file=f"{box}-odd/{name}")
        client.good(made)
        copied = client.run(
            cm="cp {input_file[0]} {output_file}",
            input_file=f"{box}-odd/{name}",
            output_file=f"{box}-odd2/{name}",
        )
        client.good(copied)
    assert set(swift.names(f"{box}-odd")) == set(swift.names(f"{box}-odd2")) == set(NAMES)
    several = "|".join(NAMES)
    job_id = client.run(cm="cat in/*/*; ls in | wc -l; ls", input_file=f"{box}-odd/{several}")
    out = client.good(job_id)
    assert out.startswith("made" * len(NAMES) + f"{len(NAMES)}\n")
    assert "pwned" not in out


def an_output_replaces_its_input(client: RuntaskClient, swift: Swift) -> None:
    box = swift.container()
    swift.put(f"{box}/list", b"b\na\n")
    same = f"{box}/list"
    client.good(client.run(cm="sort {input_file[0]} > {output_file}", input_file=same, output_file=same))
    assert swift.get(same) == b"a\nb\n"
    client.good(client.run(cm="true", output_file=same))
    assert swift.get(same) == b"", "nothing was printed, and that is stored"


def an_output_that_was_not_made(client: RuntaskClient, swift: Swift, box: str) -> None:
    found = client.ended(client.run(cm="true # {output_file}", output_file=f"{box}/nothing"))
    assert found["job_error"] is True
    assert "out/0/nothing" in found["error_message"]
    assert "nothing" not in swift.names(box)


def more_output_than_is_shown(client: RuntaskClient, swift: Swift, box: str) -> None:
    job_id = client.run(cm="seq 1 600000; printf '\\377'", output_file=f"{box}/many")
    out = client.good(job_id)
    whole = b"".join(b"%d\n" % number for number in range(1, 600_001)) + b"\xff"
    assert swift.get(f"{box}/many") == whole
    assert out.startswith("1\n2\n")
    assert out.endswith("600000\n\ufffd")
    assert "bytes left out" in out
    assert len(out) < 2.2 * 1024 * 1024 < len(whole)


def the_key_is_shown_nowhere(client: RuntaskClient) -> None:
    found = client.ended(client.run(cm=f"echo {KEY[:4]}''{KEY[4:]}; echo {KEY[:4]}''{KEY[4:]} >&2; exit 1"))
    assert (found["out"], found["error"]) == ("***\n", "***\n")


def a_chain_that_does_not_wait_and_one_that_does(client: RuntaskClient, swift: Swift) -> None:
    box = swift.container()
    second = {"cm": "cat {input_file[0]}", "input_file": f"{box}-next/result"}
    answer = client.http.post("/runtask/", data={**client.who, **second})
    assert answer.status_code == 502
    assert f"{box}-next" in answer.json()["error_message"]
    waiting = client.run(**second, wait_for_input=300)
    wait_until(lambda: f"{box}-next/result" in client.explain(waiting), why="it says what it waits for")
    assert client.job(waiting)["job_done"] is False
    client.good(client.run(cm="echo made", output_file=f"{box}-next/result"))
    assert client.good(waiting) == "made\n"


def an_ended_job_is_not_cancelled(client: RuntaskClient) -> None:
    job_id = client.run(cm="true")
    client.good(job_id)
    assert client.cancel(job_id) is False
    assert client.job(job_id)["job_error"] is False


def test_a_definition_in_an_image(
    engine: Engine, cluster: Cluster, account: Account, swift: Swift, tmp_path: Path
) -> None:
    """Files in and out of a container; its arguments arrive as they were sent, wherever the image works."""
    image, box = "gantry-test/bash:1", swift.container()
    bash = r"""RUN printf '#!/bin/sh\nexec /bin/busybox sh "$@"\n' > /bin/bash && chmod 755 /bin/bash"""
    images.derive(engine, image, bash, "WORKDIR /root")
    folder = cluster.folder / "definitions"
    script = 'test -f "$1" && wc -c < "$1"; shift; printf "[%s]" "$@"; echo; id -u > /dev/null'
    define(folder, "boxed", script, f'{{"image": "{image}", "parameters": {len(ODD)}, "mem_mb": 64}}')
    swift.put(f"{box}/in", b"12345")
    cluster.env |= {**OPEN, "GANTRY_RUNTASK_DEFINITIONS": str(folder)}
    cluster.node(settings=engine.env)
    with RuntaskClient(cluster.api(), account, swift) as client:
        job_id = client.run(container_name=box, file_name="in", parameters=json.dumps(ODD))
        out = client.good(job_id)
    assert out == "5\n" + "".join(f"[{value}]" for value in ODD) + "\n"
    assert swift.get(f"{box}/{job_id}").decode() == out
    images.forget(engine, image)
    assert_invariants(cluster)


def the_seeds_own_keystone(client: RuntaskClient, swift: Swift, box: str) -> None:
    """v2.0, as the seed's authurl has it: submitted, fetched and stored by way of it."""
    with KeystoneV2(swift) as keystone:
        before = client.who
        client.who = {**before, "authurl": f"{keystone.url}/v2.0/"}
        job_id = client.run(container_name=box, file_name="reads.fasta")
        assert client.good(job_id).startswith("sequences\t3\n")
        client.who = before
    assert swift.get(f"{box}/{job_id}").startswith(b"sequences\t3\n")


def test_a_cancel_in_each_phase(cluster: Cluster, account: Account, swift: Swift) -> None:
    """While fetching, before what is stored becomes visible, while running, while waiting for an input."""
    tenancy.update_tenant("default", opened={"runtask_cm": True})
    identity.forget()
    cluster.env |= {**OPEN, "GANTRY_RUNTASK_MEM_MB": "64"}
    copy = "cp {input_file[0]} {output_file}"
    with RuntaskClient(cluster.api(), account, swift) as client:
        for step in ("staging.in_input", "staging.before_commit"):
            hold = cluster.folder / step
            held = {"GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(hold), "GANTRY_CRASH_HOW": "hold"}
            worker = cluster.node(settings=held)
            one_is_cancelled(client, swift, partial(passed, hold), Path(f"{hold}.go"), cm=copy)
            if step == "staging.in_input":
                worker.terminate()
        begun = "echo begun; sleep 600"
        one_is_cancelled(client, swift, lambda job_id: client.job(job_id)["out"] == "begun\n", cm=begun)
        late: dict[str, Any] = {"cm": copy, "wait_for_input": 300}
        one_is_cancelled(client, swift, lambda job_id: "late" in client.explain(job_id), name="late", **late)
    assert_invariants(cluster)


def passed(hold: Path, _: str) -> bool:
    """Has the worker come by the step at which it holds?"""
    return hold.exists()


def one_is_cancelled(
    client: RuntaskClient,
    swift: Swift,
    there: Callable[[str], bool],
    go: Path | None = None,
    name: str = "in",
    **sent: Any,
) -> None:
    """prevstatus is true, the job ends as cancelled, nothing is stored, nothing goes on."""
    box = swift.container()
    swift.put(f"{box}/in", b"x" * 100_000)
    job_id = client.run(input_file=f"{box}/{name}", output_file=f"{box}/out", **sent)
    wait_until(lambda: there(job_id), why=f"it comes so far: {sent}")
    assert client.cancel(job_id) is True
    if go is not None:
        go.touch()
    found = client.ended(job_id)
    assert (found["job_done"], found["job_error"]) == (True, True)
    assert found["error"].startswith("Cancelled: ")
    assert found["error_message"] == found["error"]
    assert client.cancel(job_id) is False
    swift.put(f"{box}/late", b"too late")
    time.sleep(0.5)
    assert set(swift.names(box)) == {"in", "late"}
    assert client.job(job_id) == found
