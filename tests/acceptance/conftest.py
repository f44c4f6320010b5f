"""A machine that stands still for seconds loses no node here: losing one is for the tests that say so."""

from __future__ import annotations

import pytest

from tests.support.cluster import PATIENT, Cluster


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    """The one of every test, in no hurry to give up nodes."""
    cluster.env |= PATIENT
    return cluster
