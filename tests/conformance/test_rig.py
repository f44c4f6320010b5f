"""The tests' own engines: what the other tests rely on."""

from __future__ import annotations

import contextlib

import pytest

from tests.support import images
from tests.support.engines import Engine
from tests.support.images import AS_APP, BUSYBOX, Registry
from tests.support.machine import alive
from tests.support.waiting import wait_until


def _sleeper(engine: Engine, name: str) -> str:
    made = engine.client.api.create_container(BUSYBOX, ["sleep", "600"], name=name, stop_signal="SIGKILL")[
        "Id"
    ]
    engine.client.api.start(made)
    return str(made)


def test_two_engines_do_not_see_each_other(engines: tuple[Engine, Engine]) -> None:
    one, other = engines
    _sleeper(one, "same-name")
    _sleeper(other, "same-name")
    assert [item["Name"] for item in one.containers()] == ["/same-name"]
    one.clean()
    assert one.containers() == []
    assert len(other.containers()) == 1


def test_a_killed_engine_comes_back_with_or_without_its_containers(mortal_engine: Engine) -> None:
    engine = mortal_engine
    made = _sleeper(engine, "box")
    before = engine.pids(made)
    assert before
    engine.kill_daemon()
    assert not engine.answers()
    engine.start_daemon()
    wait_until(lambda: not engine.containers()[0]["State"]["Running"], why="dockerd stopped what it found")
    assert not any(map(alive, before))
    engine.client.api.start(made)
    engine.stop_daemon()
    engine.start_daemon(live_restore=True)
    engine.client.api.start(made)
    kept = engine.pids(made)
    for end in (engine.kill_daemon, engine.stop_daemon):
        end()
        assert all(map(alive, kept))
        engine.start_daemon(live_restore=True)
        assert engine.pids(made) == kept
        assert engine.containers()[0]["State"]["Running"]
    engine.stop()
    assert not any(map(alive, kept))
    assert not engine.folder.exists()


def test_images_are_run_as_they_say(engine: Engine) -> None:
    for image, user in ((BUSYBOX, b"0"), (AS_APP, b"1000")):
        assert engine.client.containers.run(image, ["id", "-u"]).strip() == user


@pytest.mark.parametrize("closed", [False, True])
def test_an_image_is_pushed_and_pulled(engine: Engine, closed: bool) -> None:
    auth = {"username": images.USER, "password": images.PASSWORD} if closed else None
    with Registry(engine, closed=closed) as registry:
        name = registry.push(BUSYBOX, "team/box:7")
        images.forget(engine, name)
        assert not engine.client.api.images(name)
        engine.client.images.pull(name, auth_config=auth)
        assert engine.client.containers.run(name, ["echo", "pulled"]) == b"pulled\n"
        images.forget(engine, name)


def test_a_published_port_is_reached(engine: Engine) -> None:
    engine.client.containers.run(
        BUSYBOX, ["sh", "-c", "echo hello | nc -l -p 80"], detach=True, ports={"80/tcp": 8080}
    )

    def said() -> bytes:
        """What is said on the port; the proxy takes a connection before anybody listens behind it."""
        with contextlib.suppress(ConnectionError), engine.connect(8080) as link:
            return link.recv(16)
        return b""

    assert wait_until(said, why="somebody listens behind the port") == b"hello\n"
    with engine.listen() as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
