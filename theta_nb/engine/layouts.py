"""The stored form of a layout, and which entry of the manifest owns each storage.

A layout holds positions and views but no value, so it stays the same object while a model trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from theta_nb.checkpoints.layout import DerivedField, Layout, Storage
from theta_nb.errors import CheckpointError, ManifestError, listed
from theta_nb.manifest.model import Entry, Manifest, Value
from theta_nb.tensors.chunks import row_nbytes, tensor_digest
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import TensorSpec, contiguous_strides

__all__ = ["MAX_LAYOUT_NBYTES", "anonymous", "check_layout", "dump_layout", "owners", "parse_layout"]

MAX_LAYOUT_NBYTES = 256 * 2**20
"""Longer stored layouts are refused before they are read."""


def anonymous(index: int) -> str:
    """Entry name of storage ``index`` where no tensor covers it; parameter names never start with ``@``."""
    return f"@{index}"


def owners(layout: Layout) -> tuple[str, ...]:
    """Name of the entry that holds the bytes of each storage.

    That is the tensor that covers it (the first by name, if several are tied), or the storage itself as ``@N``.
    A storage whose chunking does not fit the tensor's rows stays anonymous.
    """
    found: dict[int, str] = {}
    for tensor in layout.tensors:
        storage = layout.storages[tensor.storage]
        if (
            tensor.covers(storage.nbytes)
            and storage.itemsize == tensor.dtype.itemsize
            and storage.row_nbytes == row_nbytes(tensor.dtype, tensor.shape)
        ):
            found[tensor.storage] = min(tensor.name, found.get(tensor.storage, tensor.name))
    return tuple(found.get(index, anonymous(index)) for index in range(len(layout.storages)))


def dump_layout(layout: Layout) -> bytes:
    """Compact JSON of a layout without its warnings."""
    names = {dtype: i for i, dtype in enumerate(sorted({t.dtype.name for t in layout.tensors}))}
    tensors: list[list[Any]] = []
    for t in layout.tensors:
        row: list[Any] = [t.name, names[t.dtype.name], t.storage, list(t.shape)]
        if not t.contiguous or t.offset or t.conj or t.neg:
            row += [list(t.strides), t.offset, int(t.conj), int(t.neg)]
        tensors.append(row)
    form = {
        "dtypes": sorted(names),
        "storages": [[s.offset, s.nbytes, s.itemsize, s.row_nbytes] for s in layout.storages],
        "tensors": tensors,
        "derived": [[f.offset, f.nbytes, f.storage] for f in layout.derived],
    }
    return json.dumps(form, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def parse_layout(data: bytes, format_name: str, size: int) -> Layout:
    """Read a stored layout back.

    Raises
    ------
    ManifestError
        If it is not what :func:`dump_layout` writes or describes an impossible file.
    """
    try:
        form = json.loads(data)
        dtypes = [dtype_named(name) for name in form["dtypes"]]
        return Layout(
            format=format_name,
            size=size,
            storages=tuple(Storage(*_integers(row, 4)) for row in form["storages"]),
            tensors=tuple(_tensor(row, dtypes) for row in form["tensors"]),
            derived=tuple(_derived(row) for row in form["derived"]),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ManifestError("the stored layout is malformed") from error
    except CheckpointError as error:
        raise ManifestError(f"the stored layout is impossible: {error.message}") from error


def _tensor(row: list[Any], dtypes: list[Any]) -> TensorSpec:
    name, dtype, storage, shape = row[:4]
    if not isinstance(name, str) or len(row) not in (4, 8):
        raise ValueError(row)
    dtype, storage = _integers([dtype, storage], 2)
    shape = _integers(shape, len(shape))
    if len(row) == 4:
        return TensorSpec(name, dtypes[dtype], shape, contiguous_strides(shape), storage)
    strides = _integers(row[4], len(shape))
    offset, conj, neg = _integers(row[5:], 3)
    return TensorSpec(name, dtypes[dtype], shape, strides, storage, offset, bool(conj), bool(neg))


def _derived(row: list[Any]) -> DerivedField:
    offset, nbytes, storage = row
    offset, nbytes = _integers([offset, nbytes], 2)
    return DerivedField(offset, nbytes, None if storage is None else _integers([storage], 1)[0])


def _integers(row: Any, count: int) -> tuple[int, ...]:
    if len(row) != count or not all(type(item) is int and 0 <= item < 2**62 for item in row):
        raise ValueError(row)
    return tuple(row)


def check_layout(manifest: Manifest, layout: Layout) -> None:
    """Check that the manifest's entries are those of the layout: a mix of two versions ends here.

    Raises
    ------
    ManifestError
        If an entry is missing, left over, or disagrees with the layout.
    """
    expected: dict[str, tuple[str, tuple[int, ...], str]] = {}
    names = owners(layout)
    for index, (storage, owner) in enumerate(zip(layout.storages, names, strict=True)):
        if owner == anonymous(index):
            expected[owner] = ("bytes", (storage.nbytes,), "")
    for t in layout.tensors:
        owner = names[t.storage]
        expected[t.name] = (t.dtype.name, t.shape, "" if owner == t.name else owner)
    found = {e.name: (e.dtype, e.shape, e.owner) for e in manifest.entries.values()}
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise _mixed(wrong)
    _check_views(manifest, layout, names)
    left_over = manifest.derived.keys() - range(len(layout.derived))
    if left_over:
        raise ManifestError(f"the file has no derived field {min(left_over)}")
    for index, field in enumerate(layout.derived):
        given = manifest.derived.get(index)
        if given is None:
            crc32 = b"" if field.storage is None else manifest.value_of(names[field.storage]).crc32
            given = crc32
        if len(given) != field.nbytes:
            raise ManifestError(f"derived field {index} is not described in the manifest")


def _check_views(manifest: Manifest, layout: Layout, names: tuple[str, ...]) -> None:
    """Check the digests that the manifest alone cannot: those of views, which follow from their owner's chunks."""
    wrong = []
    for t in layout.tensors:
        if names[t.storage] != t.name:
            chunks = manifest.value_of(names[t.storage]).chunks
            if tensor_digest(t, (chunk.digest for chunk in chunks)) != manifest.entries[t.name].digest:
                wrong.append(t.name)
    if wrong:
        raise _mixed(sorted(wrong))


def _mixed(names: list[str]) -> ManifestError:
    return ManifestError(
        f"the manifest mixes lines of two versions: {listed([repr(name) for name in names])} do not fit its layout",
        hint="Take the whole file from one version ('git checkout REV -- PATH').",
    )


def derived_bytes(manifest: Manifest, layout: Layout, names: tuple[str, ...]) -> Mapping[int, bytes]:
    """Bytes of every derived field of a manifest that :func:`check_layout` accepts."""
    out: dict[int, bytes] = {}
    for index, field in enumerate(layout.derived):
        if index in manifest.derived or field.storage is None:
            out[index] = manifest.derived[index]
        else:
            out[index] = manifest.value_of(names[field.storage]).crc32
    return out


def settle_derived(
    layout: Layout,
    owned: tuple[str, ...],
    derived: Mapping[int, bytes],
    entries: Mapping[str, Entry],
    values: dict[bytes, Value],
) -> dict[int, bytes]:
    """Put each storage's CRC-32 beside its value; fields that disagree with it stay on their own.

    Parameters
    ----------
    layout, owned
        Of the file, and the owner of each of its storages.
    derived
        Bytes of every derived field.
    entries, values
        Of the manifest; the values of owners get their CRC-32.

    Returns
    -------
    dict
        Fields that do not follow from a value.
    """
    left: dict[int, bytes] = {}
    for index, data in sorted(derived.items()):
        storage = layout.derived[index].storage
        if storage is None or len(data) != 4:
            left[index] = data
            continue
        digest = entries[owned[storage]].digest
        value = values[digest]
        if not value.crc32:
            values[digest] = Value(digest, value.nbytes, value.chunks, data)
        elif value.crc32 != data:
            left[index] = data
    return left


def entry_of(tensor: TensorSpec, digest: bytes, owner: str) -> Entry:
    """Line of a tensor, given the digest of its view and the owner of its storage."""
    return Entry(tensor.name, tensor.dtype.name, tensor.shape, digest, "" if owner == tensor.name else owner)
