"""SFTP: whom we trust and who trusts us. Nothing is accepted because it is the first that is seen."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.trees.handling import fails, read, write
from tests.support.sshd import Sshd, running
from tests.support.waiting import limit, wait_until
from workers.storage.trees.base import Tree, Trouble
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Credentials, Reach

_PASSWORD = "right-horse-battery"


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with running() as made:
        (made.files / "file").write_bytes(b"content")
        made.give(made.files / "file")
        yield made


def _let_in(reach: Reach) -> bool:
    tree = open_tree(reach)
    try:
        return read(tree, b"/file") == b"content"
    finally:
        tree.close()


def _fingerprint(sshd: Sshd, kind: str) -> str:
    told = subprocess.run(
        ["ssh-keygen", "-l", "-f", sshd.folder / f"host_{kind}.pub"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()[1]


def test_a_host_that_is_not_known(sshd: Sshd) -> None:
    with fails(Trouble.DENIED, words=f"127.0.0.1:{sshd.port}"):
        _let_in(sshd.reach(host_keys=()))
    with fails(Trouble.DENIED, words=_fingerprint(sshd, "ed25519")):
        _let_in(sshd.reach(host_keys=()))
    other = f"[elsewhere.example]:{sshd.port} {sshd.host_key}"
    with fails(Trouble.DENIED, words="not known"):
        _let_in(sshd.reach(host_keys=(other,)))


def test_a_host_with_another_key() -> None:
    """Catches a changed key that is accepted, and one that is not named."""
    with running() as sshd:
        (sshd.files / "file").write_bytes(b"content")
        before = sshd.reach()
        assert _let_in(before)
        sshd.stop()
        sshd.start("ecdsa")
        for kind in ("ecdsa", "ed25519"):
            with fails(Trouble.DENIED, words=_fingerprint(sshd, kind)):
                _let_in(before)
        assert _let_in(sshd.reach(host_keys=(*before.host_keys, sshd.host_key)))


def test_a_host_that_has_a_key_more_than_is_known() -> None:
    """It shows the one that is known, not the one that it or we like best."""
    with running() as sshd:
        (sshd.files / "file").write_bytes(b"content")
        sshd.stop()
        sshd.start("ed25519", "ecdsa")
        for kind in ("ed25519", "ecdsa"):
            key = (sshd.folder / f"host_{kind}.pub").read_text()
            assert _let_in(sshd.reach(host_keys=(key,)))


def test_host_keys_as_people_write_them(sshd: Sshd, tmp_path: Path) -> None:
    line = f"[127.0.0.1]:{sshd.port} {sshd.host_key}"
    hashed = tmp_path / "known_hosts"
    hashed.write_text(line + "\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", hashed], check=True, capture_output=True)
    assert hashed.read_text().startswith("|1|")
    anywhere = f"*.example,127.0.0.? {sshd.host_key}"
    for known in (line, f"{line} a comment", hashed.read_text(), f"{sshd.host_key} root@host", anywhere):
        assert _let_in(sshd.reach(host_keys=("# ours", "", known)))
    with fails(Trouble.DENIED, words="revoked"):
        _let_in(sshd.reach(host_keys=(line, f"@revoked {line}")))
    with fails(Trouble.DENIED, words="line 2"):
        _let_in(sshd.reach(host_keys=(line, "nonsense")))


def test_the_wrong_key(sshd: Sshd, tmp_path: Path) -> None:
    for name, more in (("wrong", ""), ("locked", "a passphrase")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", more, "-f", tmp_path / name], check=True)
    wrong, locked = (tmp_path / "wrong").read_text(), (tmp_path / "locked").read_text()
    for key, words in (
        (wrong, "does not take the key"),
        (locked, "passphrase"),
        (wrong[:-60], "cannot be read"),
    ):
        with fails(Trouble.DENIED, words=words):
            _let_in(sshd.reach(credentials=Credentials(username=sshd.user, key=key)))
    with fails(Trouble.DENIED, words="a key or a password"):
        _let_in(sshd.reach(credentials=Credentials(username=sshd.user)))
    with fails(Trouble.DENIED, words="a user name"):
        _let_in(sshd.reach(credentials=Credentials(key=wrong)))


def test_nothing_of_the_account_that_runs_us_is_used(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a connection that an agent, ~/.ssh or a configuration has made possible."""
    own = tmp_path / ".ssh"
    own.mkdir(mode=0o700)
    shutil.copy(sshd.folder / "client", own / "id_ed25519")
    (own / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    (own / "config").write_text(f"Host *\n  StrictHostKeyChecking no\n  IdentityFile {own}/id_ed25519\n")
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    spoken = dict(word.split("=") for word in agent.replace(";", "").split() if "=" in word)
    try:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("SSH_AUTH_SOCK", spoken["SSH_AUTH_SOCK"])
        subprocess.run(["ssh-add", "-q", own / "id_ed25519"], check=True, capture_output=True)
        with fails(Trouble.DENIED, words="not known"):
            _let_in(sshd.reach(host_keys=()))
        for known in (
            Credentials(username=sshd.user, password="wrong"),
            Credentials(username=sshd.user, key=_another_key(tmp_path)),
        ):
            with fails(Trouble.DENIED, words="does not take"):
                _let_in(sshd.reach(credentials=known))
    finally:
        os.kill(int(spoken["SSH_AGENT_PID"]), 15)


def _another_key(folder: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "another"], check=True)
    return (folder / "another").read_text()


def test_no_secret_is_logged(sshd: Sshd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert _let_in(sshd.reach())
    with fails(Trouble.DENIED):
        _let_in(sshd.reach(credentials=Credentials(username=sshd.user, password=_PASSWORD)))
    assert _PASSWORD not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("asyncssh")]


def test_addresses_are_a_clients_word(sshd: Sshd, settings: Any) -> None:
    settings.GANTRY_SITE_ALLOW_NETWORKS = []
    with fails(Trouble.REFUSED, words="127.0.0.1"):
        _let_in(sshd.reach(guarded=True))
    with fails(Trouble.REFUSED, words="localhost"):
        _let_in(sshd.reach(guarded=True, host="localhost"))
    settings.GANTRY_SITE_ALLOW_NETWORKS = ["127.0.0.0/8", "::1/128"]
    assert _let_in(sshd.reach(guarded=True))
    # The key is that of the name, whatever address it leads to.
    known = f"[localhost]:{sshd.port} {sshd.host_key}"
    assert _let_in(sshd.reach(guarded=True, host="localhost", host_keys=(known,)))
    with fails(Trouble.AWAY, words="no-such-host.invalid"):
        _let_in(sshd.reach(host="no-such-host.invalid"))


@pytest.fixture
def rclone(sshd: Sshd, tmp_path: Path) -> Iterator[Reach]:
    """Another server (Go's), which knows passwords; ``tmp_path`` is what it serves."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = tmp_path / "served"
    served.mkdir()
    (served / "file").write_bytes(b"content")
    program = str(Path(sys.executable).with_name("rclone"))
    command = [program, "serve", "sftp", f"--addr=127.0.0.1:{port}"]
    command += [f"--key={sshd.folder}/host_ed25519", "--user=tester", f"--pass={_PASSWORD}"]
    command += ["--config=/dev/null", "--vfs-cache-mode=writes", f"--cache-dir={tmp_path}/cache", str(served)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), every_s=0.02, why="rclone serves")
        yield sshd.reach(port=port, path="/", credentials=Credentials(username="tester", password=_PASSWORD))
    finally:
        process.kill()
        process.wait(limit(30))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_a_password_and_a_server_that_is_not_openssh(rclone: Reach) -> None:
    """Its plain rename replaces what is there: ours must not."""
    with fails(Trouble.DENIED, words="does not take the password of tester"):
        _let_in(replace(rclone, credentials=Credentials(username="tester", password="wrong")))
    tree = open_tree(rclone)
    try:
        _way_of_files(tree)
    finally:
        tree.close()


def _way_of_files(tree: Tree) -> None:
    assert read(tree, b"/file") == b"content"
    with fails(Trouble.EXISTS, words="/file"):
        write(tree, b"/file", b"new")
    assert read(tree, b"/file") == b"content"
    write(tree, b"/file", b"newer", overwrite=True)
    assert read(tree, b"/file") == b"newer"
    tree.mkdir(b"/folder")
    large = bytes(range(256)) * 20_000
    write(tree, b"/folder/large", large)
    assert read(tree, b"/folder/large") == large
    assert {entry.name for entry in tree.scan(b"/")} >= {b"file", b"folder"}
    with fails(Trouble.EXISTS):
        tree.rename(b"/folder/large", b"/file")
    tree.rename(b"/folder/large", b"/other")
    tree.remove_folder(b"/folder")
    assert {entry.name for entry in tree.scan(b"/") if entry.is_folder} == set()
