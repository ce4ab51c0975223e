"""What every test can use."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from v2v.events import Event
from v2v.run import Run

UNMOUNT_SECONDS = 60.0

# A busy machine is no error of what is tested.
hypothesis.settings.register_profile(
    "v2v",
    parent=hypothesis.settings.default,  # in CI it is another one
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("v2v")


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist would begin the longest files last


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, or one processor waits for another at the end.

    Those are the ones that boot guests, then those with appliances; and the fewer tests such a file
    has, the longer is each of them.
    """
    tests = Counter(item.path for item in items)

    def slowness(path: Path) -> tuple[bool, bool, int]:
        slow = path in with_mark["boots"] or path in with_mark["appliance"]
        few = tests[path] if slow else -tests[path]
        return path not in with_mark["boots"], not slow, few

    with_mark = {
        mark: {item.path for item in items if item.get_closest_marker(mark)}
        for mark in ("boots", "appliance")
    }
    items.sort(key=lambda item: slowness(item.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What may be skipped on a laptop must run in CI: a skip fails there."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {call.excinfo and call.excinfo.value}"
    return report


@pytest.fixture(scope="session", autouse=True)
def jobs_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests that run at the same time, and what else runs here, have other jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("V2V_JOBS", str(tmp_path_factory.mktemp("default-jobs")))
        yield


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
    """Skip when a program is missing."""

    def need(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"{name} is not installed (make setup installs it)")
        return path

    return need


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=8m", "v2v-test", folder]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    deadline = time.monotonic() + UNMOUNT_SECONDS  # what was killed has files open for a while
    while (done := subprocess.run(["umount", folder], capture_output=True)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.1)


@pytest.fixture(scope="session")
def guest_image() -> Callable[[str], Path]:
    """The image of a guest of `fixtures`, by name; read-only, built when missing."""
    import fixtures
    from fixtures.tools import MissingTool

    def image(name: str) -> Path:
        try:
            return fixtures.guest(name)
        except MissingTool as exc:
            pytest.skip(str(exc))

    return image
