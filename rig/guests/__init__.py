"""The guest: workloads and programs of the host in, an initramfs, keys and disks out."""
