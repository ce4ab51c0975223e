"""Command lines and the jobs they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from v2v import registry
from v2v.cli import asked, keys, main
from v2v.errors import HostError, UsageError
from v2v.job import (
    ConversionOptions,
    CopyOptions,
    Job,
    ModuleChoice,
    NicMap,
    PageCache,
    StorageMap,
)
from v2v.types import KiB, MiB


def job_of(*words: str) -> Job:
    args = main.parse(["convert", *words])
    with keys.key_files(args.key, from_stdin=False) as files:
        return asked.to_job(args, files)


def test_defaults() -> None:
    assert job_of("vm.img") == Job(
        input=ModuleChoice("disk"), output=ModuleChoice("local"), guests=("vm.img",)
    )


def test_virt_v2v_command_line() -> None:
    job = job_of(
        *[
            "-i",
            "disk",
            "x",
            "-o",
            "local",
            "-os",
            "d",
            "-of",
            "qcow2",
            "-oa",
            "sparse",
            "-on",
            "new",
            "-oo",
            "compressed",
        ]
    )
    assert job.input == ModuleChoice("disk")
    assert job.output == ModuleChoice(
        "local", {"-os": "d", "-of": "qcow2", "-oa": "sparse", "-oo compressed": ""}
    )
    assert (job.guests, job.name) == (("x",), "new")


def test_a_command_line_without_a_command_is_convert() -> None:
    args = main.parse(["-i", "disk", "x", "-o", "local", "-os", "d"])
    assert vars(args)["-os"] == "d"


def test_storage_maps() -> None:
    """The last colon counts: what the source calls its storage may hold one."""
    job = job_of("x", "--storage", "2:pool-b", "--storage=[DS] a:1:pool-c")
    assert job.storage_maps == (StorageMap("2", "pool-b"), StorageMap("[DS] a:1", "pool-c"))


@pytest.mark.parametrize("mode", ["rhv-upload", "ovirt-upload", "rhv_upload"])
def test_an_option_that_may_be_repeated_may_be_under_every_name_of_its_mode(mode: str) -> None:
    words = ["-oo", "rhv-disk-uuid=a", "-oo", "rhv-disk-uuid=b", "-oo", "rhv-cafile=f"]
    output = job_of("x", "-o", mode, *words).output
    assert output.options == {"-oo rhv-disk-uuid": "a\0b", "-oo rhv-cafile": "f"}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("-io k=v -io flag", {"-io k": "v", "-io flag": ""}),
        ("--io a=b=c", {"-io a": "b=c"}),
        ("-if raw -ip secret.txt", {"-if": "raw", "-ip": "secret.txt"}),
        ("-it ssh -ic esx://host", {"-it": "ssh", "-ic": "esx://host"}),
    ],
)
def test_input_words(words: str, options: dict[str, str]) -> None:
    assert job_of("x", "-i", "disk", *words.split()).input == ModuleChoice("disk", options)


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ("-ic vpx://user@vc/DC/esx1", "vsphere"),
        ("-i libvirt -ic VPX://user@vc/DC/esx1", "vsphere"),
        ("-i libvirt -ic esx://root@esx1?no_verify=1", "vsphere"),
        ("-ic esx+ssh://root@esx1", "vmx"),
        ("-i vmx -ic esx+ssh://root@esx1", "vmx"),
        ("-ic qemu:///system", "libvirt"),
        ("-i ova -ic esx://root@esx1", "ova"),
    ],
)
def test_the_address_tells_which_input_reads_the_host(words: str, mode: str) -> None:
    assert job_of("x", *words.split()).input.mode == mode


def test_force_is_passed_when_given() -> None:
    assert job_of("x", "--force").output.options == {"--force": ""}
    assert job_of("x").output.options == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-n lan", NicMap("network", None, "network", "lan")),
        ("--network old:new", NicMap("network", "old", "network", "new")),
        ("-b br0", NicMap("bridge", None, "bridge", "br0")),
        ("--bridge=a:b", NicMap("bridge", "a", "bridge", "b")),
        ("--mac 52:54:00:AA:bb:01:bridge:br0", NicMap("mac", "52:54:00:aa:bb:01", "bridge", "br0")),
        ("--mac 52:54:00:aa:bb:01:network:x", NicMap("mac", "52:54:00:aa:bb:01", "network", "x")),
    ],
)
def test_nic_maps(words: str, expected: NicMap) -> None:
    assert job_of("x", *words.split()).nic_maps == (expected,)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--no-convert", {"convert": False}),
        ("--root first", {"root": "first"}),
        ("--root /dev/sda2", {"root": "/dev/sda2"}),
        ("--block-driver virtio-scsi", {"block_bus": "virtio-scsi"}),
        ("--no-fstrim", {"fstrim": False}),
        ("--appliance-network", {"appliance_network": True}),
        ("-m 2048 --smp 4", {"appliance_memory": 2048, "appliance_cpus": 4}),
        ("--guest-agent no", {"guest_agent": "no"}),
        ("--initramfs rebuild", {"initramfs": "rebuild"}),
        ("--no-keep-nic-names", {"keep_nic_names": False}),
        ("-x", {"trace": True}),
    ],
)
def test_conversion_options(words: str, expected: dict[str, Any]) -> None:
    assert job_of("x", *words.split()).conversion == ConversionOptions(**expected)


@pytest.mark.parametrize(
    ("words", "expected"), [("", None), ("--boot-check", 300.0), ("--boot-check=45.5", 45.5)]
)
def test_boot_check(words: str, expected: float | None) -> None:
    assert job_of(*words.split(), "x").boot_check == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--parallel 4", {"parallel": 4}),
        ("--connections 8 --requests 64", {"connections": 8, "requests": 64}),
        ("--request-size 256K", {"request_size": 256 * KiB}),
        ("--request-size=4MiB", {"request_size": 4 * MiB}),
        ("--bandwidth 100M", {"bandwidth": 100 * MiB}),
        ("--bandwidth 500000", {"bandwidth": 500_000}),
        ("--bandwidth none", {"bandwidth": None}),
        ("--verify", {"verify": 1.0}),
        ("--verify=all", {"verify": 1.0}),
        ("--verify=sample:5%", {"verify": 0.05}),
        ("--verify=sample:0.5", {"verify": 0.005}),
        ("--no-overlap", {"overlap": False}),
        ("--page-cache drop", {"page_cache": PageCache.DROP}),
        ("--stall-timeout 2.5", {"stall_timeout": 2.5}),
    ],
)
def test_copy_options(words: str, expected: dict[str, Any]) -> None:
    assert job_of("x", *words.split()).copy == CopyOptions(**expected)


@pytest.mark.parametrize(
    ("guest", "mode"),
    [
        ("web.ova", "ova"),
        ("/srv/web.OVF", "ova"),
        ("https://host/web.ova?key=a.vmx#b", "ova"),
        ("web.vmx", "vmx"),
        ("web.xml", "libvirtxml"),
        ("web.vmdk", "disk"),
        ("web", "disk"),
        ("web.ova.qcow2", "disk"),
        ("https://host/?file=web.ova", "disk"),
        ("https://[host/web.img", "disk"),
        ("nbd://host/web.ova", "disk"),
        ("NBD://host/web.ova", "disk"),
        ("nbd.vmx", "vmx"),
        ("n" * 5000, "disk"),
        ("", "disk"),
    ],
)
def test_the_input_is_told_from_the_guests_name(guest: str, mode: str) -> None:
    assert registry.guess_input(guest) == mode


def test_a_folder_is_known_by_what_lies_in_it(tmp_path: Path) -> None:
    assert registry.guess_input(str(tmp_path)) == "disk"
    (tmp_path / "web.vmx").touch()
    assert registry.guess_input(str(tmp_path)) == "vmx"
    (tmp_path / "web.Ovf").touch()
    assert registry.guess_input(str(tmp_path)) == "ova"


def test_a_connection_means_libvirt() -> None:
    """As virt-v2v's default input."""
    assert job_of("web.vmx", "-ic", "qemu:///system").input.mode == "libvirt"
    assert job_of("web.vmx", "-ic", "qemu:///system", "-i", "disk").input.mode == "disk"


def test_a_mode_that_is_chosen_is_not_guessed() -> None:
    assert job_of("web.vmx", "-i", "disk").input.mode == "disk"
    assert job_of("a.img", "b.vmx").input.mode == "disk"


@pytest.mark.parametrize(
    ("words", "id"),
    [
        ("x -o local -o null", "option-repeated"),
        ("x -oo a=1 -oo a=2", "option-repeated"),
        ("x -n a -n b", "option-repeated"),
        (
            "x --mac 52:54:00:aa:bb:01:network:a --mac 52:54:00:AA:BB:01:network:b",
            "option-repeated",
        ),
        ("x --mac 52:54:00:aa:bb:01:ip:10.0.0.1", "option-unsupported"),
        ("x --mac nonsense", "option-value"),
        ("x --mac 52:54:00:aa:bb:01:switch:b", "option-value"),
        ("x --mac 01:00:5e:aa:bb:01:network:b", "option-value"),  # of many, not of a card
        ("x -n a:", "option-value"),
        ("x -n :a", "option-value"),
        ("x --boot-check=soon", "option-value"),
        ("x --boot-check=-1", "option-value"),
        ("x --smp 0", "option-value"),
        ("x --parallel two", "option-value"),
        ("x --connections 0", "option-value"),
        ("x --connections 65", "option-value"),
        ("x --requests -1", "option-value"),
        ("x --request-size 1000", "option-value"),
        ("x --request-size 64M", "option-value"),
        ("x --request-size 1T", "option-value"),
        ("x --bandwidth fast", "option-value"),
        ("x --bandwidth -5M", "option-value"),
        ("x --verify=some", "option-value"),
        ("x --verify=sample:0%", "option-value"),
        ("x --verify=sample:101%", "option-value"),
        ("x --page-cache flush", "option-value"),
        ("x --stall-timeout 0", "option-value"),
        ("x --stall-timeout nan", "option-value"),
        ("x --bandwidth-file f", "option-unsupported"),
        ("x --root sda1", "option-value"),
        ("x --block-driver ide", "option-value"),
        ("x --key all", "key-form"),
        ("x --key all:clevis", "option-unsupported"),
        ("x --install nano", "option-unsupported"),
        ("x --collect /etc", "option-unsupported"),
        ("x --in-place", "option-unsupported"),
        ("x --vddk-libdir /opt", "option-unsupported"),
        ("x --password-file=p", "option-unsupported"),
        ("x --echo-keys", "option-unsupported"),
        ("x --vdsm-vm-uuid=u", "option-unsupported"),
        ("x --storage a:p --storage a:q", "option-repeated"),
        ("x --storage pool", "option-value"),
        ("x -o block -oo description=a -oo description=b", "option-repeated"),
    ],
)
def test_refused(words: str, id: str) -> None:
    with pytest.raises(UsageError) as caught:
        job_of(*words.split())
    assert caught.value.id == id


def test_passphrase_on_the_command_line_moves_to_a_file_in_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with keys.key_files(["/dev/sda2:key:open sesame"], from_stdin=False) as files:
        (key,) = files
        identity, kind, path = key.split(":")
        assert (identity, kind) == ("/dev/sda2", "file")
        assert Path(path).read_text() == "open sesame"
        assert str(Path(path).readlink()).startswith("/memfd:")
    assert not Path(path).exists()
    told = capsys.readouterr().err
    assert "other users of this host see" in told
    assert "sesame" not in told


def test_key_file_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("k")
    monkeypatch.chdir(tmp_path)
    with keys.key_files(["all:file:key"], from_stdin=False) as files:
        assert files == (f"all:file:{tmp_path}/key",)


def test_key_file_must_be_readable() -> None:
    with pytest.raises(HostError) as caught:
        job_of("x", "--key", "all:file:/nonexistent/key")
    assert caught.value.id == "key-unreadable"


def test_wrong_key_does_not_repeat_the_passphrase() -> None:
    with pytest.raises(UsageError) as caught:
        job_of("x", "--key", "all:kye:secret")
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


def test_inspect_takes_the_same_input_options() -> None:
    args = main.parse(["inspect", "-i", "disk", "a", "b", "--root", "first", "--json"])
    job = asked.to_job(args, ())
    assert job.output == ModuleChoice("null")
    assert job.guests == ("a", "b")
    assert job.conversion.root == "first"
