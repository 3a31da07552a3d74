"""Arrow IPC files on any storage: whole tables, or batches with some of the columns."""

from collections.abc import Collection, Iterator

import pyarrow as pa

from winnow import heartbeat, storage


def write(path: str, table: pa.Table) -> None:
    """Write a table atomically."""
    with storage.open_output(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read(path: str) -> pa.Table:
    """The whole table of a file."""
    with storage.open_input(path) as file:
        return pa.ipc.open_file(file).read_all()


def batches(path: str, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a file, with those of ``columns`` that it has; memory-mapped if local.

    Raises:
        ValueError: the file is not an Arrow IPC file, or is damaged.
    """
    with open_mapped(path) as source:
        try:
            reader = pa.ipc.open_file(source)
            if columns is not None:
                fields = [i for i, name in enumerate(reader.schema.names) if name in columns]
                options = pa.ipc.IpcReadOptions(included_fields=fields)
                reader = pa.ipc.open_file(source, options=options)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
                heartbeat.beat()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a complete Arrow IPC file: {error}") from error


def open_unmapped(path: str) -> pa.NativeFile:
    """A file to read with pyarrow, of which only what is in use counts as this process's memory."""
    local = storage.scheme(path) is None
    return pa.OSFile(path) if local else pa.PythonFile(storage.open_input(path), mode="r")


def open_mapped(path: str) -> pa.NativeFile:
    """A file to read with pyarrow, memory-mapped if it is local."""
    local = storage.scheme(path) is None
    return pa.memory_map(path) if local else pa.PythonFile(storage.open_input(path), mode="r")
