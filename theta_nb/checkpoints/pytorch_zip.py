"""PyTorch's zip archives (``torch.save`` since 1.6, TorchScript): a pickle that refers to records of raw bytes.

::

    PREFIX/data.pkl                   the saved object; tensors refer to records by key
    PREFIX/data/KEY                   the bytes of one storage
    PREFIX/byteorder                  "little" or "big"
    PREFIX/.data/serialization_id     hash of the record names and checksums
    PREFIX/version, code/, constants.pkl, ...

Two files that differ in a tensor's values only also differ in every checksum of its record (in the data descriptor
and the central directory) and in ``serialization_id``: those are the derived fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from theta_nb.checkpoints.flattening import named_tensors
from theta_nb.checkpoints.formats import FileFormat
from theta_nb.checkpoints.layout import ByteSource, DerivedField, Layout, Storage
from theta_nb.checkpoints.pickle_objects import TensorView
from theta_nb.checkpoints.pickle_reader import MAX_PICKLE_NBYTES, read_pickle
from theta_nb.checkpoints.writers import write_pytorch
from theta_nb.checkpoints.zip_directory import Record, read_directory
from theta_nb.errors import CheckpointError
from theta_nb.tensors.spec import TensorSpec

__all__ = ["FORMAT", "Archive", "locate", "matches", "open_archive"]

# A view may be larger than its storage (expanded dimensions have stride 0), but nobody saves a tensor that no
# computer could hold, and whoever reads a view as an array may copy it.
MAX_EXPANDED_NBYTES = 1 << 32

# PyTorch writes 40 digits. Derived fields are stored one by one, so a record of megabytes must not become one.
MAX_ID_NBYTES = 64


def matches(head: bytes, size: int) -> bool:
    r"""Whether a file of ``size`` bytes that begins with ``head`` can be a PyTorch zip archive.

    Examples
    --------
    >>> matches(b"PK\x03\x04\0\0\x08\x08", 2000), matches(b"\x80\x02\x8a\nl\xfc\x9cF", 2000)
    (True, False)
    """
    return head.startswith(b"PK\x03\x04")


@dataclass(frozen=True, slots=True)
class Archive:
    """The records of a PyTorch archive.

    Parameters
    ----------
    records
        All of them, by offset.
    prefix
        Folder that they are in, with its slash.
    pickled
        ``data.pkl``.
    data
        Storages by key, by offset.
    """

    records: tuple[Record, ...]
    prefix: str
    pickled: Record
    data: Mapping[str, Record]


def open_archive(source: ByteSource) -> Archive:
    """Find the records of an archive.

    Raises
    ------
    CheckpointError
        If it is malformed, is not PyTorch's, or compresses what has to be located.
    """
    records = read_directory(source)
    prefix = _prefix(records)
    pickled = _stored(records, f"{prefix}data.pkl")
    if pickled is None:
        raise CheckpointError("the zip archive has no data.pkl and so is not PyTorch's")
    data = {record.name.removeprefix(f"{prefix}data/"): record for record in _data_records(records, prefix)}
    return Archive(records, prefix, pickled, data)


def locate(source: ByteSource) -> Layout:
    """Find the tensors of a PyTorch zip archive.

    Parameters
    ----------
    source
        The file.

    Returns
    -------
    Layout
        One storage for each ``data/KEY`` record. Where ``data.pkl`` cannot be read, or the archive is big-endian,
        the storages alone, with a warning.

    Raises
    ------
    CheckpointError
        If the archive is malformed, is not PyTorch's, or compresses what has to be located.
    """
    archive = open_archive(source)
    records, prefix, data = archive.records, archive.prefix, archive.data
    views, warnings = _read_views(source, records, prefix, archive.pickled, data)
    index_of = {key: index for index, key in enumerate(data)}
    tensors, claimed = _claim(views, data, index_of)
    if claimed < len(views):
        warnings.append(f"{len(views) - claimed} tensors do not fit their storage and are not listed")
    return Layout(
        "pytorch",
        source.size,
        _storages(data, tensors),
        tuple(tensors),
        _derived(records, prefix, index_of),
        tuple(warnings),
    )


def _prefix(records: Iterable[Record]) -> str:
    for record in records:
        head, slash, _ = record.name.partition("/")
        if not slash:
            break
        return head + slash
    raise CheckpointError("the zip archive has no common folder and so is not PyTorch's")


def _stored(records: Iterable[Record], name: str) -> Record | None:
    for record in records:
        if record.name == name:
            if not record.stored:
                raise CheckpointError(f"the record {name!r} is compressed or encrypted")
            return record
    return None


def _data_records(records: Iterable[Record], prefix: str) -> Iterable[Record]:
    for record in records:
        if record.name.startswith(f"{prefix}data/"):
            if not record.stored:
                raise CheckpointError(f"the record {record.name!r} is compressed or encrypted")
            yield record


def _read_views(
    source: ByteSource, records: tuple[Record, ...], prefix: str, pickled: Record, data: Mapping[str, Record]
) -> tuple[dict[str, TensorView], list[str]]:
    order = _stored(records, f"{prefix}byteorder")
    if order is not None and (order.nbytes > 6 or source.read(order.offset, order.nbytes) != b"little"):
        return {}, ["its tensors are not listed: it is not little-endian"]
    try:
        if pickled.nbytes > MAX_PICKLE_NBYTES:
            raise CheckpointError(f"data.pkl has {pickled.nbytes} bytes")
        root = read_pickle(
            source.read(pickled.offset, pickled.nbytes), {key: record.nbytes for key, record in data.items()}
        )
    except CheckpointError as error:
        return {}, [f"its tensors are not listed: {error}"]
    views, left_out = named_tensors(root)
    return views, [f"{left_out} tensors or containers nest too deep or have too long a name"] if left_out else []


def _claim(
    views: Mapping[str, TensorView], data: Mapping[str, Record], index_of: Mapping[str, int]
) -> tuple[list[TensorSpec], int]:
    """Views that fit their storage, and their number."""
    tensors = []
    for name, view in views.items():
        spec = TensorSpec(
            name, view.dtype, view.shape, view.strides, index_of[view.key], view.offset, view.conj, view.neg
        )
        nbytes = data[view.key].nbytes
        if spec.end() <= nbytes and spec.numel * view.dtype.itemsize <= max(nbytes, MAX_EXPANDED_NBYTES):
            tensors.append(spec)
    return tensors, len(tensors)


def _storages(data: Mapping[str, Record], tensors: Iterable[TensorSpec]) -> tuple[Storage, ...]:
    """Storages by offset. The first tensor that covers a storage sets its rows, else the first one its items."""
    sizes = [record.nbytes for record in data.values()]
    rows: dict[int, tuple[int, int]] = {}
    items: dict[int, int] = {}
    for tensor in tensors:
        index, itemsize = tensor.storage, tensor.dtype.itemsize
        nbytes = sizes[index]
        if index in rows or not nbytes or nbytes % itemsize:
            continue
        items.setdefault(index, itemsize)
        if tensor.covers(nbytes):
            rows[index] = itemsize, nbytes // tensor.shape[0] if len(tensor.shape) > 1 else itemsize
    storages = []
    for index, record in enumerate(data.values()):
        itemsize = items.get(index, 1)
        storages.append(Storage(record.offset, record.nbytes, *rows.get(index, (itemsize, itemsize))))
    return tuple(storages)


def _derived(records: Iterable[Record], prefix: str, index_of: Mapping[str, int]) -> tuple[DerivedField, ...]:
    fields = []
    for record in records:
        if record.name.startswith(f"{prefix}data/"):
            storage = index_of[record.name.removeprefix(f"{prefix}data/")]
            fields += [DerivedField(offset, 4, storage) for offset in record.crc_offsets]
        elif record.name == f"{prefix}.data/serialization_id" and record.nbytes <= MAX_ID_NBYTES:
            fields.append(DerivedField(record.offset, record.nbytes))
            fields += [DerivedField(offset, 4) for offset in record.crc_offsets]
    return tuple(sorted(fields, key=lambda field: field.offset))


FORMAT = FileFormat("pytorch", (".pt", ".pth", ".bin", ".ckpt"), matches, locate, write_pytorch)
