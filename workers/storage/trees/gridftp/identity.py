"""What a speaker may know of this machine, and who it is there: a fresh environment, a folder with the
authorities, removed with the tree, and the proxy certificate, which is on no disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.gridftp.sessions import Session
from workers.vocabulary.transfers.reach import Reach

#: Where a site that names no authorities has them, as everywhere on the grid.
_GRID_CAS: Final = "/etc/grid-security/certificates"
_NOWHERE: Final = "/nowhere"
#: Everything that such an authority signs, in Globus' own words.
_POLICY: Final = """access_id_CA X509 '{subject}'
pos_rights globus CA:sign
cond_subjects globus '"*"'
"""


class Identity:
    """``environment`` is that of the speakers, ``files`` the descriptors that they inherit. Raises
    StorageFailed DENIED for a proxy or an authority that cannot be used."""

    def __init__(self, reach: Reach, where: str) -> None:
        self._where = where
        self._folder: Path | None = None
        # Of the worker's own environment nothing: its variables may name other proxies, and hold secrets.
        self.environment = {
            "PATH": os.defpath,
            "LC_ALL": "C.UTF-8",
            "HOME": _NOWHERE,
            "X509_USER_PROXY": _NOWHERE,
            "X509_CERT_DIR": _GRID_CAS,
        }
        self.files: tuple[int, ...] = ()
        try:
            if reach.credentials.proxy:
                self._keep_proxy(reach.credentials.proxy)
            if reach.cas:
                self._keep_authorities(reach.cas)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self.files:
            os.close(file)
        self.files = ()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _keep_proxy(self, pem: str) -> None:
        try:
            ends = min(found.not_valid_after_utc for found in x509.load_pem_x509_certificates(pem.encode()))
        except ValueError as error:
            raise StorageFailed(
                f"{self._where}: the proxy is no chain of certificates in PEM form", Trouble.DENIED
            ) from error
        if ends <= datetime.now(UTC):
            raise StorageFailed(
                f"{self._where}: the proxy certificate has expired at {ends:%Y-%m-%dT%H:%M:%SZ}: give "
                f"a new one",
                Trouble.DENIED,
            )
        file = os.memfd_create("proxy")
        self.files = (file,)
        os.fchmod(file, 0o600)  # the library reads no proxy that others may read
        with open(file, "wb", closefd=False) as memory:
            memory.write(pem.encode())
        self.environment["X509_USER_PROXY"] = f"/proc/self/fd/{file}"

    def _keep_authorities(self, cas: tuple[str, ...]) -> None:
        folder = self._folder = Path(tempfile.mkdtemp(prefix="gantry-gridftp-"))
        self.environment["X509_CERT_DIR"] = str(folder)
        with self._speaker() as speaker:
            for number, pem in enumerate(cas):
                speaker.order({"do": "authority", "pem": pem})
                answer = speaker.answer()
                if not answer["ok"] or "'" in answer["subject"]:
                    raise StorageFailed(
                        f"{self._where}: authority {number + 1} of the site's cas cannot be used: "
                        f"{answer.get('text', 'its subject holds a quote')}",
                        Trouble.DENIED,
                    )
                name = next(name for name in _numbered(answer["hash"]) if not (folder / name).exists())
                (folder / name).write_text(pem)
                policy = folder / f"{answer['hash']}.signing_policy"
                policy.write_text(_POLICY.format(subject=answer["subject"]))

    @contextmanager
    def _speaker(self) -> Iterator[Session]:
        speaker = Session(self._where, self.environment, self.files)
        try:
            yield speaker
        finally:
            speaker.kill()


def _numbered(digest: str) -> Iterator[str]:
    """Names in which OpenSSL looks for an authority, one after the other."""
    return (f"{digest}.{number}" for number in range(1000))
