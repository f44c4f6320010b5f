"""A tree that travels through a server of every protocol and comes home as it was."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.conformance.trees.subjects import SUBJECTS
from tests.support.cluster import Cluster
from tests.support.fixtures import Account
from tests.support.workqueue import WorkqueueClient, grow, shape
from workers.vocabulary.transfers.reach import Reach

pytestmark = pytest.mark.django_db(transaction=True)

#: What every one of them can hold: no bytes beyond ASCII (GridFTP without certificates), no "?" (XRootD),
#: no ";" (wsgidav).
NAMES = (
    b"plain",
    b"two words",
    b"'quoted' \"twice\"",
    b"-rf",
    b"a b",
    b"a%20b",
    b"[x]*",
    b"100%",
    b"a+b&c=d",
)
ORDER = ("sftp", "gridftp", "wsgidav", "swift-s3", "xrootd", "swift")


def site_of(user: WorkqueueClient, name: str, reach: Reach) -> int:
    """A site for what a subject serves, with its credentials."""
    endpoint = {
        "protocol": reach.protocol,
        "host": reach.host,
        "port": reach.port,
        "path": reach.path,
        "options": dict(reach.options),
    }
    site = user.site(name, endpoint, cas=list(reach.cas), host_keys=list(reach.host_keys))
    known = reach.credentials
    given = {
        key: value
        for key, value in (
            ("username", known.username),
            ("password", known.password),
            ("key", known.key),
            ("proxy", known.proxy),
        )
        if value
    }
    if given:
        user.call("PUT", f"/sites/{site}/credentials", given)
    return site


def test_through_every_protocol_and_home(
    cluster: Cluster, operator: Account, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Catches whatever one storage does to names, bytes or empty folders that another does not notice."""
    cluster.env |= {"GANTRY_LOCAL_SITES": str(tmp_path)}
    cluster.node()
    source = tmp_path / "source"
    grow(source, names=NAMES, levels=1)
    found = {subject.id: subject for subject in SUBJECTS}
    with contextlib.ExitStack() as stack:
        user = stack.enter_context(WorkqueueClient(cluster.api(), operator))
        here = user.local("here", tmp_path)
        last, path = here, "/source"
        for number, name in enumerate(ORDER):
            # Not below this test's own folder: sockets of servers have short paths.
            subject = found[name](tmp_path_factory.mktemp(name))
            stack.callback(subject.stop)
            subject.start()
            site = site_of(user, name, subject.reach())
            user.done("copy", last, path, site, f"/tree {number}", max_tries=1)
            last, path = site, f"/tree {number}"
        user.done("copy", last, path, here, "/home")
        assert shape(tmp_path / "home") == shape(source)
        for number, name in enumerate(ORDER):
            site = int(next(item["id"] for item in user.call("GET", "/sites") if item["name"] == name))
            user.done("remove", site, f"/tree {number}", max_tries=1)
            (element,) = user.elements(user.post_and_wait("list", site, f"/tree {number}"))
            assert element["status"] == "FAILED", f"{name} still has it"
