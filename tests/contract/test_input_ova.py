"""-i ova against the contract of inputs."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from fixtures.ova import write_ova
from fixtures.ovf import OvfImage, write_ovf
from tests.contract.input_suite import ContentSuite, InputCase, InputSuite
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v.inputs.ova import OvaInput, OvaOptions
from v2v.types import MiB

FORMATS = {
    "raw": ("raw",),
    "qcow2": ("qcow2",),
    "vmdk": ("vmdk", "-o", "subformat=monolithicSparse"),
    "stream": ("vmdk", "-o", "subformat=streamOptimized"),
    "vhd": ("vpc", "-o", "subformat=fixed,force_size=on"),
    "vdi": ("vdi",),
    "gz": ("raw",),
    "vmdk.gz": ("vmdk", "-o", "subformat=streamOptimized"),
}


@pytest.fixture
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit"):
        need_tool(tool)


def make_disk(path: Path, kind: str, content: bytes) -> Path:
    raw = path.with_name(f"{path.name}.raw")
    raw.write_bytes(content)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", *FORMATS[kind], str(raw), str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    raw.unlink()
    if kind.endswith("gz"):
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    return path


def make_ova(folder: Path, container: str, disks: Sequence[str], name: str = "web.ova") -> Path:
    """A package of guest `guest` whose disks have the contents disk_content(1), (2), ..."""
    parts = folder / "parts"
    parts.mkdir(parents=True)
    files, images = {}, []
    for number, kind in enumerate(disks, 1):
        content = disk_content(number)
        href = f"disk{number}.{kind}"
        files[href] = make_disk(parts / href, kind, content)
        images.append(OvfImage(href, len(content), compression="gzip" if "gz" in kind else ""))
    files = {"web.ovf": write_ovf(parts / "web.ovf", "vsphere", images), **files}
    (folder / "package").mkdir()
    return write_ova(folder / "package" / name, container, files)


Packages = Callable[[str, tuple[str, ...]], Path]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Each is made once: an input changes nothing in it, which is a part of the contract."""
    return cache(
        lambda container, disks: make_ova(tmp_path_factory.mktemp("ova"), container, disks)
    )


def case_of(word: object, path: Path, disks: Sequence[str], slack: int = 0) -> InputCase:
    return InputCase(
        OvaInput(OvaOptions(), [str(word)]),
        [disk_content(number) for number, _ in enumerate(disks, 1)],
        name="guest",
        sources=[path.parent],
        slack=slack,
        expect={"vcpus": 2, "hypervisor": "vmware", "memory": 1024 * MiB},
    )


WHOLE = [
    ("tar", ("stream",)),
    ("tar", ("stream", "qcow2")),
    ("tar.gz", ("stream", "raw")),
    ("zip-deflated", ("stream",)),
    ("folder", ("stream", "raw")),
]


class TestOva(InputSuite):
    @pytest.fixture(params=WHOLE, ids=lambda param: "-".join([param[0], *param[1]]))
    def case(self, request: pytest.FixtureRequest, packages: Packages, tools: None) -> InputCase:
        path = packages(*request.param)
        return case_of(path, path, request.param[1])


class TestContainers(ContentSuite):
    @pytest.fixture(
        params=[
            ("tar", ("raw",)),
            ("tar", ("vmdk", "vhd", "vdi")),
            ("tar", ("gz",)),
            ("tar", ("vmdk.gz",)),
            ("tar.xz", ("stream",)),
            ("tar.gz", ("gz",)),
            ("zip", ("stream", "raw")),
            ("zip", ("gz",)),
        ],
        ids=lambda param: "-".join([param[0], *param[1]]),
    )
    def case(self, request: pytest.FixtureRequest, packages: Packages, tools: None) -> InputCase:
        container, disks = request.param
        slack = MiB if "vhd" in disks or "vdi" in disks else 0
        path = packages(container, disks)
        return case_of(path, path, disks, slack)


class TestOvfFile(ContentSuite):
    @pytest.fixture
    def case(self, packages: Packages, tools: None) -> InputCase:
        path = packages("folder", ("stream",))
        return case_of(path / "web.ovf", path, ["stream"])


@contextmanager
def web_case(path: Path, disks: Sequence[str], *, ranges: bool) -> Iterator[InputCase]:
    with serve_folder(path.parent, ranges=ranges) as address:
        yield case_of(f"{address}/{path.name}", path, disks)


class TestWeb(InputSuite):
    @pytest.fixture
    def case(self, packages: Packages, tools: None) -> Iterator[InputCase]:
        disks = ("stream", "raw")
        with web_case(packages("tar", disks), disks, ranges=True) as case:
            yield case


class TestWebContainers(ContentSuite):
    @pytest.fixture(
        params=[
            ("tar.gz", False),
            ("tar.xz", True),
            ("zip", True),
            ("zip-deflated", True),
        ],
        ids=lambda param: f"{param[0]}-{'ranges' if param[1] else 'whole'}",
    )
    def case(
        self, request: pytest.FixtureRequest, packages: Packages, tools: None
    ) -> Iterator[InputCase]:
        container, ranges = request.param
        disks = ("stream",)
        with web_case(packages(container, disks), disks, ranges=ranges) as case:
            yield case
