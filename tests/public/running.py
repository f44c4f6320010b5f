"""What other systems changed on its way into a command or out of it: each case for the runtimes that have it.

Environments, arguments and scripts as data. A script is what /bin/sh does, everywhere the same: as commands,
as args of a container, as Cmd of a saved job.
"""

from __future__ import annotations

from dataclasses import dataclass, field

COMMAND, CONTAINER, JOB = EVERYWHERE = ("command", "container", "job")

PEM = (
    "-----BEGIN PRIVATE KEY-----\n"
    + "".join(f"{'MIIEvQ+/=='[number % 9 :]}{'A' * 54}\n" for number in range(20))
    + "-----END PRIVATE KEY-----\n"
)
#: A process takes 131,071 bytes as one argument or variable (execve's MAX_ARG_STRLEN, with its NUL).
MOST = 131_071
ENVIRONMENT = {
    "EMPTY": "",
    "EQUALS": "a=b==c=",
    "ONLY": "===",
    "BLANK": " \t ",
    "LINES": "\n\na\nb\n",
    "PEM": PEM,
    "PEM_OF_WINDOWS": PEM.replace("\n", "\r\n"),
    "BEYOND": "𝄞🙂\u2028",
    "discovery.type": "single-node",
    "a-b": "c",
    "1A": "x",
    "LONGEST": "x" * (MOST - len("LONGEST=")),
}


@dataclass(frozen=True)
class Case:
    """A script and what it has to give: its exit code and every byte of its standard output."""

    name: str
    script: str
    out: bytes
    code: int = 0
    arguments: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    where: tuple[str, ...] = EVERYWHERE


_LINE = "x" * 16_383
#: Three bytes each: the borders of 16 KiB go through the middle of one.
_CUT = f"{_LINE}€€€\n{_LINE}x€\n{'€' * 16_384}\n"

CASES = (
    Case("a line of a key", 'printf %s "$PEM"', PEM.encode(), env={"PEM": PEM}),
    Case(
        "a key as an argument",
        'printf %s "$1" | wc -c; printf %s "$1" | tail -n 1',
        f"{len(PEM)}\n{PEM.splitlines()[-1]}\n".encode(),
        arguments=(PEM,),
        where=(CONTAINER,),
    ),
    Case(
        "a key as a secret argument",
        'printf %s "$1" | wc -c; printf %s "$1" | tail -n 1 | tr A-Z a-z',
        f"{len(PEM)}\n{PEM.splitlines()[-1].lower()}\n".encode(),
        arguments=(PEM,),
        where=(JOB,),
    ),
    Case(
        "the longest argument",
        'echo "${#1}"',
        f"{MOST}\n".encode(),
        arguments=("a" * MOST,),
        where=(CONTAINER, JOB),
    ),
    Case("60,000 arguments", 'echo "$#"', b"60000\n", arguments=("x",) * 60_000, where=(CONTAINER,)),
    Case(
        "empty arguments", 'printf "<%s>" "$@"', b"<><a b><>", arguments=("", "a b", ""), where=(CONTAINER,)
    ),
    Case(
        "lines of 16 KiB that are cut inside a character",
        "; ".join(
            (
                "x() { head -c $1 /dev/zero | tr '\\0' x; }",
                "x 16383; echo €€€; x 16384; echo €; i=0",
                "while [ $i -lt 64 ]; do printf '" + "€" * 256 + "'; i=$((i+1)); done; echo",
            )
        ),
        _CUT.encode(),
    ),
    Case(
        "20 MB without a line end",
        "head -c 20000000 /dev/zero | tr '\\0' y",
        b"y" * 20_000_000,
        where=(CONTAINER,),  # of a command: tests/unit/launcher/test_output; of an exec: acceptance/test_jobs
    ),
    Case(
        "line ends of all kinds, and what looks like an event",
        r"printf 'a\r\n\r\n\n\rb\n\ndata: x\nevent: end\nid: 9\n\n:\n\r'",
        b"a\r\n\r\n\n\rb\n\ndata: x\nevent: end\nid: 9\n\n:\n\r",
    ),
    Case("a daemon that keeps stdout open", "sleep 300 & echo parent; exit 3", b"parent\n", code=3),
    Case("exit 0 beside a child that failed", "false | true; (exit 5); exit 0", b""),
)
