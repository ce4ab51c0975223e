"""`v2v copy` and `v2v checksum`, the real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_command import v2v
from tests.fakes.disks import disk_content
from tests.integration.processes import gone
from v2v.types import MiB

CONTENT = disk_content()
LARGE = 200 * MiB
SAFE = 8 * MiB  # what is made durable at once
SMALL_STEPS = f"""
from v2v.copy import target
target.CHECKPOINT, target.UNRECORDED = {SAFE}, {2 * SAFE}
from v2v.cli.start import main
main()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def test_copy_tells_what_it_did(disk: Path, jobs: Path, need_tool) -> None:
    need_tool("nbdkit")
    target = disk.with_name("copy")
    done = v2v("copy", str(disk), str(target), "--verify", jobs=jobs)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == CONTENT
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["target"] == f"{target} (raw)"
    assert lines["copied"].startswith("6 MiB: ")
    assert lines["checksum"] == v2v("checksum", str(disk), jobs=jobs).stdout.split()[0]
    assert "Copying the disk" in done.stderr
    assert list(jobs.glob("*/*")) == []


def test_copy_as_json(disk: Path, jobs: Path, need_tool) -> None:
    need_tool("qemu-img")
    target = disk.with_name("copy.qcow2")
    words = ("copy", str(disk), str(target), "-of", "qcow2", "--compressed", "--json")
    done = v2v(*words, "--progress", "json", jobs=jobs)
    result = json.loads(done.stdout)
    assert (result["source"], result["source_format"]) == (str(disk), "raw")
    assert (result["target"], result["format"]) == (str(target), "qcow2")
    assert result["size"] == len(CONTENT) == result["data"] + result["zero"]
    assert result["rate"] > 0
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events[0] == "step-started" and "copy-progress" in events


def test_quiet_copy_says_nothing(disk: Path, jobs: Path, need_tool) -> None:
    need_tool("nbdkit")
    done = v2v("copy", "-q", str(disk), str(disk.with_name("copy")), jobs=jobs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "id"),
    [
        ("copy", 2, "usage"),
        ("copy disk.img", 2, "usage"),
        ("copy disk.img a b", 2, "usage"),
        ("copy disk.img x --compressed", 2, "option-conflict"),
        ("copy disk.img x -of vmdk", 2, "option-value"),
        ("copy disk.img x -if iso", 2, "option-value"),
        ("copy disk.img x --parallel 2", 2, "option-unknown"),
        ("copy disk.img x --bandwidth fast", 2, "option-value"),
        ("copy disk.img disk.img --force", 6, "target-is-source"),
        ("copy disk.img .", 6, "target-not-a-file"),
        ("copy none.img x", 4, "source-missing"),
        ("copy http://127.0.0.1:9/disk.img x", 4, "http-unreachable"),
        ("copy nbd://127.0.0.1:9/ x", 4, "nbd-unreachable"),
        ("copy disk.img nbd://127.0.0.1:9/", 6, "target-unreachable"),
        ("copy disk.img x --resume --jobs-dir disk.img/jobs", 3, "jobs-folder"),
        ("checksum", 2, "usage"),
        ("checksum disk.img --check list", 2, "usage"),
        ("checksum --check none", 2, "checksum-list"),
        ("checksum --check disk.img", 2, "checksum-list"),
        ("checksum none.img", 4, "source-missing"),
        ("jobs limit", 2, "usage"),
        ("jobs limit some-job fast", 2, "option-value"),
        ("jobs limit some-job 5M", 9, "job-unknown"),
    ],
)
def test_one_clear_error_and_nothing_left(
    words: str,
    code: int,
    id: str,
    disk: Path,
    jobs: Path,
    need_tool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_tool("nbdkit")
    monkeypatch.chdir(disk.parent)
    done = v2v(*words.split(), jobs=jobs)
    assert done.returncode == code, done.stderr
    assert f"\n  id: {id}\n" in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert disk.read_bytes() == CONTENT
    assert {path.name for path in disk.parent.iterdir()} <= {"disk.img", "jobs"}
    assert list(jobs.glob(".*/*")) == []


# Killed -------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.img"
    noise = os.urandom(MiB)
    with path.open("wb") as file:
        for number in range(LARGE // MiB):
            file.write(number.to_bytes(8, "little") + noise[8:])
    return path


@pytest.fixture
def begun(large: Path, jobs: Path, need_tool) -> Iterator[subprocess.Popen[str]]:
    """A copy of which a part is safe, and that goes on for long."""
    need_tool("nbdkit")
    target = large.with_name("copy")
    words = ["copy", large, target, "--bandwidth", "4M", "--jobs-dir", jobs]
    argv = [sys.executable, "-c", SMALL_STEPS, *words]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        while not any(path.stat().st_size for path in jobs.glob(".copies/*/ledger")):
            assert process.poll() is None
            time.sleep(0.02)
        yield process
        process.kill()


def test_a_killed_copy_goes_on(begun: subprocess.Popen[str], large: Path, jobs: Path) -> None:
    """And no server of it is left running."""
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert gone(str(large))
    target = large.with_name("copy")
    assert not target.exists()

    listed = v2v("jobs", jobs=jobs).stdout
    assert f"v2v copy --resume {large} {target}" in listed
    again = v2v("copy", str(large), str(target), jobs=jobs)
    assert again.returncode == 9
    assert "id: copy-unfinished" in again.stderr

    done = v2v("copy", "--resume", str(large), str(target), "--json", jobs=jobs)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["resumed"] >= SAFE
    assert result["resumed"] + result["data"] == LARGE
    subprocess.run(["cmp", large, target], check=True)
    assert sorted(path.name for path in large.parent.iterdir()) == ["copy", "jobs", "large.img"]
    assert v2v("jobs", jobs=jobs).stdout == "no jobs\n"


def test_ctrl_c_keeps_what_was_copied_and_says_how_to_go_on(
    begun: subprocess.Popen[str], large: Path, jobs: Path
) -> None:
    begun.send_signal(signal.SIGINT)
    told = begun.communicate()[1]
    assert begun.returncode == 130
    command = next(line for line in told.splitlines() if "v2v copy --resume" in line).split("`")[1]
    assert command.split() == [
        *("v2v", "copy", "--resume", str(large), str(large.with_name("copy"))),
        *("--jobs-dir", str(jobs)),
    ]
    done = v2v(*command.split()[1:], "--json")
    assert json.loads(done.stdout)["resumed"] >= SAFE
    subprocess.run(["cmp", large, large.with_name("copy")], check=True)


# Checksums ----------------------------------------------------------------------------------------


def test_a_list_of_checksums_is_checked(disk: Path, jobs: Path, need_tool) -> None:
    need_tool("qemu-img")
    image, list_ = disk.with_suffix(".qcow2"), disk.with_name("CHECKSUMS")
    v2v("copy", str(disk), str(image), "-of", "qcow2", jobs=jobs)
    printed = v2v("checksum", str(disk), str(image), jobs=jobs).stdout
    first, second = (line.split("  ") for line in printed.splitlines())
    assert first[0] == second[0]
    assert [first[1], second[1]] == [str(disk), str(image)]

    list_.write_text(printed)
    words = ("checksum", "--check", str(list_))
    good = v2v(*words, jobs=jobs)
    assert (good.returncode, good.stdout) == (0, f"{disk}: OK\n{image}: OK\n")
    with disk.open("r+b") as file:
        file.seek(3 * MiB)
        file.write(b"another byte")
    bad = v2v(*words, jobs=jobs)
    assert (bad.returncode, bad.stdout) == (7, f"{disk}: DIFFERENT\n{image}: OK\n")
    disk.unlink()
    lost = v2v(*words, "--json", jobs=jobs)
    assert lost.returncode == 4
    assert [one["status"] for one in json.loads(lost.stdout)] == ["unreadable", "ok"]


def test_checksum_as_json(disk: Path, jobs: Path, need_tool) -> None:
    need_tool("nbdkit")
    (one,) = json.loads(v2v("checksum", str(disk), "--json", jobs=jobs).stdout)
    assert one["image"] == str(disk)
    assert len(one["checksum"]) == 64
