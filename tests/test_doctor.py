"""`v2v doctor` tells the truth about this host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from v2v import doctor
from v2v.doctor import Status

V2V = Path(sys.executable).with_name("v2v")


def by_name(checks: tuple[doctor.Check, ...]) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


def test_host_with_everything_is_usable(need_tool, tmp_path: Path) -> None:
    for tool in doctor.TOOLS:
        need_tool(tool)
    checks = doctor.examine(tmp_path / "not" / "yet" / "there")
    assert doctor.usable(checks), [check for check in checks if check.status == Status.MISSING]
    found = by_name(checks)
    assert found["nbdkit"].detail[0].isdigit()
    assert found["file plugin"].status is Status.OK
    assert "free" in found["jobs"].detail
    assert not (tmp_path / "not").exists()  # looking creates nothing


def test_every_mode_is_told(tmp_path: Path) -> None:
    names = by_name(doctor.examine(tmp_path))
    assert {"-i disk", "-o local", "-o null", "-o qemu"} <= set(names)


def test_host_without_tools_is_not_usable_and_told_the_packages(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [V2V, "doctor", "--json"], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert told["usable"] is False
    checks = {check["name"]: check for check in told["checks"]}
    assert checks["nbdkit"]["status"] == "missing"
    assert checks["qemu-img"]["hint"].endswith(
        "apt-get install qemu-utils, or dnf install qemu-img"
    )


def test_text_names_the_package(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([V2V, "doctor"], capture_output=True, text=True, env=env, check=False)
    assert "apt-get install qemu-utils" in done.stdout
    assert "does not work here yet" in done.stdout


@pytest.mark.appliance
def test_launch_starts_an_appliance(tmp_path: Path) -> None:
    checks = by_name(doctor.examine(tmp_path, launch=True))
    assert checks["launch"].status is Status.OK, checks["launch"]
