"""Module names, dependencies and kmod's index, against what depmod itself makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conversion.linux.modules import dep_index, module_name, parse_modules, write_dep

DEP = """\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko.xz:
kernel/drivers/virtio/virtio_pci.ko.zst: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko.xz
kernel/a-dash.ko: kernel/loop-b.ko
kernel/loop-b.ko: kernel/a-dash.ko
garbage without a colon
"""  # noqa: E501


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("kernel/net/virtio-net.ko", "virtio_net"),
        ("x.ko.xz", "x"),
        ("x.ko.zst", "x"),
        ("x.ko.gz", "x"),
        ("x.ko.sig", None),
        ("x.o", None),
        ("modules.dep", None),
        ("", None),
    ],
)
def test_module_name(path: str, name: str | None) -> None:
    assert module_name(path) == name


def test_closure_holds_all_that_is_needed_and_nothing_built_in() -> None:
    modules = parse_modules(DEP, "kernel/drivers/virtio/virtio.ko\n")
    assert modules.closure(["virtio_pci", "virtio_blk", "nosuch"]) == (
        "virtio_blk",
        "virtio_pci",
        "virtio_ring",
    )
    assert modules.has("virtio") and not modules.has("nosuch")


def test_closure_ends_on_a_circle() -> None:
    assert parse_modules(DEP).closure(["a_dash"]) == ("a_dash", "loop_b")


def test_written_dep_names_the_paths_it_is_given() -> None:
    modules = parse_modules(DEP)
    text = write_dep(modules, {"virtio_blk": "b/virtio_blk.ko", "virtio_ring": "r/virtio_ring.ko"})
    assert text == "b/virtio_blk.ko: r/virtio_ring.ko\nr/virtio_ring.ko:\n"


def real_modules() -> Path | None:
    return next(iter(sorted(Path("/lib/modules").glob("*/modules.dep.bin"))), None)


@pytest.mark.skipif(real_modules() is None, reason="no kernel is installed here")
def test_index_is_byte_for_byte_what_depmod_writes() -> None:
    binary = real_modules()
    assert binary is not None
    text = binary.with_name("modules.dep").read_text()
    assert dep_index(text) == binary.read_bytes()


@pytest.mark.skipif(real_modules() is None, reason="no kernel is installed here")
def test_modprobe_reads_our_index(tmp_path: Path, need_tool) -> None:
    binary = real_modules()
    assert binary is not None
    modules = parse_modules(binary.with_name("modules.dep").read_text())
    names = modules.closure(["virtio_net"])
    dep = write_dep(modules, {name: f"x/{name}.ko.xz" for name in names})
    folder = tmp_path / "lib/modules/6.1"
    (folder / "x").mkdir(parents=True)
    for name in names:
        (folder / f"x/{name}.ko.xz").touch()
    (folder / "modules.dep.bin").write_bytes(dep_index(dep))
    argv = [need_tool("modprobe"), "-d", str(tmp_path), "-S", "6.1", "-D", "virtio_net"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    loaded = [line.split("/")[-1].split(".")[0] for line in shown.splitlines() if "insmod" in line]
    assert sorted(loaded) == sorted(names) and loaded[-1] == "virtio_net"
