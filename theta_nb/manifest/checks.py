"""What must agree within a manifest: what needs no object is checked before anything is believed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from theta_nb.errors import ManifestError
from theta_nb.manifest.memo import Memo
from theta_nb.manifest.model import Entry, Manifest, Value
from theta_nb.manifest.words import PREFIX
from theta_nb.tensors.chunks import chunk_extents, row_nbytes, storage_digest, tensor_digest
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import TensorSpec, contiguous_strides

__all__ = ["check", "check_how"]


def check_how(manifest: Manifest, rows: Mapping[str, list[str]]) -> None:
    """Check the last column, which people read."""
    for name, entry in manifest.entries.items():
        if not entry.owner and rows[name][4] != manifest.values[entry.digest].update:
            raise ManifestError(
                f"parameter {name!r} is said to be stored as {rows[name][4][:40]!r}: lines of two versions are mixed",
                hint="Take the whole file from one version.",
            )


def check(manifest: Manifest, memo: Memo | None) -> None:
    """Check what needs no object: owners, lengths, digests against chunk digests, and that nothing is left over."""
    _check_bytes("the layout", manifest.values[manifest.layout])
    _check_bytes("the skeleton", manifest.values[manifest.skeleton])
    for entry in manifest.entries.values():
        if entry.owner:
            owner = manifest.entries.get(entry.owner)
            if owner is None or owner.owner:
                raise ManifestError(f"parameter {entry.name!r} is a view of {entry.owner!r}, which holds no value")
        elif entry.dtype == "bytes":
            _check_bytes(entry.name, manifest.values[entry.digest])
            if entry.shape != (manifest.values[entry.digest].nbytes,):
                raise ManifestError(f"{entry.name} has another length than its value")
        elif memo is None:
            _check_tensor(entry, manifest.values[entry.digest])
        else:
            value = manifest.values[entry.digest]
            memo.fits(entry, value, partial(_check_tensor, entry, value))
    _check_nothing_is_left(manifest)


def _check_nothing_is_left(manifest: Manifest) -> None:
    # Nobody proves the digest of what nothing refers to, and a merge by lines leaves such lines.
    used = {entry.digest for entry in manifest.entries.values() if not entry.owner}
    used |= {manifest.layout, manifest.skeleton}
    for digest in manifest.values.keys() - used:
        raise ManifestError(f"nothing refers to value {digest.hex()[:PREFIX]!r}: lines of two versions are mixed")
    for oid in manifest.objects.keys() - {oid for value in manifest.values.values() for oid in value.oids}:
        raise ManifestError(f"nothing refers to object {oid[:12]}: lines of two versions are mixed")


def _check_bytes(name: str, value: Value) -> None:
    if storage_digest(value.nbytes, (chunk.digest for chunk in value.chunks)) != value.digest:
        raise ManifestError(f"the value of {name} does not have the digest it is listed under")
    _check_count(name, value, 1, 1)


def _check_tensor(entry: Entry, value: Value) -> None:
    dtype = dtype_named(entry.dtype)
    spec = TensorSpec(entry.name, dtype, entry.shape, contiguous_strides(entry.shape), 0)
    if dtype.nbytes(spec.numel) != value.nbytes:
        raise ManifestError(f"parameter {entry.name!r}: {value.nbytes} bytes do not fill its shape")
    if tensor_digest(spec, (chunk.digest for chunk in value.chunks)) != value.digest:
        raise ManifestError(f"parameter {entry.name!r}: its value does not have the digest it is listed under")
    _check_count(entry.name, value, row_nbytes(dtype, entry.shape), dtype.itemsize)


def _check_count(name: str, value: Value, row: int, itemsize: int) -> None:
    chunks = iter(value.chunks)
    for extent in chunk_extents(value.nbytes, row, itemsize):
        chunk = next(chunks, None)
        if chunk is None or (not chunk.oid and len(chunk.inline) != extent.nbytes):
            raise ManifestError(f"the value of {name!r} does not have the chunks its length asks for")
    if next(chunks, None) is not None:
        raise ManifestError(f"the value of {name!r} has more chunks than its length asks for")
