"""Jobs whose source fails under way: what the user is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import v2v
from fixtures.vmdk import write_vmdk
from fixtures.vmx import disk, write_vm
from tests.contract.input_suite import children
from tests.fakes.disks import disk_content
from tests.sshd import Sshd, sshd
from v2v.copy import fetch
from v2v.errors import SourceError
from v2v.types import MiB

CONTENT = disk_content()
convert = partial(v2v.convert, output="null")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture
def vm(tmp_path: Path, need_tool) -> Path:
    need_tool("nbdkit")
    folder = tmp_path / "vmfs" / "volumes" / "ds" / "web"
    write_vmdk(folder, "web", CONTENT)
    return write_vm(folder, disk("scsi0:0", "web.vmdk"))


@pytest.fixture
def fails(vm: Path, host: Sshd, tmp_path: Path) -> Callable[..., v2v.V2VError]:
    def fails(
        step: str, action: Callable[..., object] = convert, **options: object
    ) -> v2v.V2VError:
        """The error of a job whose disk loses its end when this step starts."""

        def emit(event: v2v.Event) -> None:
            if getattr(event, "step", "") == step:
                os.truncate(vm.with_name("web-flat.vmdk"), MiB)

        files = {"known-hosts": host.known_hosts, "identity": host.identity}
        words = {**files, "reader": "sftp"}  # it asks nothing before somebody wants it
        with pytest.raises(v2v.V2VError) as caught:
            action(
                host.uri(vm),
                input="vmx",
                input_options={f"-io ssh-{key}": str(word) for key, word in words.items()},
                jobs=tmp_path / "jobs",
                emit=emit,
                **options,
            )
        assert children() == set()
        return caught.value

    return fails


def test_a_copy_tells_which_file_of_the_source_it_was(
    fails: Callable[..., v2v.V2VError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RETRY_SECONDS", (0.01, 0.01))
    error = fails("disks", conversion=v2v.ConversionOptions(convert=False))
    assert isinstance(error, SourceError)
    assert "web-flat.vmdk" in error.message
    assert error.__cause__ is not None
    assert getattr(error.__cause__, "id", "") == "copy-read"


@pytest.mark.appliance
def test_a_conversion_is_not_blamed_for_what_it_could_not_read(
    fails: Callable[..., v2v.V2VError],
) -> None:
    error = fails("convert:launch")
    assert isinstance(error, SourceError)
    assert "web-flat.vmdk" in error.message


@pytest.mark.appliance
def test_an_inspection_does_not_call_a_guest_empty_that_it_could_not_read(
    fails: Callable[..., v2v.V2VError],
) -> None:
    error = fails("convert:launch", v2v.inspect)
    assert isinstance(error, SourceError)
    assert "web-flat.vmdk" in error.message
