"""What -o kubevirt is made of: manifests, and a cluster that they and the disks are sent to."""
