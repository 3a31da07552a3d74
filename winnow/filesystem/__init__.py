"""Files on local disks and in object stores: found, locked, read, written atomically."""
