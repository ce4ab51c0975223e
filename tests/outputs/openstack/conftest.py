"""A cloud for each test, and nothing of the user's own login."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openstack_cloud import Cloud, running
from v2v import password


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("OS_", "V2V_OUTPUT")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.setattr(password, "_answers", {})
    monkeypatch.setattr(password, "TERMINAL", Path("/no-such/terminal"))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with running(tmp_path / "cloud") as cloud:
        yield cloud
