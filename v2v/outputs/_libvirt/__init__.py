"""A libvirt host that guests are put on: what it has, its volumes, and its domains."""
