"""What every method of the tree needs: its sessions, names in URLs, questions at a path, and whether a path
stays in the site."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from workers.storage.trees.base import Entry, Plain, StorageFailed, Trouble, clean, shown
from workers.storage.trees.gridftp import facts
from workers.storage.trees.gridftp.errors import failed
from workers.storage.trees.gridftp.identity import Identity
from workers.storage.trees.gridftp.sessions import Sessions, pieces
from workers.vocabulary.transfers.reach import Reach

#: How long a folder is believed to be within the site, and how many are.
_BELIEVED_S: Final = 30.0
_BELIEVED: Final = 10_000


class Asking(Plain):
    """One endpoint, as one user. ``trust``: whom we trust there, and who we are."""

    def __init__(self, reach: Reach, streams: int) -> None:
        self.where = reach.shown
        self.scheme = reach.options.get("scheme") or ("gsiftp" if reach.credentials.proxy else "ftp")
        if self.scheme == "gsiftp" and not reach.credentials.proxy:
            raise StorageFailed(
                f"{self.where} wants a proxy certificate: give one for the site", Trouble.DENIED
            )
        self.default_path = clean(os.fsencode(reach.default_path))
        self.trust = (reach.cas, reach.credentials.proxy)
        self._base = clean(os.fsencode(reach.path)).rstrip(b"/")
        host = f"[{reach.host}]" if ":" in reach.host else reach.host
        self._root = f"{self.scheme}://{host}:{reach.port or 2811}"
        self._identity = Identity(reach, self.where)
        self.sessions = Sessions(self.where, self._identity.environment, self._identity.files, streams)
        self._wide: bool | None = None
        self._inside: dict[bytes, float] = {}

    def close(self) -> None:
        self.sessions.close()
        self._identity.close()

    def url(self, path: bytes) -> str:
        """Raises StorageFailed NAME."""
        if not path.isascii() and self._wide is None:
            self._wide = self._is_wide()
        return self._root + facts.quoted(self._base + path, wide=bool(self._wide))

    def _is_wide(self) -> bool:
        """Does the server keep bytes above 0x7f? One that drops them takes this name for the base itself."""
        probe = b"\xff" + "ĀāĂăĄąĆć".encode()
        url = self._root + facts.quoted(self._base + b"/" + probe, wide=True)
        with self.sessions.one() as session:
            session.order({"do": "stat", "url": url})
            answer = session.answer()
        if answer["ok"]:
            return False
        failure = self.refused(answer, probe)
        if failure.trouble in (Trouble.AWAY, Trouble.DENIED):
            raise failure
        return failure.trouble is Trouble.MISSING

    def look(self, path: bytes) -> Entry:
        """What is there. Raises StorageFailed DENIED for a link that leads out of the site."""
        entry, leads = self.told(path)
        if leads and not (leads.rstrip(b"/") + b"/").startswith(self._base + b"/"):
            raise StorageFailed(f"{shown(path)} is a link that leads out of the site", Trouble.DENIED)
        return entry

    def there(self, path: bytes) -> Entry:
        """What is there, wherever it leads."""
        return self.told(path)[0]

    def told(self, path: bytes) -> tuple[Entry, bytes]:
        """What is there, and where it leads if it is a link, b"" else."""
        try:
            line = str(self.ask("stat", path)["facts"]).encode("latin-1").lstrip().rstrip(b"\r\n")
        except StorageFailed as failure:
            if failure.trouble is Trouble.NOT_FOLDER:  # on the way there
                raise StorageFailed(failure.message, Trouble.MISSING) from failure
            raise
        entry = facts.entry(line, follow=True)
        if entry is None:
            raise StorageFailed(f"{shown(path)}: the server's answer tells nothing (MLST)", Trouble.OTHER)
        name = path.rpartition(b"/")[2]
        if not name.isascii() and entry.name != name:
            raise StorageFailed(f"{shown(path)}: the server makes another name of it", Trouble.NAME)
        return entry, facts.link_of(line)

    def checked(self, path: bytes) -> bytes:
        """Clean, and in a folder of the site: no link on the way leads out."""
        path = clean(path)
        words = path.split(b"/")[1:-1] if self._base else []
        now = time.monotonic()
        for count in range(1, len(words) + 1):
            folder = b"/" + b"/".join(words[:count])
            if self._inside.get(folder, 0.0) < now and self.look(folder).is_folder:
                if len(self._inside) > _BELIEVED:
                    self._inside.clear()
                self._inside[folder] = now + _BELIEVED_S
        return path

    def below(self, path: bytes, trouble: Trouble = Trouble.DENIED) -> bytes:
        """``checked``, and not the site itself."""
        path = self.checked(path)
        if path == b"/":
            raise StorageFailed("/ is the site itself, which stays as it is", trouble)
        return path

    def ask(self, what: str, path: bytes, *, optional: bool = False, **more: Any) -> dict[str, Any]:
        """Ask for something at a path. ``optional``: a server that cannot do such a thing need not."""
        order = {"do": what, "url": self.url(path), **more}
        with self.sessions.one() as session:
            session.order(order, path)
            answer = session.answer()
            if answer["ok"] or (optional and answer["code"] >= 500):
                return answer
            raise self.refused(answer, path)

    @contextmanager
    def content(self, order: dict[str, Any], path: bytes) -> Iterator[Iterator[bytes]]:
        """What an order brings; who stops before the end ends the session."""
        with self.sessions.one() as session:
            found = pieces(session, order, path, lambda answer: self.refused(answer, path))
            with closing(found):
                yield found

    def refused(self, answer: dict[str, Any], path: bytes) -> StorageFailed:
        return failed(answer, path, self.where)
