"""-o vdsm: its UUIDs, and what a program of oVirt finds afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import export_domain
from tests.contract.test_output_vdsm import IMAGES, UUIDS, VM, VOLUMES
from tests.outputs.migrating import Jobs, refused
from tests.outputs.ovirt.engine_reader import read
from tests.outputs.ovirt.test_ovf import validate
from tests.outputs.ovirt.test_rhv import source, write_disk
from v2v import options, registry
from v2v.errors import UsageError
from v2v.options import SEPARATOR
from v2v.outputs._ovirt.ovf import Flavour
from v2v.run import Run
from v2v.types import MiB

ONE = {
    "-oo vdsm-image-uuid": IMAGES[0],
    "-oo vdsm-vol-uuid": VOLUMES[0],
    "-oo vdsm-vm-uuid": VM,
}


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    root = export_domain.build(tmp_path / "pool", uuid=export_domain.DATA, kind="Data")
    for image in IMAGES:
        (root / "images" / image).mkdir()
    return root


def vdsm(domain: Path, **more: str):
    cls = registry.find_output("vdsm")
    words = {"-os": str(domain), **UUIDS, **{f"-oo vdsm-{k}": w for k, w in more.items()}}
    return cls(options.parse(cls.Options, words, module="-o vdsm"))


@pytest.mark.parametrize("flavour", list(Flavour))
def test_what_a_job_leaves(domain, tmp_path, monkeypatch, flavour: Flavour) -> None:
    write_disk(tmp_path / "web.img")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = {"-os": str(domain), **ONE, "-oo vdsm-ovf-flavour": str(flavour)}
    Jobs(tmp_path / "jobs", "vdsm").convert(tmp_path / "web.img", words)
    volume = domain / "images" / IMAGES[0] / VOLUMES[0]
    assert volume.read_bytes() == (tmp_path / "web.img").read_bytes()
    assert f"DOMAIN={export_domain.DATA}\n" in Path(f"{volume}.meta").read_text()
    content = (tmp_path / "here" / f"{VM}.ovf").read_bytes()
    validate(content, flavour)
    told = read(content, flavour)
    assert told.vm == VM
    assert [(disk["image"], disk["volume"]) for disk in told.disks] == [(IMAGES[0], VOLUMES[0])]


def test_a_job_goes_on_with_the_folder_where_it_began(domain, tmp_path, monkeypatch, run) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    vdsm(domain).check_source(source(2), run)
    monkeypatch.chdir(tmp_path / "second")
    with vdsm(domain).layout(2, run) as layout:
        assert layout.final_ovf == tmp_path / "first" / f"{VM}.ovf"


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (1, {}),
        (3, {}),
        (2, {"image-uuid": IMAGES[0]}),
        (2, {"vol-uuid": SEPARATOR.join([*VOLUMES, VOLUMES[0]])}),
        (2, {"image-uuid": SEPARATOR.join([IMAGES[0]] * 2)}),
        (2, {"vol-uuid": SEPARATOR.join([VOLUMES[0]] * 2)}),
    ],
)
def test_wrong_counts(domain: Path, run: Run, count: int, changes: dict[str, str]) -> None:
    error = refused(
        "vdsm-uuid-count", lambda: vdsm(domain, **changes).check_source(source(count), run)
    )
    assert isinstance(error, UsageError)


@pytest.mark.parametrize(
    "bad", ["", "..", "../../x", IMAGES[0].upper(), IMAGES[0] + "\n", "a" * 36]
)
@pytest.mark.parametrize("which", ["image-uuid", "vol-uuid", "vm-uuid"])
def test_what_is_no_uuid(domain: Path, run: Run, bad: str, which: str) -> None:
    word = bad if which == "vm-uuid" else SEPARATOR.join([bad, VOLUMES[1]])
    refused("vdsm-uuid", lambda: vdsm(domain, **{which: word}).check_source(source(2), run))


def test_the_domain_is_named_by_a_uuid(domain: Path, run: Run) -> None:
    refused("vdsm-uuid", lambda: vdsm(domain / "images").check_source(source(2), run))


def test_what_was_begun_in_a_domain_that_is_not_mounted_now_is_not_forgotten(
    domain: Path, run: Run
) -> None:
    output = vdsm(domain)
    output.create_disks(source(2), [MiB, MiB], run)
    away = domain.rename(domain.with_name("away"))
    refused("target-folder", lambda: output.check_sizes([MiB, MiB], [0, 0], run))
    refused("target-folder", lambda: output.discard((), run))
    away.rename(domain)
    output.discard((), run)
    assert not list(domain.rglob(".*.part"))


KILLED = """
import os, signal, sys
from v2v import disk_files
from v2v.cli.main import main

real = disk_files._publish_one
def kill(working, final, *args, **more):
    real(working, final, *args, **more)
    os.kill(os.getpid(), signal.SIGKILL)
disk_files._publish_one = kill
main(sys.argv[1:])
"""


def test_discarding_a_killed_job_says_which_volumes_stay(domain: Path, tmp_path: Path) -> None:
    write_disk(tmp_path / "web.img")
    jobs = ["--jobs-dir", tmp_path / "jobs"]
    words = ["-o", "vdsm", "-os", domain, "-oo", f"vdsm-ovf-output={tmp_path}", "--no-convert"]
    for key, word in ONE.items():
        words += ["-oo", f"{key.removeprefix('-oo ')}={word}"]
    argv = [sys.executable, "-c", KILLED, "convert", "-i", "disk", tmp_path / "web.img"]
    done = subprocess.run([*argv, *words, *jobs], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (job,) = (tmp_path / "jobs").iterdir()
    main = "from v2v.cli.main import main; main()"
    argv = [sys.executable, "-c", main, "jobs", "discard", job.name]
    done = subprocess.run([*argv, *jobs], check=True, capture_output=True, text=True)
    volume = domain / "images" / IMAGES[0] / VOLUMES[0]
    assert volume.is_file() and str(volume) in done.stderr


def test_folders_that_vdsm_did_not_make(domain: Path, run: Run) -> None:
    (domain / "images" / IMAGES[1]).rmdir()
    refused("target-folder", lambda: vdsm(domain).check_source(source(2), run))


@pytest.mark.parametrize("words", [{"compat": "2"}, {"ovf-flavour": "rhv"}])
def test_unknown_words(domain: Path, words: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        vdsm(domain, **words)
