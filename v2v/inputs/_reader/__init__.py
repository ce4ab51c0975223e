"""VMDK disks in a store, served over NBD by a process of nbdkit that runs our reader."""
