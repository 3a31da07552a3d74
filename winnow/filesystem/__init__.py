"""Find, lock, read and atomically write files, local or in object stores."""
