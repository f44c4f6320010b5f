"""Images from a real registry onto a real engine: policies, credentials, progress, failures, sharing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import images as rig
from tests.support.engines import Engine as Rig
from tests.support.images import BUSYBOX, PASSWORD, USER, Registry
from tests.support.pulls import as_node, ensure, refused
from tests.support.waiting import limit, wait_until
from workers.runtimes.engine import pulling
from workers.runtimes.engine.client import Address, Engine
from workers.runtimes.engine.image import Image
from workers.runtimes.engine.images import PullStopped
from workers.runtimes.engine.pulling import Cause
from workers.vocabulary.references import Credentials
from workers.vocabulary.states import Reason

MINE = Credentials(holder="1/127.0.0.1:5001/puller", username=USER, password=PASSWORD)


@pytest.fixture(autouse=True)
def node(settings: Any, tmp_path: Path) -> None:
    as_node(settings, tmp_path, 2.0)


@pytest.fixture
def registry(engine: Rig) -> Iterator[Registry]:
    with Registry(engine) as found:
        yield found


@pytest.fixture
def closed(engine: Rig) -> Iterator[Registry]:
    with Registry(engine, port=5001, closed=True) as found:
        yield found


def pushed(engine: Rig, registry: Registry, name: str, *instructions: str, source: str = BUSYBOX) -> str:
    """An image that the registry has and the engine has not."""
    if instructions:
        rig.derive(engine, "gantry-test/derived:1", *instructions)
        source = "gantry-test/derived:1"
    full = registry.push(source, name)
    rig.forget(engine, full, *(["gantry-test/derived:1"] if instructions else []))
    return full


def test_pull_policies(engine: Rig, link: Engine, registry: Registry) -> None:
    """Each policy asks the registry as often as it says."""
    name = pushed(engine, registry, "team/app:1", 'ENTRYPOINT ["/bin/sh"]', "USER app", "WORKDIR /tmp")
    failure = refused(link, name, pull="never")
    assert failure.reason is Reason.IMAGE
    assert name in failure.message
    assert not failure.ours

    found = ensure(link, name, pull="missing")
    assert (found.user, found.working_dir, found.has_command) == ("app", "/tmp", True)
    assert found.id == engine.client.api.inspect_image(name)["Id"]
    repository, _, digest = found.digest.partition("@")
    assert repository == f"{registry.address}/team/app"
    assert digest.startswith("sha256:")
    assert digest != found.id
    assert found.note == ""
    assert ensure(link, found.digest).id == found.id

    newer = pushed(engine, registry, "team/app:1", "LABEL newer=1")
    assert newer == name
    registry.push(BUSYBOX, "other:1")
    second = ensure(link, name, pull="always")
    assert second.id != found.id
    registry.stop()
    assert ensure(link, name, pull="missing").id == second.id
    assert ensure(link, name, pull="never").id == second.id


def test_a_forced_pull_that_fails_uses_the_image_at_hand(engine: Rig, link: Engine, settings: Any) -> None:
    """Contract page 10; the message says so and names the image. Nobody waits for a registry in vain."""
    settings.GANTRY_REGISTRY_RETRY_S = 3600.0
    name = "127.0.0.1:5009/gantry/here:1"
    rig.tag(engine, name)
    found = ensure(link, name, deadline_s=7200.0)
    assert f"{name} could not be pulled" in found.note
    assert "its registry cannot be reached" in found.note
    assert "refused" not in found.note
    assert found.id == engine.client.api.inspect_image(BUSYBOX)["Id"]
    rig.forget(engine, name)


def test_no_such_image(engine: Rig, link: Engine, registry: Registry, settings: Any) -> None:
    """The user's mistake: told at once, with what to do."""
    settings.GANTRY_REGISTRY_RETRY_S = 3600.0
    pushed(engine, registry, "team/app:1")
    for name in ("team/nothing:1", "team/app:nothing"):
        failure = refused(link, f"{registry.address}/{name}", pull="missing", deadline_s=7200.0)
        assert (failure.reason, failure.ours) == (Reason.IMAGE, False)
        assert f"{registry.address}/{name}" in failure.message
        assert "its registry has no such image" in failure.message
        assert "check its name" in failure.message
    failure = refused(link, "Not An Image")
    assert (failure.reason, failure.ours) == (Reason.IMAGE, False)


def test_a_registry_that_is_away_is_tried_again(engine: Rig, link: Engine, settings: Any) -> None:
    """It comes back within the time: the image is there. It does not: a clear refusal."""
    registry = Registry(engine, port=5002)
    with registry:
        name = pushed(engine, registry, "late:1")
    told: list[str] = []
    settings.GANTRY_REGISTRY_RETRY_S = 5.0  # so that there is a second try on a busy machine, too
    failure = refused(link, name, tell=told.append)
    assert (failure.reason, failure.ours) == (Reason.IMAGE, False)
    assert "cannot be reached" in failure.message
    assert any("next try in" in words for words in told)
    settings.GANTRY_REGISTRY_RETRY_S = 60.0
    with ThreadPoolExecutor(1) as pool:
        told.clear()
        waiting = pool.submit(ensure, link, name, tell=told.append)
        wait_until(lambda: told, why="it is said that the registry is away")
        with registry:
            assert waiting.result(limit(60)).note == ""
    rig.forget(engine, name)


def test_credentials(engine: Rig, link: Engine, closed: Registry) -> None:
    """Without them and with wrong ones it is the user's mistake; no message holds the password."""
    name = pushed(engine, closed, "secret/app:1")
    failure = refused(link, name)
    assert (failure.reason, failure.ours) == (Reason.IMAGE, False)
    assert f"PUT /api/v1/registries/{closed.address}" in failure.message
    wrong = Credentials(holder="1/x", username=USER, password="wrong-password")
    failure = refused(link, name, credentials=wrong)
    assert "credentials stored" in failure.message
    assert "wrong-password" not in failure.message
    assert PASSWORD not in repr(MINE)
    assert ensure(link, name, credentials=MINE).digest
    rig.forget(engine, name)


def test_a_private_image_is_not_handed_to_others(engine: Rig, link: Engine, closed: Registry) -> None:
    """What came with one tenant's credentials is not on the node for another one, by whatever policy."""
    name = pushed(engine, closed, "secret/app:2", "LABEL private=yes")
    mine = ensure(link, name, credentials=MINE)
    theirs = Credentials(holder="2/127.0.0.1:5001/puller", username=USER, password="guessed")
    for credentials in (None, theirs):
        for policy in ("never", "missing", "always"):
            failure = refused(link, name, pull=policy, credentials=credentials)
            assert (failure.reason, failure.ours) == (Reason.IMAGE, False), policy
    # Its own holder needs no registry; another with valid credentials is let in by the registry.
    valid = Credentials(holder="3/127.0.0.1:5001/puller", username=USER, password=PASSWORD)
    assert ensure(link, name, pull="missing", credentials=valid).id == mine.id
    closed.stop()
    for credentials in (MINE, valid):
        assert ensure(link, name, pull="missing", credentials=credentials).id == mine.id
    assert refused(link, name, pull="missing", credentials=theirs).reason is Reason.IMAGE
    rig.forget(engine, name)


def test_an_image_for_all_stays_for_all(engine: Rig, link: Engine, registry: Registry) -> None:
    """Somebody's credentials, shown for what anybody may have, take it from nobody."""
    name = pushed(engine, registry, "open:1", "LABEL open=yes")
    first = ensure(link, name)
    assert ensure(link, name, credentials=MINE).id == first.id
    registry.stop()
    assert ensure(link, name, pull="missing").id == first.id
    rig.forget(engine, name)


class SlowDoor:
    """A registry in the engine's network that accepts and says nothing."""

    def __init__(self, engine: Rig) -> None:
        self._listener = engine.listen()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.visits: list[Any] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                self.visits.append(self._listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which else takes one more
        self._thread.join()
        self._listener.close()
        for visit in self.visits:
            visit.close()


@pytest.fixture
def silent(engine: Rig) -> Iterator[SlowDoor]:
    door = SlowDoor(engine)
    yield door
    door.close()


def pulls() -> int:
    return len(pulling._running)


def test_a_cancel_ends_a_pull_at_once(link: Engine, silent: SlowDoor) -> None:
    """Also while the registry says nothing; the engine is not kept busy by what nobody wants."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            ensure, link, f"{silent.address}/app:1", cancelled=stop.is_set, deadline_s=7200.0
        )
        wait_until(lambda: silent.visits, why="the registry is asked")
        stop.set()
        with pytest.raises(PullStopped):
            waiting.result(limit(90))
    wait_until(lambda: pulls() == 0, why="the pull's own thread ends too")


def test_the_deadline_ends_a_pull(link: Engine, silent: SlowDoor) -> None:
    failure = refused(link, f"{silent.address}/app:1", deadline_s=1.0)
    assert (failure.reason, failure.ours) == (Reason.IMAGE, False)
    assert "not within 1 s" in failure.message
    wait_until(lambda: pulls() == 0, why="the pull ends")


def test_runs_share_a_pull(link: Engine, silent: SlowDoor) -> None:
    """Two runs, one pull; it goes on when one of them is cancelled."""
    stops = [threading.Event(), threading.Event()]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(ensure, link, f"{silent.address}/app:1", cancelled=stop.is_set) for stop in stops]
        wait_until(
            lambda: [pull.waiting for pull in pulling._running.values()] == [2], why="both wait for one pull"
        )
        stops[0].set()
        with pytest.raises(PullStopped):
            both[0].result(limit(90))
        assert pulls() == 1
        assert not both[1].done()
        stops[1].set()
        with pytest.raises(PullStopped):
            both[1].result(limit(90))
    wait_until(lambda: pulls() == 0, why="no pull is left", see=pulls)


def test_no_more_pulls_at_once_than_allowed(link: Engine, silent: SlowDoor, settings: Any) -> None:
    settings.GANTRY_PULLS = 1
    stop, told = threading.Event(), [[], []]  # type: ignore[var-annotated]

    def wait_for(number: int) -> Callable[[], Image]:
        return lambda: ensure(
            link,
            f"{silent.address}/app{number}:1",
            cancelled=stop.is_set,
            tell=told[number].append,
        )

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(wait_for(0))
        wait_until(lambda: told[0] and silent.visits, why="the first one pulls")
        second = pool.submit(wait_for(1))
        wait_until(lambda: told[1], why="the second one says why it waits")
        assert "waiting for other pulls" in told[1][0]
        stop.set()
        for pending in (first, second):
            with pytest.raises(PullStopped):
                pending.result(limit(90))
    wait_until(lambda: pulls() == 0, why="no pull is left", see=pulls)


def test_progress_is_told(engine: Rig, link: Engine, registry: Registry) -> None:
    """A real pull names the image; the words of a long one are in the next test."""
    name = pushed(engine, registry, "progress:1", "RUN head -c 8000000 /dev/urandom > /filler")
    told: list[str] = []
    ensure(link, name, tell=told.append)
    assert told
    assert all(f"pulling image {name}" in words for words in told)
    rig.forget(engine, name)


def test_the_words_of_progress() -> None:
    progress = pulling.Progress()
    assert str(progress) == ""
    mib = 1024 * 1024
    for layer, current, total in (("a", 2, 10), ("b", 10, 20)):
        detail = {"current": current * mib, "total": total * mib}
        progress.see({"status": "Downloading", "id": layer, "progressDetail": detail})
    assert str(progress) == "40 % (12 of 30 MiB)"
    progress.see({"status": "Download complete", "id": "a"})
    assert str(progress) == "66 % (20 of 30 MiB)"
    progress.see({"status": "Pull complete", "id": "b"})
    progress.see({"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 2}})
    assert str(progress) == "unpacking 30 MiB"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("manifest for busybox:9 not found: manifest unknown: manifest unknown", Cause.MISSING),
        ("pull access denied for x, repository does not exist or may require 'docker login'", Cause.DENIED),
        ("Head https://r/v2/x: no basic auth credentials", Cause.DENIED),
        ("unauthorized: incorrect username or password", Cause.DENIED),
        ("no matching manifest for linux/amd64 in the manifest list entries", Cause.MISSING),
        ("toomanyrequests: You have reached your pull rate limit.", Cause.UNREACHABLE),
        ("received unexpected HTTP status: 502 Bad Gateway", Cause.UNREACHABLE),
        ('Get "https://r/v2/": dial tcp: lookup r on 10.0.0.1:53: no such host', Cause.UNREACHABLE),
        ('Get "https://r/v2/": net/http: request canceled while waiting for connection', Cause.UNREACHABLE),
        ("something that nobody has ever seen", Cause.UNREACHABLE),
        ('Get "https://r/v2/": x509: certificate signed by unknown authority', Cause.BROKEN),
        ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', Cause.BROKEN),
        ("write /var/lib/docker/tmp/x: no space left on device", Cause.NODE),
    ],
)
def test_what_the_engines_words_mean(said: str, cause: Cause) -> None:
    failure = pulling.classified(said)
    assert failure.cause is cause
    assert failure.said == pulling.Failure.of(cause).said


def test_no_window_into_other_services(caplog: pytest.LogCaptureFixture) -> None:
    """The engine quotes the answer of whatever host was named: not for a tenant, and not for the log."""
    failure = pulling.classified(
        "Get \"http://10.0.0.7:2375/x\": error parsing HTTP 404 response body: invalid character 's' looking "
        'for beginning of value: "secret page of an internal service"'
    )
    assert failure.said == "its registry gives no usable answer"
    assert "10.0.0.7:2375" in caplog.text
    assert "secret page" not in caplog.text


def test_the_engine_is_away(link: Engine, tmp_path: Path) -> None:
    """Not the run's fault: it is offered again."""
    nobody = Engine(Address.parse(f"unix://{tmp_path}/none.sock"))
    failure = refused(nobody, "busybox")
    assert (failure.reason, failure.ours) == (Reason.RUNTIME, True)
