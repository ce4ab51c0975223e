"""The contract suite, on -i http."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.input_suite import InputCase, InputSuite
from tests.contract.test_inputs import make
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v.inputs._plain import ImageOptions
from v2v.inputs.http import HttpInput
from v2v.types import GiB


class TestWebServer(InputSuite):
    @pytest.fixture
    def case(self, tmp_path: Path, need_tool) -> Iterator[InputCase]:
        for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
            need_tool(tool)
        raw = make(tmp_path / "raw", "raw", disk_content(1))
        vmdk = make(tmp_path / "vmdk", "vmdk-streamOptimized", disk_content(2))
        with serve_folder(raw.parent) as first, serve_folder(vmdk.parent) as second:
            yield InputCase(
                HttpInput(ImageOptions(), [f"{first}/guest.img", f"{second}/guest.img"]),
                [disk_content(1), disk_content(2)],
                name="guest",
                sources=[raw.parent, vmdk.parent],
                expect={"nics": None, "memory": 2 * GiB, "vcpus": 1},
            )
