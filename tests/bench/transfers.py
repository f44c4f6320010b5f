"""Marks 7, 8 and 9: file operations between sites, end to end through REST, beside what people would use.

Ours is everything that a client waits for: the request, the listing, the batches, each file under a temporary
name, verified and renamed, its attempt and log in the database. Peers: rclone (LOCAL, SFTP; it verifies and
renames, too), gfal-copy and globus-url-copy (GridFTP), find -printf (LIST).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.rig import HEADERS, Rig, interleave
from tests.support.gridftp import GridFtp
from tests.support.sshd import Sshd

_RCLONE = str(Path(sys.executable).parent / "rclone")
ROOT = "/workqueue/api/v1.0"
FILES = 10_000
GIB = 1 << 30
_RANDOM = 1 << 20


class Bench:
    """A service with a node that offers a folder, and two servers beside it."""

    def __init__(self, rig: Rig) -> None:
        self.folder = rig.folder / "files"
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.url = rig.api("transfers", "config.settings")
        self.node = rig.node(
            80,
            runtimes="transfer",
            GANTRY_NODE_NAME="transfers",
            GANTRY_NODE_MEM_MB="65536",
            GANTRY_LOCAL_SITES=str(self.folder),
        )
        self.local = self.site("local", {"protocol": "LOCAL", "path": str(self.folder)})

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{ROOT}{path}", data, HEADERS, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")

    def site(self, name: str, endpoint: dict[str, Any], **more: Any) -> int:
        body = {"name": name, "visibility": "tenant", "endpoints": [endpoint], **more}
        return int(self.ask("POST", "/sites", body)["id"])

    def seconds(self, kind: str, source: int, path: str, target: int | None = None, to: str = "") -> float:
        """A job from its request to its end."""
        body: dict[str, Any] = {"src_siteid": source, "src_filepath": path}
        if target is not None:
            body |= {"dst_siteid": target, "dst_filepath": to}
        began = time.perf_counter()
        job = self.ask("POST", f"/{kind}", body)["id"]
        while (status := self.ask("GET", f"/jobs/{job}/status")["status"]) not in ("DONE", "FAILED"):
            time.sleep(0.02)  # pace: a client that looks fifty times a second
        took = time.perf_counter() - began
        if status != "DONE":
            raise RuntimeError(self.ask("GET", f"/jobs/{job}/output")[:3])
        return took


def run(rig: Rig, marks: Sequence[str], *, long: bool) -> None:
    """Measure and print."""
    bench = Bench(rig)
    rounds = 7 if long else 5
    if "7" in marks:
        _small(bench, rounds)
    if "8" in marks:
        _large(bench, rounds)
    if "9" in marks:
        _list(bench, 3, 1_000_000 if long else 200_000)
    bench.node.terminate()


def _small(bench: Bench, rounds: int) -> None:
    many = bench.folder / "many"
    for number in range(FILES):
        file = many / f"{number // 250}" / f"{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(1024))
    _show("7 COPY of 10,000 files of 1 KiB, LOCAL [files/s]", 0.8, _local(bench, "many", rounds, FILES))
    flushed = _flushing(_rclone(many, bench.folder), bench.folder)
    found = _to(bench, "many", bench.local, bench.folder, flushed, rounds, FILES)
    _show("7 the same beside rclone, then each file flushed as ours are [files/s]", 0.0, found)
    with _sshd(bench) as (site, remote, sshd):
        found = _to(bench, "many", site, sshd.files, _rclone(many, remote), rounds, FILES)
        _show("7 the same to SFTP [files/s]", 1.0, found)
        flushed = _flushing(_rclone(many, remote), sshd.files)
        found = _to(bench, "many", site, sshd.files, flushed, rounds, FILES)
        _show("7 the same beside rclone, then each file flushed as ours are [files/s]", 0.0, found)
    few = bench.folder / "few"
    for number in range(1000):
        (few / f"{number // 250}").mkdir(parents=True, exist_ok=True)
        (few / f"{number // 250}" / f"{number}").write_bytes(os.urandom(1024))
    with _gridftp(bench) as (site, place, url):
        found = _to(bench, "few", site, place, _gfal(few, url), rounds, 1000)
        _show("7 COPY of 1,000 files of 1 KiB to GridFTP, beside gfal-copy [files/s]", 1.0, found)
        found = _to(bench, "few", site, place, _globus(few, url), rounds, 1000)
        _show("7 the same beside globus-url-copy -cc 4 -pp [files/s]", 0.0, found)


def _large(bench: Bench, rounds: int) -> None:
    big = bench.folder / "big"
    big.mkdir()
    piece = os.urandom(_RANDOM)
    with (big / "file").open("wb") as out:
        for _ in range(GIB // _RANDOM):
            out.write(piece)
    mib = GIB / (1 << 20)
    _show("8 COPY of 1 GiB, LOCAL [MiB/s]", 1.0, _local(bench, "big", rounds, mib))
    with _sshd(bench) as (site, remote, sshd):
        found = _to(bench, "big", site, sshd.files, _rclone(big, remote), rounds, mib)
        _show("8 the same to SFTP [MiB/s]", 1.0, found)
        flushed = _flushing(_rclone(big, remote), sshd.files)
        found = _to(bench, "big", site, sshd.files, flushed, rounds, mib)
        _show("8 the same beside rclone, then its file flushed as ours is [MiB/s]", 0.0, found)
    with _gridftp(bench) as (site, place, url):
        found = _to(bench, "big", site, place, _globus(big, url), rounds, mib)
        _show("8 the same to GridFTP, beside globus-url-copy [MiB/s]", 1.0, found)
        compared = _comparing(_globus(big, url), f"file://{big}/file", f"{url}/theirs/file")
        found = _to(bench, "big", site, place, compared, rounds, mib)
        _show("8 the same beside globus-url-copy, then gfal-sum of both ends at once [MiB/s]", 0.0, found)
    shutil.rmtree(big)


def _list(bench: Bench, rounds: int, files: int) -> None:
    tree = bench.folder / "tree"
    for number in range(files // 1000):
        folder = tree / f"{number // 100}" / f"{number}"
        folder.mkdir(parents=True)
        for name in range(1000):
            (folder / f"file-{name:04}").touch()

    def ours() -> float:
        return files / bench.seconds("list", bench.local, "/tree")

    def theirs() -> float:
        began = time.perf_counter()
        with (bench.folder / "found").open("wb") as out:
            subprocess.run(["find", str(tree), "-printf", "%p %s %m %T@\\n"], stdout=out, check=True)
        return files / (time.perf_counter() - began)

    _show(f"9 LIST of {files:,} files, stored [names/s]", 0.2, interleave(rounds, ours, theirs))


def _local(bench: Bench, name: str, rounds: int, amount: float) -> dict[str, Any]:
    return _to(
        bench, name, bench.local, bench.folder, _rclone(bench.folder / name, bench.folder), rounds, amount
    )


def _to(
    bench: Bench, name: str, site: int, place: Path, theirs: list[str], rounds: int, amount: float
) -> dict[str, Any]:
    """Ours to ``place/ours``; theirs is a command that copies to ``place/theirs``."""
    target, peer = place / "ours", place / "theirs"

    def first() -> float:
        _clear(target)
        return amount / bench.seconds("copy", bench.local, f"/{name}", site, "/ours")

    def second() -> float:
        _clear(peer)
        return amount / _timed(theirs)

    found = interleave(rounds, first, second)
    subprocess.run(["diff", "-rq", str(bench.folder / name), str(target)], check=True)
    for left in place.glob("*-*"):
        shutil.rmtree(left)
    return found


def _clear(folder: Path) -> None:
    """Many files are put aside until all is measured: ext4 without a journal passes over the inodes of what
    was removed within the last minutes one by one, which has cost rclone up to nine tenths of its speed."""
    if (folder / "file").exists():
        shutil.rmtree(folder)
    elif folder.exists():
        folder.rename(f"{folder}-{time.monotonic_ns()}")


def _rclone(source: Path, remote: Path | str) -> list[str]:
    return [_RCLONE, "copy", "--transfers", "8", str(source), f"{remote}/theirs"]


def _gfal(source: Path, url: str) -> list[str]:
    return ["gfal-copy", "-r", "--abort-on-failure", f"file://{source}", f"{url}/theirs"]


def _globus(source: Path, url: str) -> list[str]:
    return ["globus-url-copy", "-cc", "4", "-pp", "-cd", "-r", f"file://{source}/", f"{url}/theirs/"]


def _flushing(command: list[str], place: Path) -> list[str]:
    """Then what it has copied is brought to the disk, as each file of ours is before its rename."""
    after = f"find {shlex.quote(str(place / 'theirs'))} -type f -exec sync {{}} +"
    return ["sh", "-c", f"{shlex.join(command)} && {after}"]


def _comparing(command: list[str], *both: str) -> list[str]:
    """Then the checksums of both ends, asked at the same time, as ours are."""
    one, other = (f"gfal-sum {shlex.quote(url)} ADLER32 | cut -d' ' -f2" for url in both)
    asked = f'a=$({one} & {other}; wait); test "$(echo "$a" | sort -u | wc -l)" = 1'
    return ["sh", "-c", f"{shlex.join(command)} && {asked}"]


def _timed(command: list[str]) -> float:
    environment = {**os.environ, "GFAL_PYTHONBIN": "/usr/bin/python3"}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return time.perf_counter() - began


@contextmanager
def _sshd(bench: Bench) -> Iterator[tuple[int, str, Sshd]]:
    """(site, rclone's name of it, the server)."""
    sshd = Sshd()
    sshd.start()
    try:
        reach = sshd.reach()
        site = bench.site(
            f"sftp {sshd.port}",
            {"protocol": "SFTP", "host": reach.host, "port": reach.port, "path": reach.path},
            host_keys=list(reach.host_keys),
        )
        given = {"username": reach.credentials.username, "key": reach.credentials.key}
        bench.ask("PUT", f"/sites/{site}/credentials", given)
        known = sshd.folder / "known"
        known.write_text(f"[{reach.host}]:{reach.port} {reach.host_keys[0]}\n")
        options = f"host={reach.host},port={reach.port},user={sshd.user}"
        files = f"key_file={sshd.folder}/client,known_hosts_file={known},shell_type=none"
        yield site, f":sftp,{options},{files}:{sshd.files}", sshd
    finally:
        sshd.remove()


@contextmanager
def _gridftp(bench: Bench) -> Iterator[tuple[int, Path, str]]:
    """(site, its folder, its URL)."""
    folder = bench.folder.parent / f"gridftp-{time.monotonic_ns()}"
    files = folder / "files"
    files.mkdir(parents=True)
    files.chmod(0o777)
    server = GridFtp(folder)
    server.start()
    try:
        site = bench.site(
            f"gridftp {server.port}",
            {"protocol": "GRIDFTP", "host": "127.0.0.1", "port": server.port, "path": str(files)},
        )
        yield site, files, f"ftp://127.0.0.1:{server.port}{files}"
    finally:
        server.kill()


def _show(what: str, mark: float, found: dict[str, Any]) -> None:
    low, high = found["spread"]
    verdict = ("reached" if found["ratio"] >= mark else "MISSED") if mark else "-"
    print(
        f"  {what}: ours {found['ours']:.0f}, peer {found['peer']:.0f}, ratio {found['ratio']:.2f} "
        f"({low:.2f} to {high:.2f}); mark {mark} {verdict}"
    )
    sys.stdout.flush()
