"""What every test can use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from v2v.events import Event
from v2v.run import Run


@pytest.fixture
def events_seen() -> list[Event]:
    """The events that the `run` fixture's job emits."""
    return []


@pytest.fixture
def run(tmp_path: Path, events_seen: list[Event]) -> Iterator[Run]:
    with Run.create(tmp_path / "jobs", "test", emit=events_seen.append) as run:
        yield run


@pytest.fixture
def need_tool():
    """Skip on a laptop, fail in CI, when a program is missing."""
    import os

    def need(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is None:
            message = f"{name} is not installed (make setup installs it)"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return need


@pytest.fixture(scope="session")
def guest_image() -> Callable[[str], Path]:
    """The image of a guest of `fixtures`, by name; read-only, built when missing."""
    import os

    import fixtures
    from fixtures.tools import MissingTool

    def image(name: str) -> Path:
        try:
            return fixtures.guest(name)
        except MissingTool as exc:
            if os.environ.get("CI"):
                pytest.fail(str(exc))
            pytest.skip(str(exc))

    return image
