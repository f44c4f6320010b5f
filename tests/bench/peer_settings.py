"""Settings of the peer: the same project, server and authentication, with bare views instead of ours."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "tests.bench.peer_urls"
