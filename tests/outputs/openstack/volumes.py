"""Jobs of -o openstack, as far as their volumes."""

from __future__ import annotations

from tests.openstack_cloud import Cloud
from v2v import options
from v2v.outputs.openstack import OpenStackOptions, OpenStackOutput
from v2v.run import Run
from v2v.types import DiskFormat, GiB, MiB, Source, SourceDisk, TargetDisk

SOURCE = Source(
    name="web1",
    input="disk",
    disks=(
        SourceDisk("/a", DiskFormat.RAW, 3 * MiB),
        SourceDisk("/b", DiskFormat.RAW, GiB + 512, target_storage="slow"),
    ),
)
SIZES = [3 * MiB, GiB + 512]


def make(cloud: Cloud, **more: str) -> OpenStackOutput:
    words = {**cloud.attaching, **{f"-{key}": word for key, word in more.items()}}
    return make_of(words)


def make_of(words: dict[str, str]) -> OpenStackOutput:
    return OpenStackOutput(options.parse(OpenStackOptions, words, module="-o openstack"))


def created(cloud: Cloud, run: Run) -> tuple[OpenStackOutput, tuple[TargetDisk, ...]]:
    output = make(cloud)
    disks = output.create_disks(SOURCE, SIZES, run)
    run.journal.put("disks", disks)
    return output, disks


def attached(cloud: Cloud) -> list[str]:
    return [one["id"] for one in cloud.state.volumes.values() if one["attachments"]]
