"""Mark 10: 256 MiB from a Swift, through a command, and back, as /runtask/ does it, beside raw swiftclient.

Ours is everything that a client waits for: the request with its checks, the fetch, the command, the upload,
the answer. The peer fetches the same object into a file and uploads that file: once by swiftclient's
Connection, which checks nothing, and once by its SwiftService, which makes the MD5 of both ways as we do.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from swiftclient import Connection
from swiftclient.service import SwiftService, SwiftUploadObject

from tests.bench.rig import HEADERS, Rig, interleave
from tests.support import swift as swifts
from tests.support.swift import KEY, Swift

_MIB = 1024 * 1024
_OPTIONS = {"auth_version": "1.0", "user": "test:tester", "key": KEY}
OPEN = {"GANTRY_SWIFT_ALLOW_NETWORKS": "127.0.0.0/8"}


def run(rig: Rig, *, long: bool) -> None:
    """Measure and print."""
    swift = swifts.started(rig.folder / "swift")
    try:
        url = rig.api("runtask", "config.settings", env=OPEN)
        node = rig.node(4, GANTRY_NODE_NAME="staging", GANTRY_NODE_CPUS="4", **OPEN)
        for service in (False, True):
            found = _throughput(swift, url, rig.folder, service, rounds=9 if long else 5, size=256 * _MIB)
            _show(found, "SwiftService, which verifies" if service else "raw swiftclient")
        node.terminate()
    finally:
        swifts.removed(swift)


def _throughput(
    swift: Swift, url: str, folder: Path, service: bool, *, rounds: int, size: int
) -> dict[str, Any]:
    """MiB a second, there and back."""
    box = swift.container()
    file = folder / "data"
    with file.open("wb") as out:
        for _ in range(size // _MIB):
            out.write(os.urandom(_MIB))
    _upload(swift, box, "in", file)

    def ours() -> float:
        began = time.perf_counter()
        job = _ask(
            "POST",
            f"{url}/runtask/",
            user="tester",
            key=KEY,
            tenant="test",
            authurl=f"{swift.url}/auth/v1.0",
            cm="mv {input_file[0]} {output_file}",
            input_file=f"{box}/in",
            output_file=f"{box}/ours",
        )
        while not (found := _ask("GET", f"{url}/job/?job_id={job['job_id']}&wait=60"))["job_done"]:
            pass
        took = time.perf_counter() - began
        if found["job_error"]:
            raise RuntimeError(found["error"])
        return 2 * size / _MIB / took

    def verified() -> float:
        began = time.perf_counter()
        with SwiftService(_OPTIONS | {"auth": f"{swift.url}/auth/v1.0"}) as peer:
            (done,) = peer.download(box, ["in"], {"out_file": str(folder / "back")})
            sent = peer.upload(box, [SwiftUploadObject(str(folder / "back"), object_name="theirs")])
            if not done["success"] or not all(each["success"] for each in sent):
                raise RuntimeError(f"the peer failed: {done}")
        return 2 * size / _MIB / (time.perf_counter() - began)

    def theirs() -> float:
        began = time.perf_counter()
        with closing(_connected(swift)) as connection, (folder / "back").open("wb") as out:
            _, content = connection.get_object(box, "in", resp_chunk_size=65536)
            for piece in content:
                out.write(piece)
        _upload(swift, box, "theirs", folder / "back")
        return 2 * size / _MIB / (time.perf_counter() - began)

    found = interleave(rounds, ours, verified if service else theirs)
    if swift.get(f"{box}/ours") != file.read_bytes():
        raise RuntimeError("what came back is not what was there")
    return found


def _connected(swift: Swift) -> Connection:
    return Connection(authurl=f"{swift.url}/auth/v1.0", user="test:tester", key=KEY, auth_version="1")


def _upload(swift: Swift, box: str, name: str, file: Path) -> None:
    with closing(_connected(swift)) as connection, file.open("rb") as content:
        connection.put_object(box, name, content, content_length=file.stat().st_size)


def _ask(method: str, url: str, **form: str) -> dict[str, Any]:
    headers = {"Authorization": HEADERS["Authorization"]}
    body = urlencode(form).encode() if form else None
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as answer:
        return dict(json.loads(answer.read()))


def _show(found: dict[str, Any], peer: str) -> None:
    low, high = found["spread"]
    verdict = "reached" if found["ratio"] >= 0.9 else "MISSED"
    print(
        f"  10 runtask, 256 MiB in and out [MiB/s]: ours {found['ours']:.0f}, {peer} "
        f"{found['peer']:.0f}, ratio {found['ratio']:.2f} ({low:.2f} to {high:.2f}); mark 0.9 {verdict}"
    )
    sys.stdout.flush()
