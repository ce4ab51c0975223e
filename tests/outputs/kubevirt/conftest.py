"""A cluster, and an output that sends raw images to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.test_outputs import make
from tests.kubernetes import Fake, kubernetes, words
from v2v.output import Output


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with kubernetes(tmp_path / "cluster") as fake:
        yield fake


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


@pytest.fixture
def output(fake: Fake, staging: Path, need_tool) -> Output:
    need_tool("qemu-img")
    return make("kubevirt", words(fake, staging) | {"-of": "raw"})
