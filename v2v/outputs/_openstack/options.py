"""Whom to ask, and as whom: as every tool for OpenStack takes it, but for passwords as words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2v.options import option

METADATA_SERVICE = "http://169.254.169.254"  # of any server of OpenStack

# Fields of CloudOptions that are a part of the login, by the names that keystoneauth has for them.
LOGIN = (
    "auth_url",
    "username",
    "user_id",
    "user_domain_name",
    "user_domain_id",
    "project_name",
    "project_id",
    "project_domain_name",
    "project_domain_id",
    "application_credential_id",
    "application_credential_name",
)
REST = ("region_name", "interface", "auth_type")  # others that openstacksdk takes as they are


def _word(flag: str, help: str) -> Any:
    return option(f"-oo {flag}", help, default=None)


@dataclass(frozen=True, kw_only=True)  # without slots, so that it can be mixed with others
class CloudOptions:
    auth_url: str | None = option(
        "-oc",
        "address of Keystone (default: $OS_AUTH_URL, or that of the cloud)",
        default=None,
        metavar="URL",
        also=("-oo os-auth-url",),
    )
    password: Path | None = option(
        "-op", "file that holds the password, or the application credential's secret", default=None
    )
    cloud: str | None = option(
        "-oo cloud",
        "a cloud of clouds.yaml (default: $OS_CLOUD)",
        default=None,
        metavar="NAME",
        also=("-oo os-cloud",),
    )
    cafile: Path | None = option(
        "-oo cafile",
        "certificates of the authority that the cloud's certificates are signed by",
        default=None,
        metavar="FILE",
        also=("-oo os-cacert",),
    )
    verify: bool = option(
        "-oo verify-server-certificate",
        "whether the cloud's certificates are checked",
        default=True,
    )
    username: str | None = _word("os-username", "as $OS_USERNAME")
    user_id: str | None = _word("os-user-id", "as $OS_USER_ID")
    user_domain_name: str | None = _word("os-user-domain-name", "as $OS_USER_DOMAIN_NAME")
    user_domain_id: str | None = _word("os-user-domain-id", "as $OS_USER_DOMAIN_ID")
    project_name: str | None = _word("os-project-name", "as $OS_PROJECT_NAME")
    project_id: str | None = _word("os-project-id", "as $OS_PROJECT_ID")
    project_domain_name: str | None = _word("os-project-domain-name", "as $OS_PROJECT_DOMAIN_NAME")
    project_domain_id: str | None = _word("os-project-domain-id", "as $OS_PROJECT_DOMAIN_ID")
    application_credential_id: str | None = _word(
        "os-application-credential-id", "as $OS_APPLICATION_CREDENTIAL_ID"
    )
    application_credential_name: str | None = _word(
        "os-application-credential-name", "as $OS_APPLICATION_CREDENTIAL_NAME"
    )
    auth_type: str | None = _word("os-auth-type", "as $OS_AUTH_TYPE")
    region_name: str | None = _word("os-region-name", "as $OS_REGION_NAME")
    interface: str | None = _word("os-interface", "as $OS_INTERFACE: public, internal or admin")


@dataclass(frozen=True, kw_only=True)
class OpenStackOptions(CloudOptions):
    storage: str | None = option(
        "-os", "volume type (default: the cloud's own)", default=None, metavar="TYPE"
    )
    server_id: str | None = option(
        "-oo server-id",
        "the server that v2v runs in (default: as its metadata service says)",
        default=None,
        metavar="UUID",
    )
    zone: str | None = option(
        "-oo availability-zone",
        "Cinder's zone, where a server takes volumes of its own zone only",
        default=None,
        metavar="NAME",
    )
    guest_id: str | None = option(
        "-oo guest-id", "an id that the volumes carry as v2v_guest_id", default=None
    )
    by_id: Path = option(
        "-oo dev-disk-by-id",
        "where udev names disks by their serial",
        default=Path("/dev/disk/by-id"),
    )
    metadata_service: str | None = option(
        "-oo metadata-service",
        f"where to ask for this server's id (default: {METADATA_SERVICE})",
        default=None,
        metavar="URL",
    )


def given(options: CloudOptions, names: tuple[str, ...]) -> dict[str, str]:
    """Those of the fields that the user gave."""
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
