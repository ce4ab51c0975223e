"""A libvirt host: the connection, and what is asked of it."""
