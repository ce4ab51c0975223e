"""What -o proxmox consists of: the API, what is checked, what is sent, and the VM that is made.

The API's reference: https://pve.proxmox.com/pve-docs/api-viewer/. What it does not tell is from
the sources of pve-storage, qemu-server and pve-http-server, 8.4 and 9.
"""
