"""VMDK disks read by ourselves, wherever their files are.

`store` says what a place with files must give; `open_disk` makes a disk of a descriptor in it, with
all that belongs to it: parts, parents, tables.
"""
