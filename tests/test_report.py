"""The report: complete, readable by programs, and safe to open whatever the guest called itself."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from v2v.job import Job, ModuleChoice
from v2v.report import Report, chart, copy_facts, headline, write
from v2v.run import Run
from v2v.types import (
    BlockBus,
    BootEvidence,
    Change,
    Checksum,
    ConvertedGuest,
    CopyResult,
    Cpu,
    DiskFormat,
    Finding,
    Firmware,
    GiB,
    GuestCaps,
    GuestOS,
    GuestRef,
    Machine,
    MiB,
    NetModel,
    Nic,
    Removable,
    Source,
    SourceDisk,
    TargetDisk,
    Timing,
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="
)

REPORT = Report(
    version="0.1.0",
    job_id="20260101-120000-web1-abcd",
    status="finished",
    started=1_790_000_000.0,
    finished=1_790_000_093.5,
    job=Job(
        input=ModuleChoice("disk"),
        output=ModuleChoice("local", {"-os": "/srv/images"}),
        guests=("/srv/export/web1.vmdk",),
    ),
    source=Source("web1", "disk", (SourceDisk("/srv/export/web1.vmdk", DiskFormat.VMDK, 4 * GiB),)),
    guest=ConvertedGuest(
        os=GuestOS("linux", "debian", "12", "Debian GNU/Linux 12 (bookworm)", "x86_64", "web1"),
        firmware=Firmware.BIOS,
        root="/dev/sda1",
        boot_disk=0,
        caps=GuestCaps(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, Machine.Q35),
        nics=(Nic(mac="52:54:00:12:34:56", name="ens192"),),
        kernel="6.1.0-18-amd64",
        changes=(
            Change(
                "Named the filesystem by UUID", "/dev/sda1 is /dev/vda1 on virtio", "/etc/fstab"
            ),
            Change("Removed open-vm-tools", "they serve VMware alone", "open-vm-tools"),
        ),
        findings=(Finding("warning", "no-agent", "the guest agent is missing", "install it"),),
    ),
    copies=(CopyResult(0, 4 * GiB, 900 * MiB, 4 * GiB - 900 * MiB, 4.2),),
    ref=GuestRef(
        "web1",
        (TargetDisk("/srv/images/web1-sda", "/srv/images/.x", DiskFormat.QCOW2, 4 * GiB),),
        "/srv/images/web1.xml",
        "virsh define /srv/images/web1.xml",
    ),
    boot=BootEvidence(
        passed=True,
        reached="login",
        seconds=31.4,
        accelerator="tcg",
        root_device="vda1",
        block_driver="virtio_blk",
        nic_drivers={"ens192": "virtio_net"},
        instrumented=True,
        screenshot="boot-check.png",
        console_log="boot-check.log",
    ),
    timings=(
        Timing("source", 0.1, 0.0, "Reading the source"),
        Timing("launch", 12.0, 0.2, "Starting the appliance", 1),
        Timing("guest", 40.0, 0.2, "Converting the guest"),
        Timing("copied:0", 4.2, 40.3, "Copying disk 1/1"),
        Timing("boot-check", 48.0, 45.0, "Checking that the guest boots"),
    ),
)


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "v2v.log").write_text("x")
    (tmp_path / "boot-check.png").write_bytes(PNG)
    (tmp_path / "boot-check.log").write_text("Linux version 6.1\nweb1 login: ")
    return tmp_path


def page_of(report: Report, folder: Path) -> Page:
    return Page(write(report, folder).read_text())


def test_page_tells_everything(folder):
    page = page_of(REPORT, folder)
    for text in (
        *("web1", "Converted, and it boots: the login prompt answered 31.4 s after power-on."),
        *("Debian GNU/Linux 12 (bookworm)", "/dev/sda1 is /dev/vda1 on virtio", "/etc/fstab"),
        *("the guest agent is missing", "install it", "900 MiB", "4 GiB", "/srv/images/web1-sda"),
        *("ens192", "virtio_net", "vda1", "virtio_blk", "52:54:00:12:34:56", "web1 login:"),
        *("virsh define /srv/images/web1.xml", "1 min 34 s", "Starting the appliance"),
        str(folder / "log" / "v2v.log"),
    ):
        assert text in page.text, text
    assert "svg" in page.tags
    pictures = [value for name, value in page.attributes if name == "src"]
    assert pictures == ["data:image/png;base64," + base64.b64encode(PNG).decode()]


def test_page_tells_what_the_source_told(folder):
    source = Source(
        "web1",
        "ova",
        (
            SourceDisk(
                "/srv/web1.ova",
                DiskFormat.VMDK,
                controller="scsi",
                details={"member": "disk1.vmdk"},
                boot_order=1,
                serial="6000c29",
                checksum=Checksum("sha256", "abcdef"),
            ),
        ),
        nics=(Nic("00:50:56:00:00:01", network="VM Network", slot=192, connected=False),),
        vcpus=8,
        cpu=Cpu("Skylake", "Intel", 2, 4, 1),
        uuid="564d5e1f-0000-1111-2222-333344445555",
        description="Ask Ann\nfirst",
        osinfo="debian12_64Guest",
        machine="vmx-19",
        features=("acpi",),
        rtc_utc=False,
        sound="ich6",
        removables=(Removable("cdrom", "sata"),),
        snapshots=("before update",),
    )
    page = page_of(replace(REPORT, source=source), folder)
    for text in (
        *("8 (2 sockets, 4 cores, 1 thread)", "Intel Skylake", "564d5e1f-0000", "Ask Ann ..."),
        *("debian12_64Guest", "vmx-19", "acpi", "local time", "ich6", "cdrom (on sata)"),
        *("before update", "00:50:56:00:00:01 on network VM Network (slot 192, unplugged)"),
        "/srv/web1.ova, disk1.vmdk",
        "vmdk, on scsi, boot order 1, serial 6000c29, sha256 abcdef",
        *("UUID", "Removable drive", "CPUs"),
    ):
        assert text in page.text, text


def test_how_a_disk_was_copied_is_told_where_there_is_something_to_tell(folder):
    plain = REPORT.copies[0]
    assert copy_facts(plain) == []
    copy = replace(
        plain,
        found_zero=3 * MiB,
        by_kernel=5 * MiB,
        resumed=7 * MiB,
        retries=2,
        checksum="abc123",
        verified=0.25,
        notes=("the kernel cannot copy between these",),
    )
    page = page_of(replace(REPORT, copies=(copy,)), folder)
    for text in (
        *("214 MiB/s", "3 MiB of data turned out to be zeroes", "5 MiB were moved or shared"),
        *("7 MiB were there already", "2 reads or connections", "checksum abc123", "25% of it"),
        "the kernel cannot copy between these",
    ):
        assert text in page.text, text


def test_page_needs_nothing_from_elsewhere(folder):
    page = page_of(REPORT, folder)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not [v for n, v in page.attributes if n in ("href", "src") and not v.startswith("data:")]


def test_json_holds_the_values(folder):
    write(REPORT, folder)
    data = json.loads((folder / "report.json").read_text())
    assert data["status"] == "finished"
    assert data["copies"][0]["data"] == 900 * MiB
    assert data["guest"]["changes"][0]["where"] == "/etc/fstab"
    assert data["boot"]["nic_drivers"] == {"ens192": "virtio_net"}
    assert list(folder.glob(".*")) == []


HOSTILE = "</pre><script>alert(1)</script>\x1b[31m\x00\u202e\udc80'\" onload=x"


def test_hostile_guest_is_shown_as_text(folder):
    (folder / "boot-check.log").write_bytes(b"<script>alert(2)</script>\x1b[2J\xff\n")
    assert REPORT.guest and REPORT.boot and REPORT.source
    guest = replace(
        REPORT.guest,
        os=GuestOS("linux", HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        root=HOSTILE,
        kernel=HOSTILE,
        nics=(Nic(mac=HOSTILE, name=HOSTILE, network=HOSTILE),),
        changes=(Change(HOSTILE, HOSTILE, HOSTILE),),
        findings=(Finding(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        timings=(Timing(HOSTILE, 1.0),),
    )
    boot = replace(
        REPORT.boot,
        passed=False,
        reached=HOSTILE,
        root_device=HOSTILE,
        nic_drivers={HOSTILE: HOSTILE},
        agent=HOSTILE,
        trouble=HOSTILE,
    )
    hostile_disk = SourceDisk(HOSTILE, DiskFormat.RAW, serial=HOSTILE, details={"member": HOSTILE})
    source = replace(
        REPORT.source,
        **dict.fromkeys(("name", "description", "uuid", "nvram", "machine", "sound"), HOSTILE),
        features=(HOSTILE,),
        snapshots=(HOSTILE,),
        removables=(Removable(HOSTILE),),
        nics=(Nic(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        disks=(hostile_disk,),
    )
    report = replace(REPORT, guest=guest, boot=boot, source=source, ref=None, status=HOSTILE)
    page = page_of(report, folder)
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text
    assert "<script>alert(2)</script>" in page.text
    assert not set("\x1b\x00\u202e\udc80") & set(page.text)
    assert "\x1b" not in json.loads((folder / "report.json").read_text())["source"]["name"]


def test_passwords_in_urls_are_left_out(folder):
    url = "https://admin:s3cret@example.test/disk.img"
    job = replace(REPORT.job, guests=(url,))
    source = Source("web1", "disk", (SourceDisk(url, DiskFormat.RAW),))
    write(replace(REPORT, job=job, source=source), folder)
    for name in ("report.json", "report.html"):
        text = (folder / name).read_text()
        assert "s3cret" not in text
        assert "admin:***@example.test/disk.img" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"boot": None}, "Converted. It has not been booted yet."),
        (
            {"status": "failed", "error": "x", "message": "no space", "ref": None, "boot": None},
            "Failed: no space",
        ),
        (
            {"status": "failed", "error": "boot-check-failed", "message": "web1 did not boot"},
            "Failed; the finished copy is kept: web1 did not boot",
        ),
        ({"status": "cancelled", "ref": None}, "Cancelled; nothing is left at the target."),
    ],
)
def test_headlines(changes, expected, folder):
    report = replace(REPORT, **changes)
    assert headline(report) == expected
    assert expected in page_of(report, folder).text


def test_report_of_a_job_that_failed_at_once(tmp_path):
    report = Report(
        version="0.1.0",
        job_id="j",
        status="failed",
        started=0.0,
        finished=0.1,
        job=REPORT.job,
        error="source-missing",
        message="/x: no such file",
        hint="is the path right?",
    )
    page = page_of(report, tmp_path)
    assert "/x: no such file" in page.text
    assert "is the path right?" in page.text


def test_chart_nests_steps_and_stays_inside():
    drawn = chart(REPORT)
    assert drawn is not None
    assert [(bar.label, bar.depth) for bar in drawn.bars[:3]] == [
        ("Reading the source", 0),
        ("Converting the guest", 0),
        ("Starting the appliance", 1),
    ]
    assert all(bar.x >= 290 and bar.x + bar.width <= 912 for bar in drawn.bars)
    assert 2 <= len(drawn.ticks) <= 7


def test_steps_of_a_run_know_when_they_began(run: Run):
    with run.step("a", "First"):
        pass
    with pytest.raises(ValueError), run.step("b", "Second"):
        raise ValueError
    first, second = run.timings
    assert (first.title, second.title) == ("First", "Second")
    assert first.start is not None and second.start is not None
    assert 0 <= first.start <= second.start


def test_steps_know_what_they_are_part_of(run: Run):
    with run.step("a", "Whole"), run.step("b", "Part"):
        pass
    assert [(step.name, step.depth) for step in run.timings] == [("b", 1), ("a", 0)]
