"""GridFTP beside the common suite: certificates, links, from server to server, and who is kept out."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from django.test import override_settings

from tests.conformance.trees.handling import MIB, TAG, content, fails, read, write
from tests.conformance.trees.subjects import SECRET
from tests.support.gridftp import Authority, GridFtp, hand_over, open_folder
from tests.support.proxy import Proxy
from workers.storage.trees import gridftp
from workers.storage.trees.base import Keeping, Part, TransferOptions, Tree, Trouble
from workers.storage.trees.opening import open_tree
from workers.vocabulary.transfers.reach import Credentials, Protocol, Reach

_FREE = TransferOptions()


class _Place:
    """Two servers, both with certificates of one authority, and a folder that both serve."""

    def __init__(self, home: Path) -> None:
        self.folder = open_folder()
        self.site = self.folder / "site"
        for path in (self.site, self.folder / "outside"):
            path.mkdir()
            hand_over(path)
        (home / "authority").mkdir()
        self.authority = Authority(home / "authority")
        self.proxy = self.authority.proxy()
        self.servers = [GridFtp(home / name, self.authority) for name in ("one", "two")]

    def reach(self, server: int = 0, **more: str) -> Reach:
        return Reach(
            protocol=Protocol.GRIDFTP,
            host="localhost",
            port=self.servers[server].port,
            path=str(self.site),
            site="grid",
            guarded=False,
            cas=(self.authority.pem,),
            credentials=Credentials(proxy=self.proxy),
            options=more,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Place]:
    made = _Place(tmp_path_factory.mktemp("gsiftp"))
    try:
        for server in made.servers:
            server.folder.mkdir()
            server.start()
        yield made
    finally:
        for server in made.servers:
            server.kill()
        shutil.rmtree(made.folder)


@pytest.fixture
def folder(place: _Place) -> Iterator[Path]:
    """A folder of the site, as it is on this machine."""
    path = Path(tempfile.mkdtemp(dir=place.site))
    hand_over(path)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def tree(place: _Place) -> Iterator[Tree]:
    made = open_tree(place.reach())
    yield made
    made.close()


def _path(folder: Path, name: bytes = b"") -> bytes:
    return b"/" + folder.name.encode() + (b"/" + name if name else b"")


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["caf\u00e9 \U0001f600 ".encode(), b"a\xffb"], ids=["utf-8", "byte-ff"])
def test_with_certificates_a_server_keeps_every_byte_of_a_name(tree: Tree, folder: Path, name: bytes) -> None:
    """Commands travel wrapped: nothing takes their bytes for a terminal's."""
    write(tree, _path(folder, name), b"content")
    assert [os.fsencode(found.name) for found in folder.iterdir()] == [name]
    tree.mkdir(_path(folder, name + b".d"))
    tree.rename(_path(folder, name), _path(folder, name + b".d/" + name))
    assert [entry.name for entry in tree.scan(_path(folder))] == [name + b".d"]
    assert [entry.name for entry in tree.scan(_path(folder, name + b".d"))] == [name]
    assert read(tree, _path(folder, name + b".d/" + name)) == b"content"


def test_a_list_tells_names_that_cannot_be_asked_for(tree: Tree, folder: Path) -> None:
    """Whole and once: what then is done to such an element fails by its name."""
    names = {b"a\nb", b"a\r\nb", b" ", b"end\t", b"\x7f", b"a; b"}
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    assert {entry.name for entry in tree.scan(_path(folder))} == names
    for name in (b"a\nb", b"a\r\nb", b"\x7f"):
        with fails(Trouble.NAME):
            tree.remove(_path(folder, name))


# --- links ------------------------------------------------------------------------------------------------


def test_links_are_told_as_such_and_followed_within_the_site(tree: Tree, folder: Path) -> None:
    """One that leads nowhere is in no list of Globus' server."""
    (folder / "file").write_bytes(b"content")
    (folder / "inner").mkdir()
    for name, to in {"file-link": "file", "folder-link": "inner", "up": "..", "nowhere": "nothing"}.items():
        (folder / name).symlink_to(to)
    told = {entry.name: entry.is_link for entry in tree.scan(_path(folder))}
    assert told == {b"file": False, b"inner": False, b"file-link": True, b"folder-link": True, b"up": True}
    assert tree.stat(_path(folder, b"file-link")).size == 7
    assert read(tree, _path(folder, b"up/" + folder.name.encode() + b"/file-link")) == b"content"
    with fails(Trouble.MISSING):
        tree.stat(_path(folder, b"nowhere"))
    tree.remove(_path(folder, b"file-link"))
    assert (folder / "file").read_bytes() == b"content"


def test_no_link_leads_out_of_the_site(tree: Tree, folder: Path, place: _Place) -> None:
    (place.folder / "outside" / "secret").write_bytes(b"not for you")
    (folder / "out").symlink_to(place.folder / "outside")
    (folder / "file").symlink_to(place.folder / "outside" / "secret")
    for name in (b"file", b"out/secret"):
        with fails(Trouble.DENIED):
            tree.stat(_path(folder, name))
        with fails(Trouble.DENIED):
            read(tree, _path(folder, name))
    with fails(Trouble.DENIED):
        list(tree.scan(_path(folder, b"out")))
    with fails(Trouble.DENIED):
        tree.remove(_path(folder, b"out/secret"))
    with fails(Trouble.DENIED):
        tree.mkdir(_path(folder, b"out/made"))
    with fails(Trouble.DENIED):
        write(tree, _path(folder, b"out/made"), b"x")
    assert [found.name for found in (place.folder / "outside").iterdir()] == ["secret"]


# --- from server to server --------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [1, 3])
def test_from_one_server_to_another(tree: Tree, folder: Path, place: _Place, streams: int) -> None:
    data = content(5 * MIB + 3)
    (folder / "source").write_bytes(data)
    other = open_tree(place.reach(1))
    receiving = other.receive(_path(folder, b"target"), Part(TAG), len(data))
    moved: list[int] = []
    options = TransferOptions(streams=streams)
    assert other.copy_here(tree, _path(folder, b"source"), receiving, moved.append, options)
    receiving.finish()
    assert receiving.checksum("md5") == tree.checksum(_path(folder, b"source"), "md5") != ""
    receiving.commit(overwrite=False)
    receiving.close()
    other.close()
    assert sum(moved) == len(data)
    assert (folder / "target").read_bytes() == data


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("size", [MIB, 5 * MIB + 3])
def test_from_and_to_this_machine(tree: Tree, folder: Path, tmp_path: Path, size: int, streams: int) -> None:
    """By descriptors, which the local tree has opened."""
    data, options, moved = content(size), TransferOptions(streams=streams), list[int]()
    (tmp_path / "source").write_bytes(data)
    with override_settings(GANTRY_LOCAL_SITES=[str(tmp_path)]):
        local = open_tree(Reach(protocol=Protocol.LOCAL, path=str(tmp_path)))
    receiving = tree.receive(_path(folder, b"file"), Part(TAG), size)
    assert tree.copy_here(local, b"/source", receiving, moved.append, options)
    receiving.finish()
    receiving.commit(overwrite=False)
    receiving.close()
    back = local.receive(b"/target", Part(TAG), size)
    assert tree.copy_there(_path(folder, b"file"), local, back, moved.append, options)
    back.finish()
    back.commit(overwrite=False, keeping=Keeping(mtime_ns=10**18))
    back.close()
    local.close()
    assert (tmp_path / "target").read_bytes() == data == (folder / "file").read_bytes()
    assert (tmp_path / "target").stat().st_mtime_ns == 10**18
    assert sum(moved) == 2 * size


def test_other_trust_or_a_rate_passes_through_us(tree: Tree, folder: Path, place: _Place) -> None:
    (folder / "source").write_bytes(b"content")
    other = open_tree(replace(place.reach(1), credentials=Credentials(proxy=place.authority.proxy())))
    receiving = other.receive(_path(folder, b"target"), Part(TAG), 7)
    source = _path(folder, b"source")
    assert not other.copy_here(tree, source, receiving, lambda count: None, _FREE)
    assert not other.copy_here(other, source, receiving, lambda count: None, replace(_FREE, rate=1e6))
    receiving.close()
    other.close()
    assert [found.name for found in folder.iterdir()] == ["source"]


def test_who_gives_up_ends_the_copy(tree: Tree, folder: Path) -> None:
    class Enough(Exception):
        pass

    def moved(count: int) -> None:
        raise Enough

    (folder / "source").write_bytes(content(MIB))
    receiving = tree.receive(_path(folder, b"target"), Part(TAG), MIB)
    with pytest.raises(Enough):
        tree.copy_here(tree, _path(folder, b"source"), receiving, moved, _FREE)
    receiving.discard()
    receiving.close()
    assert [found.name for found in folder.iterdir()] == ["source"]


def test_a_copy_ends_with_its_time(place: _Place, tmp_path: Path) -> None:
    """The server takes the connection and says nothing."""
    (tmp_path / "source").write_bytes(content(MIB))
    with override_settings(GANTRY_LOCAL_SITES=[str(tmp_path)]):
        local = open_tree(Reach(protocol=Protocol.LOCAL, path=str(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silenced = open_tree(replace(place.reach(), port=silent.getsockname()[1]))
        receiving = silenced.receive(b"/target", Part(TAG), MIB)
        with fails(Trouble.AWAY, words="timeout"):
            options = replace(_FREE, timeout_s=0.2)
            silenced.copy_here(local, b"/source", receiving, lambda count: None, options)
        receiving.close()
        silenced.close()
    local.close()


# --- who is kept out --------------------------------------------------------------------------------------


def _refusal(reach: Reach, words: str, trouble: Trouble = Trouble.DENIED) -> None:
    with fails(trouble, words=words):
        made = open_tree(reach)
        try:
            made.stat(b"/")
        finally:
            made.close()


def test_a_bit_that_is_turned_over_in_what_we_say_to_each_other(place: _Place, folder: Path) -> None:
    """With certificates it is signed: the server does not do what nobody has said. (Content goes beside that,
    on connections of its own, and is compared by checksums: tests/conformance/mover/test_damage.py.)"""
    with Proxy(("127.0.0.1", place.servers[0].port)) as wire:
        tree = open_tree(replace(place.reach(), port=wire.port))
        assert tree.stat(_path(folder)).is_folder
        wire.flip(20, outward=True)
        with fails(Trouble.AWAY, Trouble.DENIED, Trouble.OTHER):
            tree.mkdir(_path(folder, b"made"))
        assert wire.flipped
        assert list(folder.iterdir()) == []
        tree.mkdir(_path(folder, b"made"))
        tree.close()
    assert [found.name for found in folder.iterdir()] == ["made"]


def test_a_user_whom_the_server_does_not_know(place: _Place) -> None:
    proxy = place.authority.proxy("stranger")
    _refusal(replace(place.reach(), credentials=Credentials(proxy=proxy)), "knows no account")


def test_a_proxy_that_has_expired(place: _Place) -> None:
    proxy = place.authority.proxy(ended=True)
    _refusal(replace(place.reach(), credentials=Credentials(proxy=proxy)), "has expired at")


def test_what_is_no_proxy(place: _Place) -> None:
    _refusal(replace(place.reach(), credentials=Credentials(proxy=SECRET)), "no chain of certificates")
    _refusal(replace(place.reach(scheme="gsiftp"), credentials=Credentials()), "wants a proxy")


def test_a_server_of_an_authority_that_the_site_does_not_name(place: _Place, tmp_path: Path) -> None:
    other = Authority(tmp_path, "Somebody")
    _refusal(replace(place.reach(), cas=(other.pem,)), "authorities (cas)")
    _refusal(replace(place.reach(), cas=(SECRET,)), "authority 1 of the site")


def test_a_host_by_another_name_than_its_certificate_has(place: _Place) -> None:
    _refusal(replace(place.reach(), host="127.0.0.1"), "another host")


def test_without_certificates_at_a_server_that_wants_them(place: _Place) -> None:
    _refusal(replace(place.reach(), credentials=Credentials()), "wants a proxy")


def test_nobody_there(place: _Place) -> None:
    _refusal(replace(place.reach(), host="nobody.invalid"), "does not answer", Trouble.AWAY)


def test_a_site_that_a_user_made(place: _Place) -> None:
    _refusal(replace(place.reach(), guarded=True), "an operator made", Trouble.REFUSED)


def test_no_proxy_on_the_disk_and_nothing_left_there(
    place: _Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = open_tree(place.reach())
    made.stat(b"/")
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    found = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert found
    assert not any("PRIVATE KEY" in text for text in found)
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_this_machine_can_speak_it() -> None:
    assert gridftp.missing() == ""
