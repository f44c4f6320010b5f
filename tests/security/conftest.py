"""What the attacks share with the integration tests: the API as a client meets it, processes in no hurry."""

from tests.integration.conftest import api, cluster

__all__ = ["api", "cluster"]
