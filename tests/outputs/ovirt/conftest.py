"""Servers that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.imageio import Daemon, imageio_daemon
from tests.ovirt_engine import Engine, ovirt_engine


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with imageio_daemon() as found:
        yield found


@pytest.fixture(scope="module")
def installed() -> Iterator[Engine]:
    with ovirt_engine() as engine:
        yield engine
