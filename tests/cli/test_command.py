"""The real `v2v` command, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

V2V = Path(sys.executable).with_name("v2v")
COMMANDS = (
    "list",
    "convert",
    "inspect",
    "open",
    "copy",
    "checksum",
    "doctor",
    "modes",
    "jobs",
    "resume",
    "undo",
    "completion",
)


def v2v(*words: str, jobs: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "100", **more}
    if jobs:
        env["V2V_JOBS"] = str(jobs)
    return subprocess.run(
        [V2V, *words], capture_output=True, text=True, env=env, check=False, timeout=120
    )


def test_help_names_every_command() -> None:
    done = v2v("--help")
    assert done.returncode == 0
    assert all(f"\n    {command} " in done.stdout for command in COMMANDS)
    assert "examples:" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(command: str) -> None:
    done = v2v(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: v2v {command}")


def test_no_words_print_the_help() -> None:
    done = v2v()
    assert done.returncode == 2
    assert "commands:" in done.stdout


@pytest.mark.parametrize("word", ["-V", "--version", "-version"])
def test_version(word: str) -> None:
    from v2v import __version__

    assert v2v(word).stdout == f"v2v {__version__}\n"


@pytest.mark.parametrize(
    ("words", "id", "hint"),
    [
        ("convret x", "command-unknown", "did you mean convert?"),
        ("convert x --boot-chek", "option-unknown", "did you mean --boot-check?"),
        ("convert x -o locla -os /tmp", "mode-unknown", "did you mean local?"),
        ("convert x -i dsik -o null", "mode-unknown", "did you mean disk?"),
        ("convert -o local -os .", "guest-missing", "for example"),
        ("inspect", "guest-missing", "for example"),
        ("convert -o locl", "mode-unknown", "did you mean local?"),
        ("convert x -o null --boot-check 60", "option-value", "--boot-check=60"),
        ("convert x -o null -it ssh", "option-unknown", "it takes: -if"),
        ("convert x --progress jsn", "option-value", "did you mean json?"),
        ("completion bsh", "option-value", "did you mean bash?"),
        ("doctor x", "usage", "see `v2v doctor --help`"),
        ("resume", "usage", "see `v2v resume --help`"),
        ("modes loacl", "mode-unknown", "did you mean local?"),
        ("jobs forget x", "usage", "v2v jobs discard JOB"),
        ("convert x --machine-readable=pigeon", "option-value", "stream:stdout"),
    ],
)
def test_usage_errors(words: str, id: str, hint: str, tmp_path: Path) -> None:
    done = v2v(*words.split(), jobs=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("v2v: error: ")
    assert f"id: {id}\n" in done.stderr
    assert f"hint: {hint}" in done.stderr or hint in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_source_is_told_with_its_exit_code(tmp_path: Path) -> None:
    done = v2v("convert", str(tmp_path / "none.img"), "-o", "null", jobs=tmp_path / "jobs")
    assert done.returncode == 4
    assert "none.img" in done.stderr


def test_errors_are_events_too(tmp_path: Path) -> None:
    done = v2v("convert", str(tmp_path / "none.img"), "-o", "null", "--json", jobs=tmp_path / "j")
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "job-failed"
    assert f"id: {last['error']}" in done.stderr


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    done = v2v("convert", f"{tmp_path}/a\033[31mb.img", "-o", "null", jobs=tmp_path / "jobs")
    assert done.returncode == 4
    assert "\033" not in done.stdout + done.stderr


def test_modes() -> None:
    done = v2v("modes")
    assert done.returncode == 0
    for mode in ("-i disk", "-o local", "-o null", "-o qemu"):
        assert f"{mode} " in done.stdout


def test_modes_json_lists_options() -> None:
    rows = json.loads(v2v("modes", "--json").stdout)
    local = next(row for row in rows if row["flag"] == "-o" and row["mode"] == "local")
    assert "-os" in [option["flag"] for option in local["options"]]


def test_options_of_a_mode() -> None:
    assert "-oo compressed" in v2v("modes", "local").stdout
    assert "-oo compressed" in v2v("convert", "-o", "local", "-oo", "?").stdout
    assert "--storage IN:OUT" in v2v("modes", "libvirt").stdout
    assert "--storage IN:OUT" not in v2v("modes", "local").stdout
    for command in ("convert", "inspect"):
        assert "-io allow-backing=PATH" in v2v(command, "-io", "?").stdout


def test_machine_readable_without_guests_lists_capabilities() -> None:
    lines = v2v("convert", "--machine-readable").stdout.splitlines()
    assert {"v2v", "input:disk", "output:local", "output:null", "convert:linux"} <= set(lines)
    assert {"output:rhv-upload", "output:ovirt-upload", "output:block"} <= set(lines)
    assert v2v("--machine-readable").stdout.splitlines() == lines


def test_jobs_of_a_new_host(tmp_path: Path) -> None:
    assert v2v("jobs", jobs=tmp_path / "none").stdout == "no jobs\n"
    assert json.loads(v2v("jobs", "--json", jobs=tmp_path / "none").stdout) == []


@pytest.mark.parametrize("words", [("resume", "none"), ("jobs", "discard", "none")])
def test_unknown_job(words: tuple[str, ...], tmp_path: Path) -> None:
    done = v2v(*words, jobs=tmp_path)
    assert done.returncode == 9
    assert "id: job-unknown" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str) -> None:
    done = v2v("completion", shell)
    assert done.returncode == 0
    assert "--boot-check" in done.stdout or shell == "tcsh"


def test_bash_accepts_the_completion(need_tool) -> None:
    need_tool("bash")
    script = v2v("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_bash_completes_an_option(need_tool) -> None:
    need_tool("bash")
    script = v2v("completion", "bash").stdout
    ask = """
COMP_WORDS=(v2v convert --boot-c); COMP_CWORD=2
f=$(complete -p v2v | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f v2v --boot-c convert
echo "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
    assert "--boot-check" in done.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    shell = f"{V2V} convert --help | head -c 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("words", [("--help",), ("convert", "--help"), ("modes",)])
def test_a_reader_that_has_left_before_all_is_no_error(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        env = {key: word for key, word in os.environ.items() if key != "PYTHONUNBUFFERED"}
        argv = [V2V, *words]
        done = subprocess.run(argv, stdout=gone, stderr=subprocess.PIPE, env=env, timeout=120)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """1 MiB of a disk: a boot sector's signature, and holes."""
    path = tmp_path / "vm.img"
    with path.open("wb") as stream:
        stream.truncate(1 << 20)
        stream.seek(510)
        stream.write(b"\x55\xaa")
    return path


def test_convert_tells_what_it_did(disk: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    done = v2v(*f"-i disk {disk} -o local -os {tmp_path} --no-convert".split(), jobs=jobs)
    assert (done.returncode, done.stderr) == (0, "")
    assert "] Copying disk 1/1\n" in done.stdout
    assert f"  disk      {tmp_path}/vm-sda\n" in done.stdout
    assert (tmp_path / "vm-sda").read_bytes() == disk.read_bytes()
    (job,) = json.loads(v2v("jobs", "--json", jobs=jobs).stdout)
    assert (job["name"], job["state"]) == ("vm", "finished")


def test_quiet_convert_says_nothing(disk: Path, tmp_path: Path) -> None:
    done = v2v("convert", str(disk), "-q", "-o", "null", "--no-convert", jobs=tmp_path / "jobs")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_convert_as_json_lines(disk: Path, tmp_path: Path) -> None:
    done = v2v("convert", str(disk), "--json", "-o", "null", "--no-convert", jobs=tmp_path / "j")
    kinds = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert (kinds[0], kinds[-1]) == ("job-started", "job-finished")
    assert "copy-progress" in kinds


def test_print_source_starts_no_job(disk: Path, tmp_path: Path) -> None:
    words = ("convert", str(disk), "-on", "web", "--print-source")
    assert v2v(*words, jobs=tmp_path / "j").stdout.startswith("name:        web\n")
    source = json.loads(v2v(*words, "--json", jobs=tmp_path / "j").stdout)
    assert (source["name"], source["disks"][0]["location"]) == ("web", str(disk))
    assert v2v("jobs", jobs=tmp_path / "j").stdout == "no jobs\n"


def test_print_source_warns_on_stderr(disk: Path, tmp_path: Path) -> None:
    with disk.open("ab") as file:
        file.write(b"end")
    done = v2v("convert", str(disk), "--print-source", "--json", jobs=tmp_path / "j")
    assert json.loads(done.stdout)["name"] == "vm"
    assert "not a multiple of 512" in done.stderr


def test_existing_target_is_refused_and_the_job_can_go_on_from_elsewhere(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are those of the place where the job was started."""
    jobs = tmp_path / "jobs"
    (tmp_path / "vm-sda").write_text("precious")
    monkeypatch.chdir(tmp_path)
    done = v2v(*["convert", "vm.img", "-o", "local", "-os", ".", "--no-convert"], jobs=jobs)
    assert done.returncode == 6
    assert "id: target-exists" in done.stderr
    assert (tmp_path / "vm-sda").read_text() == "precious"
    resume = next(line for line in done.stderr.splitlines() if "v2v resume" in line)

    (tmp_path / "vm-sda").unlink()
    monkeypatch.chdir("/")
    assert v2v("resume", resume.split()[-1], jobs=jobs).returncode == 0
    assert (tmp_path / "vm-sda").read_bytes() == disk.read_bytes()


def test_a_password_in_an_address_is_written_nowhere(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    done = v2v("convert", "http://me:sesame@127.0.0.1:9/vm.img", "-o", "null", jobs=jobs)
    assert done.returncode == 2
    assert "id: password-in-uri" in done.stderr
    assert "sesame" not in done.stdout + done.stderr
    assert not jobs.exists()


def test_discard_removes_a_job(disk: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    v2v("convert", str(disk), "-o", "null", "--no-convert", jobs=jobs)
    (job,) = json.loads(v2v("jobs", "--json", jobs=jobs).stdout)
    assert v2v("jobs", "discard", job["job"], jobs=jobs).returncode == 0
    assert v2v("jobs", jobs=jobs).stdout == "no jobs\n"
