"""The contract suite, on -i nbd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.input_suite import InputCase, InputSuite
from tests.contract.test_inputs import detached_nbdkit, make
from tests.fakes.disks import disk_content
from v2v.inputs._plain import ImageOptions
from v2v.inputs.nbd import NbdInput
from v2v.types import GiB


class TestNbdServer(InputSuite):
    """Two disks, of servers that are no children of ours."""

    @pytest.fixture
    def case(self, tmp_path: Path, need_tool) -> Iterator[InputCase]:
        for tool in ("nbdkit", "qemu-img"):
            need_tool(tool)
        files = [make(tmp_path / f"vm{i}", "raw", disk_content(i)) for i in (1, 2)]
        sockets = [tmp_path / f"s{i}" for i in (1, 2)]
        with detached_nbdkit(files[0], sockets[0]), detached_nbdkit(files[1], sockets[1]):
            yield InputCase(
                NbdInput(ImageOptions(), [f"nbd+unix:///?socket={one}" for one in sockets]),
                [disk_content(1), disk_content(2)],
                name="unknown",
                sources=[file.parent for file in files],
                expect={"nics": None, "memory": 2 * GiB, "vcpus": 1},
            )
