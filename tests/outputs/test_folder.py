"""Bad input for the outputs that fill a folder: each gets its own clear error."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.output_suite import shared
from v2v import options, registry
from v2v.copy.engine import copy_disk
from v2v.errors import CopyError, TargetError, UsageError, V2VError
from v2v.output import Output
from v2v.types import DiskFormat, GiB, MiB, Source, SourceDisk

SOURCE = Source(name="demo", input="disk", disks=(SourceDisk("/none", DiskFormat.RAW, MiB),))


def make(folder: Path, mode: str = "local", **words: str) -> Output:
    cls = registry.find_output(mode)
    words = {"-os": str(folder), **words}
    return cls(options.parse(cls.Options, words, module=f"-o {mode}"))


@pytest.fixture(params=["local", "qemu"])
def mode(request) -> str:
    return request.param


def refusal(output: Output, run, source: Source = SOURCE) -> V2VError:
    with pytest.raises(V2VError) as error:
        output.check_source(source, run)
    return error.value


def test_no_folder(mode, tmp_path, run) -> None:
    error = refusal(make(tmp_path / "none", mode), run)
    assert error.id == "target-folder"
    assert error.message == f"-os {tmp_path}/none: no such folder"


def test_a_file_for_a_folder(mode, tmp_path, run) -> None:
    (tmp_path / "file").touch()
    error = refusal(make(tmp_path / "file", mode), run)
    assert error.id == "target-folder"
    assert "not a folder" in error.message


def test_a_dangling_link_for_a_folder(tmp_path, run) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    assert refusal(make(tmp_path / "link"), run).id == "target-folder"


def test_a_link_to_a_folder_will_do(tmp_path, run) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    make(tmp_path / "link").check_source(SOURCE, run)


def test_a_folder_that_nobody_can_write(mode, small, run) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    error = refusal(make(small, mode), run)
    assert error.id == "target-unwritable"
    assert "Read-only" in error.message


def test_a_folder_with_an_unspeakable_name(tmp_path, run) -> None:
    folder = tmp_path / "a\x01b"
    folder.mkdir()
    assert refusal(make(folder), run).id == "target-folder-name"


@pytest.mark.parametrize(
    "words",
    [{"-oo compressed": ""}, {"-of": "qcow2", "-oo compressed": "", "-oa": "preallocated"}],
)
def test_options_that_exclude_each_other(tmp_path, run, words) -> None:
    error = refusal(make(tmp_path, **words), run)
    assert isinstance(error, UsageError)
    assert error.id == "option-conflict"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ({"-of": "qcow"}, "did you mean qcow2?"),
        ({"-of": "vmdk"}, None),
        ({"-oa": "spare"}, "did you mean sparse?"),
        ({"-oo compresed": ""}, "did you mean -oo compressed?"),
        ({"-oc": "x"}, None),
    ],
)
def test_wrong_words(mode, tmp_path, words, hint) -> None:
    with pytest.raises(UsageError) as error:
        make(tmp_path, mode, **words)
    assert hint is None or error.value.hint == hint


def test_the_folder_is_required(mode) -> None:
    cls = registry.find_output(mode)
    with pytest.raises(UsageError, match="needs -os"):
        options.parse(cls.Options, {}, module="-o")


@pytest.mark.parametrize(
    ("words", "used", "fits"),
    [
        ({}, 4 * MiB, True),
        ({}, 9 * MiB, False),
        ({"-of": "qcow2"}, 9 * MiB, False),
        ({"-oa": "preallocated"}, 0, False),
    ],
)
def test_space_is_checked(small, run, words, used, fits) -> None:
    output = make(small, **words)
    if fits:
        output.check_sizes([GiB], [used], run)
        return
    with pytest.raises(TargetError) as error:
        output.check_sizes([GiB], [used], run)
    assert error.value.id == "target-space"
    needed = "1 GiB" if "-oa" in words else "9 MiB"
    assert error.value.message == f"-os {small}: the disks need {needed}, 8 MiB are free"


def test_what_the_job_has_there_counts_as_free(small, run) -> None:
    output = make(small, **{"-oa": "preallocated"})
    output.create_disks(SOURCE, [6 * MiB], run)
    output.check_sizes([7 * MiB], [7 * MiB], run)


def test_a_vm_that_has_another_name_or_fewer_disks_by_now(mode, tmp_path, run) -> None:
    """The job begins again: what it had made for that VM goes."""
    disk = SOURCE.disks[0]
    output = make(tmp_path, mode)
    output.create_disks(replace(SOURCE, name="old", disks=(disk, disk)), [MiB, MiB], run)
    (made,) = output.create_disks(SOURCE, [MiB], run)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [Path(made.working)]


def test_a_disk_that_cannot_be_made_leaves_nothing(small, run) -> None:
    output = make(small, **{"-oa": "preallocated"})
    source = replace(SOURCE, disks=SOURCE.disks * 2)
    with pytest.raises(TargetError) as error:
        output.create_disks(source, [6 * MiB, 6 * MiB], run)
    assert error.value.id == "target-create"
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_space_that_runs_out_is_told(small, run, need_tool, format) -> None:
    from v2v import nbd_client, nbdkit

    need_tool("nbdkit")
    output = make(small, **{"-of": format})
    disks = output.create_disks(SOURCE, [32 * MiB], run)
    with (
        nbdkit.serve("pattern", ["32M"], run=run, name="source") as socket,
        output.connect(disks, run) as sinks,
        pytest.raises(CopyError) as error,
    ):
        copy_disk(0, nbd_client.describe(socket), sinks[0], shared())
    assert error.value.id == "target-full"
    output.discard(disks, run)
    assert list(small.iterdir()) == []
