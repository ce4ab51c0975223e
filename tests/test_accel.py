"""Finding out whether KVM works: real guests, and a stand-in emulator for the other answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from v2v import accel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "v2v" / "accelerator.json"


@pytest.fixture
def emulator(tmp_path: Path):
    """A program that ends as an emulator whose guest did, or did not, run."""

    def make(exit_code: int) -> Path:
        path = tmp_path / "qemu-system-x86_64"
        path.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/calls\nexit {exit_code}\n")
        path.chmod(0o755)
        return path

    return make


def need_kvm_device() -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm here")


def test_the_boot_sector_runs_in_a_real_guest(need_tool):
    assert accel.guest_runs(need_tool("qemu-system-x86_64"), "tcg")


def test_kvm_is_the_answer_only_if_a_real_guest_ran(need_tool, cache):
    path = need_tool("qemu-system-x86_64")
    works = os.access("/dev/kvm", os.R_OK | os.W_OK) and accel.guest_runs(path, "kvm")
    assert accel.accelerator(path) == ("kvm" if works else "tcg")


def test_an_emulator_that_cannot_start_ran_no_guest(need_tool):
    assert not accel.guest_runs(need_tool("qemu-system-x86_64"), "no-such-accelerator")


@pytest.mark.parametrize("exit_code", [0, 1, 134])
def test_only_the_guest_can_make_the_exit_code(emulator, exit_code):
    assert not accel.guest_runs(str(emulator(exit_code)), "kvm")


def test_a_guest_that_ran_under_kvm_means_kvm_and_is_asked_once(emulator, cache, tmp_path):
    need_kvm_device()
    path = emulator(accel.GUEST_RAN)
    assert [accel.accelerator(str(path)) for _ in range(3)] == ["kvm"] * 3
    assert (tmp_path / "calls").read_text().count("ran") == 1


def test_another_emulator_is_asked_again(emulator, cache, tmp_path):
    need_kvm_device()
    assert accel.accelerator(str(emulator(accel.GUEST_RAN))) == "kvm"
    broken = emulator(1)
    os.utime(broken, ns=(1, 1))
    assert accel.accelerator(str(broken)) == "tcg"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": "yes"}'])
def test_a_damaged_cache_is_as_good_as_none(emulator, cache, content):
    need_kvm_device()
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert accel.accelerator(str(emulator(accel.GUEST_RAN))) == "kvm"


def test_other_architectures_are_not_probed(tmp_path):
    path = tmp_path / "qemu-system-aarch64"
    path.write_text("#!/bin/sh\nexit 33\n")
    path.chmod(0o755)
    assert accel.accelerator(str(path)) == "tcg"
