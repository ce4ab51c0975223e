"""A small Proxmox VE: the part of its REST API that -o proxmox speaks, over HTTPS.

What it takes and refuses follows the sources of pve-http-server, pve-storage and qemu-server. Disks
are real: what is uploaded is checked and kept, and qemu-img imports it into the VM's volumes.
"""

from tests.fakes.proxmox.server import ProxmoxServer
from tests.fakes.proxmox.state import Storage

__all__ = ["ProxmoxServer", "Storage"]
