"""Every input against the contract."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.contract.input_suite import ContentSuite, InputCase, InputSuite
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v import registry
from v2v.inputs._plain import ImageOptions
from v2v.inputs.disk import DiskInput
from v2v.types import DiskFormat, GiB

FORMATS = {
    "raw": (),
    "qcow2": ("-O", "qcow2"),
    "qcow2-compressed": ("-O", "qcow2", "-c"),
    "qcow2-old": ("-O", "qcow2", "-o", "compat=0.10"),
    "vmdk-monolithicSparse": ("-O", "vmdk", "-o", "subformat=monolithicSparse"),
    "vmdk-monolithicFlat": ("-O", "vmdk", "-o", "subformat=monolithicFlat"),
    "vmdk-twoGbMaxExtentSparse": ("-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
    "vmdk-twoGbMaxExtentFlat": ("-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"),
    "vmdk-streamOptimized": ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    "vpc-dynamic": ("-O", "vpc"),
    "vpc-fixed": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("-O", "vhdx"),
    "vdi": ("-O", "vdi"),
    "vdi-static": ("-O", "vdi", "-o", "static=on"),
    "raw.gz": (),
    "raw.xz": (),
    "qcow2.gz": ("-O", "qcow2"),
    "symlink": (),
    "odd-size": (),
    "comma": ("-O", "qcow2"),
    "backing": ("-O", "qcow2"),
}
CHS_SLACK = 1024 * 1024  # a VHD that qemu-img makes is rounded up to a whole cylinder


@pytest.fixture
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit"):
        need_tool(tool)


def make(folder: Path, kind: str, content: bytes) -> Path:
    """A disk file of the kind, made with qemu-img."""
    folder.mkdir()
    raw = folder / "guest.raw"
    raw.write_bytes(content)
    path = folder / ("guest,a.img" if kind == "comma" else "guest.img")
    if FORMATS[kind]:
        argv = ["qemu-img", "convert", "-f", "raw", *FORMATS[kind], str(raw), str(path)]
        subprocess.run(argv, check=True, capture_output=True)
        raw.unlink()
    else:
        raw.rename(path)
    if kind == "symlink":
        path.rename(folder / "other.bin")
        path.symlink_to("other.bin")
    if kind.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    if kind.endswith(".xz"):
        path.write_bytes(lzma.compress(path.read_bytes(), preset=0))
    if kind == "backing":
        path = _on_top(folder, path)
    return path


def _on_top(folder: Path, base: Path) -> Path:
    top = folder / "guest.qcow2"
    base.rename(folder / "base")
    argv = ["qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", "base", str(top)]
    subprocess.run(argv, check=True, capture_output=True)
    return top


WHOLE_SUITE = ("raw", "qcow2", "vmdk-monolithicFlat", "raw.gz", "backing")


def disk_case(kind: str, folder: Path) -> InputCase:
    content = disk_content() + (b"tail" * 50 if kind == "odd-size" else b"")
    path = make(folder / "vm", kind, content)
    return InputCase(
        DiskInput(ImageOptions(), [str(path)]),
        [content],
        name="guest,a" if kind == "comma" else "guest",
        sources=[path.parent],
        slack=CHS_SLACK if kind == "vpc-dynamic" else 0,
        expect={"nics": None, "memory": 2 * GiB, "vcpus": 1},
    )


class TestDiskFiles(InputSuite):
    @pytest.fixture(params=WHOLE_SUITE)
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        return disk_case(request.param, tmp_path)


class TestDiskFormats(ContentSuite):
    @pytest.fixture(params=[kind for kind in FORMATS if kind not in WHOLE_SUITE])
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        return disk_case(request.param, tmp_path)


class TestTwoDisks(InputSuite):
    @pytest.fixture
    def case(self, tmp_path: Path, tools: None) -> InputCase:
        first = make(tmp_path / "a", "qcow2", disk_content(1))
        second = make(tmp_path / "b", "vmdk-streamOptimized", disk_content(2))
        return InputCase(
            DiskInput(ImageOptions(), [str(first), str(second)]),
            [disk_content(1), disk_content(2)],
            name="guest",
            sources=[tmp_path / "a", tmp_path / "b"],
        )


@contextmanager
def web_case(kind: str, folder: Path) -> Iterator[InputCase]:
    path = make(folder / "vm", kind, disk_content())
    with serve_folder(path.parent) as address:
        yield InputCase(
            DiskInput(ImageOptions(), [f"{address}/{quote(path.name)}"]),
            [disk_content()],
            name="guest",
            sources=[path.parent],
        )


class TestWeb(InputSuite):
    @pytest.fixture
    def case(self, tmp_path: Path, tools: None) -> Iterator[InputCase]:
        with web_case("qcow2", tmp_path) as case:
            yield case


class TestWebFormats(ContentSuite):
    @pytest.fixture(params=["raw", "raw.gz", "vpc-fixed"])
    def case(
        self, request: pytest.FixtureRequest, tmp_path: Path, tools: None
    ) -> Iterator[InputCase]:
        with web_case(request.param, tmp_path) as case:
            yield case


class TestNbd(InputSuite):
    """The server is another job's, so that its processes are not taken for the input's."""

    @pytest.fixture(params=[None, DiskFormat.QCOW2])
    def case(
        self, request: pytest.FixtureRequest, tmp_path: Path, tools: None
    ) -> Iterator[InputCase]:
        path = make(tmp_path / "vm", request.param or "raw", disk_content())
        socket = tmp_path / "s"
        with detached_nbdkit(path, socket):
            yield InputCase(
                DiskInput(ImageOptions(format=request.param), [f"nbd+unix:///?socket={socket}"]),
                [disk_content()],
                name="unknown",
                sources=[path.parent],
            )


def test_every_input_runs_the_suite() -> None:
    """The cases of disk are above, those of the others in files named after them."""
    files = Path(__file__).parent.glob("test_input_*.py")
    others = {path.stem.removeprefix("test_input_") for path in files}
    assert set(registry.inputs()) == {"disk", *others}


class detached_nbdkit:
    """A server that is no child of this process; writable, unless it serves what others read."""

    def __init__(self, path: Path, socket: Path, *, read_only: bool = False) -> None:
        self.pid_file = socket.with_suffix(".pid")
        self.argv = [str(shutil.which("nbdkit")), "--pidfile", str(self.pid_file)]
        self.argv += ["--unix", str(socket), *(["--readonly"] if read_only else [])]
        self.argv += ["file", str(path)]

    def __enter__(self) -> None:
        subprocess.run(self.argv, check=True)  # it forks once it listens, and then writes its pid
        while not self._pid():
            time.sleep(0.01)

    def __exit__(self, *exc: object) -> None:
        subprocess.run(["kill", self._pid()], check=True)

    def _pid(self) -> str:
        return self.pid_file.read_text().strip() if self.pid_file.exists() else ""
