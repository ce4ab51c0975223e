"""-o openstack: what is refused before anything is made."""

from __future__ import annotations

from dataclasses import replace

from tests.contract.output_suite import GUEST
from tests.openstack_cloud import Cloud
from tests.outputs.openstack.jobs import refused
from tests.outputs.openstack.volumes import SIZES, SOURCE, created, make
from v2v.run import Run
from v2v.types import MiB


def test_an_unknown_volume_type(cloud: Cloud, run: Run) -> None:
    error = refused("target-storage", make(cloud, os="golden").check_source, SOURCE, run)
    assert "golden" in error.message
    other = replace(SOURCE.disks[0], target_storage="lost")
    refused("target-storage", make(cloud).check_source, replace(SOURCE, disks=(other,)), run)


def test_an_unknown_server(cloud: Cloud, run: Run) -> None:
    stranger = "12345678-1234-1234-1234-123456789abc"
    refused("server-unknown", make(cloud, **{"oo server-id": stranger}).check_source, SOURCE, run)
    refused("option-value", make(cloud, **{"oo server-id": "web"}).check_source, SOURCE, run)


def test_a_server_that_is_shut_off(cloud: Cloud, run: Run) -> None:
    cloud.state.servers[cloud.server]["status"] = "SHUTOFF"
    assert "SHUTOFF" in refused("target-state", make(cloud).check_source, SOURCE, run).message


def test_quotas(cloud: Cloud, run: Run) -> None:
    output = make(cloud)
    cloud.state.most_gigabytes = 3
    output.check_source(SOURCE, run)
    output.check_sizes(SIZES, [0, 0], run)
    cloud.state.most_gigabytes = 2
    error = refused("target-quota", output.check_sizes, SIZES, [0, 0], run)
    assert "need 3 gigabytes" in error.message and "leaves 2" in error.message
    cloud.state.most_gigabytes, cloud.state.most_volumes = -1, 1
    refused("target-quota", output.check_source, SOURCE, run)


def test_a_quota_that_the_job_itself_uses_up(cloud: Cloud, run: Run) -> None:
    cloud.state.most_gigabytes, cloud.state.most_volumes = 3, 2
    output, _ = created(cloud, run)
    output.check_source(SOURCE, run)
    output.check_sizes(SIZES, [0, 0], run)


def test_a_quota_that_is_used_up_meanwhile(cloud: Cloud, run: Run) -> None:
    cloud.state.most_volumes = 1
    refused("target-quota", make(cloud).create_disks, SOURCE, SIZES, run)
    assert cloud.state.volumes == {}


def test_half_a_sector(cloud: Cloud, run: Run) -> None:
    refused("target-disk-size", make(cloud).check_sizes, [MiB + 1], [0], run)


def test_a_name_that_is_taken(cloud: Cloud, run: Run) -> None:
    output, disks = created(cloud, run)
    with output.connect(disks, run):
        pass
    output.finalize(SOURCE, GUEST, disks, run)
    output.check_source(SOURCE, run)  # its own are not in its way
    with Run.create(run.folder.parent, "other") as other:
        assert "web1-sda" in refused("target-exists", output.check_source, SOURCE, other).message
