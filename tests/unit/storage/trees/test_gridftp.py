"""What GridFTP servers tell: lists, facts, refusals; and names in URLs. Lines are those of real servers."""

from __future__ import annotations

import pytest

from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.gridftp.errors import failed
from workers.storage.trees.gridftp.facts import entry, lines, link_of, quoted

_FACTS = (
    b"Type=file;Modify=20261130203051;Size=7;Perm=awr;UNIX.mode=0644;UNIX.owner=root;UNIX.uid=3;"
    b"UNIX.group=root;UNIX.gid=4;Unique=fe00-252530;"
)


def test_a_file() -> None:
    found = entry(_FACTS + b" name", follow=False)
    assert found is not None
    assert (found.name, found.mode, found.size, found.uid, found.gid) == (b"name", 0o100644, 7, 3, 4)
    assert found.mtime_ns == 1796070651 * 10**9
    assert found.version == "fe00-252530:1796070651000000000:7"


@pytest.mark.parametrize("name", [b" ", b"end ", b" x", b"a; b", b"UNIX.mode=0; x", b"a\nb", b"\xff", b"\t"])
def test_a_name_is_all_that_follows_the_facts(name: bytes) -> None:
    found = entry(_FACTS + b" " + name, follow=False)
    assert found is not None
    assert found.name == name


def test_a_server_that_tells_little() -> None:
    found = entry(b"type=dir; folder", follow=False)
    assert found is not None
    assert (found.mode, found.size, found.mtime_ns, found.version) == (0o40755, 0, 0, "")
    found = entry(b"type=file;size=x;modify=2026;unix.mode=rw; file", follow=False)
    assert found is not None
    assert (found.mode, found.size, found.mtime_ns) == (0o100644, 0, 0)
    found = entry(b"Modify=20260101000000.250; file", follow=False)
    assert found is not None
    assert (found.is_file, found.mtime_ns % 10**9) == (True, 250_000_000)


def test_links_and_other_things() -> None:
    line = b"Type=dir;UNIX.mode=0755;UNIX.slink=/data/in side; up"
    told, followed = entry(line, follow=False), entry(line, follow=True)
    assert told is not None
    assert followed is not None
    assert (told.is_link, followed.is_folder) == (True, True)
    assert link_of(line) == b"/data/in side"
    assert link_of(_FACTS + b" name") == b""
    pipe = entry(b"Type=OS.unix=pipe;Size=0;UNIX.mode=0644; fifo", follow=False)
    assert pipe is not None
    assert (pipe.is_file, pipe.is_folder, pipe.is_link) == (False, False, False)


def test_what_is_no_entry() -> None:
    assert entry(b"Type=cdir; .", follow=False) is None
    assert entry(b"Type=pdir; ..", follow=False) is None
    assert entry(b"no facts", follow=False) is None
    found = entry(b"Type=file; a/../../b", follow=False)
    assert found is not None
    assert found.name == b"b"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_lines_as_they_arrive(size: int) -> None:
    """Also names with line breaks in them, which a server writes as they are."""
    names = [b"one", b"a\nb", b"a\r\nb", b"cr\r", b"last"]
    content = b"".join(_FACTS + b" " + name + b"\r\n" for name in names)
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    assert [line.removeprefix(_FACTS + b" ") for line in lines(pieces)] == names
    assert list(lines([])) == []


def test_names_in_urls() -> None:
    assert quoted(b"/a b/100%/#?;[x]*", wide=False) == "/a%20b/100%25/%23%3F%3B%5Bx%5D%2A"
    assert quoted("/caf\u00e9".encode() + b"\xff", wide=True) == "/caf%C3%A9%FF"
    for name in (b"/a\nb", b"/a\rb", b"/\x7f", b"/\0", b"/caf\xc3\xa9"):
        with pytest.raises(StorageFailed) as caught:
            quoted(name, wide=False)
        assert caught.value.trouble is Trouble.NAME


@pytest.mark.parametrize(
    ("code", "text", "trouble"),
    [
        (550, "550 550-GlobusError: v=1 c=PATH_NOT_FOUND\r\n550-GridFTP-Errno: 2\r\n550 End.", "MISSING"),
        (500, "500-globus_xio: System error in open: No such file or directory", "MISSING"),
        (550, "550-GridFTP-Errno: 13\r\n550-GridFTP-Error-String: Permission denied", "DENIED"),
        (553, "553-GlobusError: v=1 c=PATH_EXISTS\r\n553-GridFTP-Errno: 17", "EXISTS"),
        (451, "451-GridFTP-Errno: 39\r\n451-GridFTP-Error-String: Directory not empty", "NOT_EMPTY"),
        (451, "451-GridFTP-Errno: 28\r\n451-GridFTP-Error-String: No space left on device", "FULL"),
        (500, "500-globus_xio: System error in write: No space left on device", "FULL"),
        (426, "426 Data connection closed.", "AWAY"),
        (421, "421 Service busy: too many connections.", "AWAY"),
        (530, "530 Login incorrect. : globus_gss_assist: Error invoking callout", "DENIED"),
        (0, "an end-of-file was reached\nglobus_xio: An end of file occurred", "AWAY"),
        (0, "globus_xio: Unable to connect to h:2811\nglobus_xio: Connection refused", "AWAY"),
        (0, "GSS failure\nglobus_gsi_callback_module: Can't get the local trusted CA: Untrusted", "DENIED"),
        (504, "504 Command not implemented for that parameter.", "OTHER"),
    ],
)
def test_what_a_refusal_means(code: int, text: str, trouble: str) -> None:
    found = failed({"code": code, "text": text}, b"/a\nb", "gridftp://h/")
    assert found.trouble is Trouble[trouble]
    assert found.message.startswith("/a\\nb: ")
    assert "\n" not in found.message
    assert "\r" not in found.message


def test_a_server_that_talks_for_long() -> None:
    assert len(failed({"code": 500, "text": "word " * 1000}, b"/a", "gridftp://h/").message) < 400
