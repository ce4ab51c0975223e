"""What a libvirt domain says of its disks, and how they become source disks."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from tests.inputs.domains import disk, domain, warnings
from v2v.errors import SourceError
from v2v.events import Event
from v2v.inputs._domain.addresses import disk_uri
from v2v.inputs._domain.disks import DiskHost, DiskPlace, DomainDisk
from v2v.inputs._domain.sources import SshHost, source_disk
from v2v.inputs._images import Access
from v2v.run import Run
from v2v.types import Checksum, DiskFormat, MiB


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<source file='/x'/>", {"kind": "file", "path": "/x", "format": None}),
        ("<driver type='qcow2'/>", {"format": DiskFormat.QCOW2, "driver": "qcow2"}),
        ("<driver name='tap' type='aio'/>", {"format": DiskFormat.RAW}),
        ("<driver type='vhd'/>", {"format": DiskFormat.VPC}),
        ("<driver type='qed'/>", {"format": None, "driver": "qed"}),
        ("<target dev='hda'/>", {"controller": "ide", "target": "hda"}),
        ("<target dev='sda'/>", {"controller": "scsi"}),
        ("<target dev='sda' bus='sata'/>", {"controller": "sata"}),
        ("<target dev='sda' bus='usb'/>", {"controller": "usb"}),
        ("<target dev='sda' bus='sd'/>", {"controller": None}),
        ("<target dev='xvda' bus='xen'/>", {"controller": None}),
        ("<serial> S1 </serial>", {"serial": "S1"}),
        ("<serial/>", {"serial": None}),
        ("<boot order='3'/>", {"boot_order": 3}),
        ("<boot order='0'/>", {"boot_order": None}),
        ("<boot order='99999999'/>", {"boot_order": None}),
        ("<mirror type='file' job='active-commit'/>", {"job": "active-commit"}),
        ("<mirror file='/copy'/>", {"job": "copy"}),
        ("<readonly/><shareable/>", {"read_only": True, "shareable": True}),
        ("<encryption format='luks'/>", {"encrypted": True}),
        ("<source file='/x'><encryption format='luks'/></source>", {"encrypted": True}),
        (
            "<source file='/x'><slices><slice type='storage' offset='5' size='7'/></slices>"
            "</source>",
            {"slice": (5, 7)},
        ),
        (
            "<source><slices><slice type='storage' offset='five' size='0'/></slices></source>",
            {"slice": (-1, -1)},
        ),
        (
            "<source dev='/dev/x'/><backingStore type='file'><format type='raw'/>"
            "<source file='/y'/><backingStore/></backingStore>",
            {"backing": DomainDisk(kind="file", path="/y", driver="raw")},
        ),
        ("<backingStore/>", {"backing": None}),
        ("<auth username='u'><secret/></auth>", {"user": "u"}),
        ("<source><auth username='v'/></source><auth username='u'/>", {"user": "v"}),
        (
            "<source protocol='nbd' name='e' tls='yes'><host name='h' port='5'/>"
            "<host transport='unix' socket='/s'/></source>",
            {
                "protocol": "nbd",
                "name": "e",
                "tls": True,
                "hosts": (DiskHost("h", 5), DiskHost("", None, "unix", "/s")),
            },
        ),
        (
            "<source name='p/i'><snapshot name='s'/><config file='/c'/><ssl verify='no'/></source>",
            {"options": {"snapshot": "s", "config": "/c", "verify": "no"}},
        ),
        (
            f"<checksum method='SHA256' fail='warn'>{'AB' * 32}</checksum>",
            {"checksum": Checksum("sha256", "ab" * 32, enforced=False)},
        ),
        (f"<checksum method='md5'>{'0' * 32}</checksum>", {"checksum": Checksum("md5", "0" * 32)}),
        (f"<checksum method='md5' fail='ignore'>{'0' * 32}</checksum>", {"checksum": None}),
        ("<checksum method='md5'>0</checksum>", {"checksum": None, "odd_checksum": "md5"}),
        ("<checksum method='crc9'>00</checksum>", {"checksum": None, "odd_checksum": "crc9"}),
        ("<checksum>00</checksum>", {"odd_checksum": "none"}),
    ],
)
def test_what_a_disk_says(run: Run, xml: str, expected: dict[str, object]) -> None:
    found = disk(run, f"<disk type='file'>{xml}</disk>")
    assert {key: getattr(found, key) for key in expected} == expected


def test_boot_devices_of_the_vm_count_where_no_device_has_an_order(run: Run) -> None:
    boot = "<os><boot dev='network'/><boot dev='hd'/></os>"
    two = "<disk><source file='/b'/>{}</disk>"
    assert [d.boot_order for d in domain(run, boot, two.format("")).disks] == [2, None]
    order = domain(run, boot, two.format("<boot order='7'/>")).disks
    assert [d.boot_order for d in order] == [None, 7]


def test_disks_keep_the_order_of_the_xml(run: Run) -> None:
    more = "".join(f"<disk><source file='/{n}'/><target dev='{n}'/></disk>" for n in "zya")
    assert [d.target for d in domain(run, devices=more).disks] == ["vda", "z", "y", "a"]


def test_a_shared_disk_is_told(run: Run, events_seen: list[Event]) -> None:
    disk(run, "<disk><source file='/b'/><shareable/></disk>")
    assert warnings(events_seen) == ["disk-shared"]


# Network disks ------------------------------------------------------------------------------------


def network(xml: str, run: Run) -> DomainDisk:
    return disk(run, f"<disk type='network'><target dev='vdb'/>{xml}</disk>")


@pytest.mark.parametrize(
    ("xml", "uri"),
    [
        ("<source protocol='nbd'><host name='h' port='1'/></source>", "nbd://h:1/"),
        ("<source protocol='nbd' name='a b'><host name='h'/></source>", "nbd://h/a%20b"),
        ("<source protocol='nbd' tls='yes'><host name='::1'/></source>", "nbds://[::1]/"),
        ("<source protocol='nbd'/>", "nbd://localhost/"),
        (
            "<source protocol='nbd' name='/e'><host transport='unix' socket='/r/s?x'/></source>",
            "nbd+unix:///e?socket=/r/s%3Fx",
        ),
        (
            "<source protocol='http' name='/d/a b%20c.img'><host name='h' port='8000'/></source>",
            "http://h:8000/d/a%20b%2520c.img",
        ),
        (
            "<source protocol='https' name='d' query='a=1&amp;b=2 3'><host name='h'/>"
            "<auth username='Ann@x'/></source>",
            "https://Ann@x@h/d?a=1&b=2%203",
        ),
        (
            "<source protocol='ssh' name='/d.img'><host name='h' port='22'/>"
            "<identity username='u' agentsock='/s'/></source>",
            "ssh://u@h:22/d.img",
        ),
        (
            "<source protocol='iscsi' name='iqn.2013-07.com.example:a/2'><host name='h'/></source>",
            "iscsi://h/iqn.2013-07.com.example%3Aa/2",
        ),
        (
            "<source protocol='iscsi' name='iqn.a'><host name='h' port='3260'/>"
            "<auth type='chap' username='u'/></source>",
            "iscsi://u@h:3260/iqn.a/0",
        ),
        ("<source protocol='rbd' name='pool/image'/>", "rbd:///pool/image"),
        (
            "<source protocol='rbd' name='pool/image'><host name='m1' port='6789'/>"
            "<host name='::2'/><snapshot name='s@'/><config file='/etc/c'/>"
            "<auth type='ceph' username='u'/></source>",
            "rbd://u@m1:6789/pool/image@s@?conf=/etc/c",
        ),
    ],
)
def test_addresses_of_network_disks(run: Run, xml: str, uri: str) -> None:
    assert disk_uri(network(xml, run)) == uri


@pytest.mark.parametrize(
    ("xml", "id"),
    [
        *((f"<source protocol='{p}' name='x'><host name='h'/></source>", "domain-disk-kind")
          for p in ("gluster", "nfs", "sheepdog", "tftp", "ftp", "ftps", "vxhs", "new")),
        ("<source/>", "domain-disk-kind"),
        ("", "domain-disk-kind"),
        ("<source protocol='nbd'><host port='99999'/></source>", "domain-disk-source"),
        ("<source protocol='nbd'><host transport='unix'/></source>", "domain-disk-source"),
        ("<source protocol='nbd'><host transport='rdma' name='h'/></source>", "domain-disk-source"),
        *(
            (f"<source protocol='{p}' name='x'><host name='{h}'/></source>", "domain-disk-source")
            for p in ("nbd", "ssh", "http", "iscsi", "rbd")
            for h in ("-oProxyCommand=x", "::1]/other?#", "a b", "u@h", "h/x")
        ),
        ("<source protocol='http' name='x'/>", "domain-disk-source"),
        ("<source protocol='http'><host name='h'/></source>", "domain-disk-source"),
        (
            "<source protocol='https' name='x'><host name='h'/><cookies><cookie name='c'>s</cookie>"
            "</cookies></source>",
            "domain-disk-cookies",
        ),
        *(
            (
                f"<source protocol='{p}' name='x'><host name='h'/><auth username='u'/></source>",
                "domain-disk-login",
            )
            for p in ("http", "https", "iscsi")
        ),
    ],
)  # fmt: skip
def test_network_disks_that_cannot_be_read(run: Run, xml: str, id: str) -> None:
    with pytest.raises(SourceError) as caught:
        source_disk(network(xml, run), Access(), run)
    assert caught.value.id == id
    assert caught.value.hint
    assert "vdb" in caught.value.message


# How it becomes a source disk ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "inside", "id"),
    [
        ("file", "", "domain-disk-source"),
        ("file", "<source file='a.img'/>", "domain-disk-source"),
        ("file", "<source file='/gone.img'/>", "source-missing"),
        ("block", "<source dev='/dev/null'/>", "source-not-a-file"),
        ("file", "<source file='/proc/self/mem'/>", "image-empty"),
        ("file", "<source file='/proc'/>", "source-not-a-file"),
        ("file", "<source file='/a'/><driver type='qed'/>", "domain-disk-format"),
        ("file", "<source file='/a'/><encryption/>", "domain-disk-encrypted"),
        ("volume", "<source pool='p' volume='v'/>", "domain-disk-volume"),
        ("dir", "<source dir='/tmp'/>", "domain-disk-kind"),
        ("nvme", "<source/>", "domain-disk-kind"),
        ("vhostuser", "<source/>", "domain-disk-kind"),
        ("vhostvdpa", "<source dev='/dev/vhost-vdpa-0'/>", "domain-disk-kind"),
        ("strange", "<source/>", "domain-disk-kind"),
        (
            "file",
            "<source file='/a'><slices><slice type='storage' offset='x' size='1'/></slices>"
            "</source>",
            "domain-disk-source",
        ),
        (
            "file",
            "<source file='/a'><slices><slice type='storage' offset='0' "
            "size='99999999999999999999'/></slices></source>",
            "domain-disk-source",
        ),
    ],
)
def test_disks_that_cannot_be_read(run: Run, kind: str, inside: str, id: str) -> None:
    found = disk(run, f"<disk type='{kind}'><target dev='vdb'/>{inside}</disk>")
    with pytest.raises(SourceError) as caught:
        source_disk(found, Access(), run)
    assert caught.value.id == id, caught.value
    assert caught.value.hint


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(MiB)
    return path


def test_a_volume_is_where_libvirt_says(run: Run, image: Path) -> None:
    xml = (
        "<disk type='volume'><driver type='raw'/><source pool='p' volume='v'/>"
        "<target dev='sda' bus='sata'/><serial>s</serial><boot order='2'/></disk>"
    )
    asked = []

    def by_path(pool: str, volume: str) -> Path:
        asked.append((pool, volume))
        return image

    def by_disk(pool: str, volume: str) -> DomainDisk:
        return DomainDisk(kind="file", path=str(image), driver="qcow2")

    found = source_disk(disk(run, xml), Access(), run, volumes=by_path)
    assert asked == [("p", "v")]
    assert (found.location, found.size, found.format) == (str(image), MiB, DiskFormat.RAW)
    assert (found.controller, found.serial, found.boot_order) == ("sata", "s", 2)
    assert source_disk(disk(run, xml), Access(), run, volumes=by_disk) == found


def test_a_path_of_another_host_is_an_address() -> None:
    assert SshHost("h", "u", 22).uri("/a b") == "ssh://u@h:22/a%20b"
    assert SshHost("::1").uri("/a") == "ssh://[::1]/a"


def test_no_name_of_a_file_is_taken_for_an_address(run: Run) -> None:
    found = DomainDisk(kind="file", path="/x/nbd://localhost/", driver="raw")
    with pytest.raises(SourceError) as caught:
        source_disk(found, Access(), run)
    assert caught.value.id == "source-missing"


@pytest.mark.parametrize("driver", ["raw", ""])
@pytest.mark.parametrize("strict", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("slice", [None, (512, 1024)], ids=["whole", "slice"])
def test_what_is_certainly_no_disk_is_refused(
    run: Run, tmp_path: Path, driver: str, strict: bool, slice: tuple[int, int] | None
) -> None:
    """What the XML calls a raw disk may be any file of the host."""
    (tmp_path / "shadow").write_text("root:*:19000:0:99999:7:::\n" * 100)
    path = str(tmp_path / "shadow")
    found = DomainDisk(kind="file", path=path, driver=driver, target="vdb", slice=slice)
    with pytest.raises(SourceError) as caught:
        source_disk(found, Access(strict=strict), run)
    assert caught.value.id == "not-a-disk-image"
    assert "disk vdb" in caught.value.message and path in caught.value.message
    assert "v2v copy -if raw" in str(caught.value.hint)  # these modes have no -if


@pytest.mark.parametrize("driver", ["raw", ""])
@pytest.mark.parametrize(("strict", "told"), [(True, ["disk-unrecognised"]), (False, [])])
def test_a_disk_that_nothing_is_known_of_is_taken_and_of_the_first_it_is_told(
    run: Run, tmp_path: Path, events_seen: list[Event], driver: str, strict: bool, told: list[str]
) -> None:
    """ZFS on the whole disk, for one."""
    (tmp_path / "pool").write_bytes(b"\x01\xfe\x99".ljust(MiB, b"\xee"))
    found = DomainDisk(kind="file", path=str(tmp_path / "pool"), driver=driver)
    assert source_disk(found, Access(strict=strict), run).format == DiskFormat.RAW
    assert warnings(events_seen) == told


def rbd(run: Run, config: str) -> DomainDisk:
    return network(
        f"<driver type='raw'/><source protocol='rbd' name='p/i'><config file='{config}'/></source>",
        run,
    )


@pytest.mark.parametrize(
    "config",
    [
        "/tmp/evil.conf",
        "/etc/ceph/../../tmp/evil.conf",
        "/etc/ceph/ceph.keyring",
        "/etc/ceph/a,evil.conf",
        "/etc/ceph/a;/tmp/evil.conf",
        "/etc/ceph/$name.conf",
        "ceph.conf",
    ],
)
def test_a_stranger_s_configuration_of_ceph_is_refused(run: Run, config: str) -> None:
    with pytest.raises(SourceError) as caught:
        source_disk(rbd(run, config), Access(), run)
    assert caught.value.id == "domain-disk-config"
    assert config in caught.value.message
    assert "-io allow-backing" in str(caught.value.hint)


def test_ceph_s_own_configuration_is_used_and_another_one_if_the_user_allows_it(
    run: Run, tmp_path: Path
) -> None:
    found = source_disk(rbd(run, "/etc/ceph/other.conf"), Access(), run)
    assert found.location.endswith("?conf=/etc/ceph/other.conf")
    mine = tmp_path / "my.conf"
    allowed = Access(allowed=(mine,))
    assert source_disk(rbd(run, str(mine)), allowed, run).location.endswith(f"?conf={mine}")
    with pytest.raises(SourceError):
        source_disk(rbd(run, f"{mine},{tmp_path}/other.conf"), Access(allowed=(tmp_path,)), run)


def test_a_disk_at_another_place_has_all_of_that_place_and_stays_the_same_disk() -> None:
    disk = DomainDisk(kind="volume", pool="p", target="vda", serial="s", read_only=True, job="copy")
    place = DomainDisk(kind="file", path="/a", driver="qcow2", target="x", slice=(0, 1))
    there = disk.at(place)
    for part in fields(DomainDisk):
        of = place if part.name in {one.name for one in fields(DiskPlace)} else disk
        assert getattr(there, part.name) == getattr(of, part.name), part.name


def test_a_slice_of_a_volume_is_that_part_of_it(run: Run, image: Path) -> None:
    xml = (
        "<disk type='volume'><driver type='raw'/><source pool='p' volume='v'><slices>"
        "<slice type='storage' offset='512' size='1024'/></slices></source></disk>"
    )
    place = DomainDisk(kind="file", path=str(image))
    assert source_disk(disk(run, xml), Access(), run, volumes=lambda *_: place).size == 1024


def test_a_raw_disk_whose_content_looks_like_an_image_stays_raw(run: Run, tmp_path: Path) -> None:
    """A guest can write anything at the start of its disk."""
    (tmp_path / "a").write_bytes(b"QFI\xfb\0\0\0\3".ljust(MiB, b"\0"))
    found = source_disk(
        DomainDisk(kind="file", path=str(tmp_path / "a"), driver="raw"), Access(), run
    )
    assert (found.format, found.size) == (DiskFormat.RAW, MiB)


def test_ssh_uses_the_files_that_the_domain_names(run: Run) -> None:
    xml = (
        "<driver type='qcow2'/><source protocol='ssh' name='/d.img'><host name='h'/>"
        "<knownHosts path='/k'/><identity username='u' keyfile='/i'/></source>"
    )
    found = source_disk(network(xml, run), Access(), run)
    assert (found.location, found.format) == ("ssh://u@h/d.img", DiskFormat.QCOW2)
    assert (found.details["known-hosts"], found.details["identity"]) == ("/k", "/i")


def test_an_unchecked_certificate_is_told(run: Run, events_seen: list[Event]) -> None:
    xml = "<source protocol='https' name='x'><host name='127.0.0.1' port='1'/><ssl verify='no'/>"
    with pytest.raises(SourceError) as caught:
        source_disk(network(f"{xml}</source>", run), Access(), run)
    assert caught.value.id == "http-unreachable"
    assert warnings(events_seen) == ["certificate-checked"]


def test_a_checksum_that_cannot_be_checked_is_told(
    run: Run, events_seen: list[Event], image: Path
) -> None:
    found = DomainDisk(kind="file", path=str(image), driver="raw", odd_checksum="crc9")
    assert source_disk(found, Access(), run).checksum is None
    assert warnings(events_seen) == ["checksum-unknown"]
