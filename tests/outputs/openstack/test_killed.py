"""-o openstack: killed jobs are discarded or go on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from tests.openstack_cloud import Cloud
from tests.outputs.openstack.jobs import KilledJob, make_guest
from tests.outputs.openstack.volumes import attached
from v2v import api
from v2v.errors import V2VError
from v2v.job import ConversionOptions, StorageMap
from v2v.types import MiB


@pytest.mark.parametrize(
    "moment", ["POST /volumes", "POST os-volume_attachments", "copy", "POST /action"]
)
def test_a_killed_job_is_discarded(cloud: Cloud, tmp_path: Path, moment: str) -> None:
    job = KilledJob(tmp_path, "openstack", cloud.attaching, cloud, make_guest(tmp_path), moment)
    assert len(cloud.state.volumes) == 1
    if moment == "copy":
        assert len(attached(cloud)) == 1
    job.discard()
    assert cloud.state.volumes == {}
    assert list(cloud.state.by_id.iterdir()) == []
    assert not any(job.jobs.iterdir())


@pytest.mark.parametrize(
    "moment", ["POST /volumes", "POST os-volume_attachments", "copy", "PUT /volumes/"]
)
def test_a_killed_job_goes_on(cloud: Cloud, tmp_path: Path, moment: str) -> None:
    guest = make_guest(tmp_path)
    job = KilledJob(tmp_path, "openstack", cloud.attaching, cloud, guest, moment)
    job.resume()
    ((identifier, volume),) = cloud.state.volumes.items()
    assert (volume["name"], volume["status"]) == ("web1-sda", "available")
    with (cloud.state.folder / "volumes" / identifier).open("rb") as file:
        assert file.read(guest.stat().st_size) == guest.read_bytes()
    with suppress(V2VError):
        job.discard()
    assert len(cloud.state.volumes) == 1


def test_a_whole_job(cloud: Cloud, tmp_path: Path) -> None:
    result = api.convert(
        str(make_guest(tmp_path, MiB)),
        output="openstack",
        storage="fast",
        output_options=cloud.attaching,
        conversion=ConversionOptions(convert=False),
        storage_maps=[StorageMap("1", "slow")],
        jobs=tmp_path / "jobs",
    )
    (volume,) = cloud.state.volumes.values()
    assert volume["volume_type"] == "slow"
    assert (result.guest.start_hint or "").startswith("openstack server create")
    journal = next((tmp_path / "jobs").rglob("journal")).read_text()
    assert "secret word" not in journal
