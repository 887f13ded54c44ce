"""safetensors: a length, a JSON header, then the bytes of the tensors.

Specification: https://github.com/huggingface/safetensors#format. The parser is stricter than the library where a
header could say two things (duplicate names), and more lenient where the file stays unambiguous (holes, trailing
bytes, entries of an unknown dtype): what it does not understand is kept as it is.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from theta_nb.checkpoints.formats import FileFormat
from theta_nb.checkpoints.layout import ByteSource, Layout, Storage
from theta_nb.checkpoints.naming import spell
from theta_nb.checkpoints.writers import write_safetensors
from theta_nb.errors import CheckpointError
from theta_nb.tensors.dtypes import DTYPES, DType
from theta_nb.tensors.spec import Shape, TensorSpec, contiguous_strides

__all__ = ["FORMAT", "locate", "matches"]

MAX_HEADER_NBYTES = 100_000_000  # the limit of the reference implementation
MAX_DIMENSIONS = 64  # what NumPy and PyTorch can hold; also keeps products of sizes small
# A header is parsed into objects about twenty times its size, so what it may hold is counted before it is parsed.
MAX_TENSORS = 1_000_000
MAX_COMMAS = 16 * MAX_TENSORS

_WHITESPACE = b" \t\r\n"
_DTYPES = {dtype.safetensors: dtype for dtype in DTYPES.values() if dtype.safetensors is not None}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a header: its key, its type (``None`` if unknown), and its range in the file."""

    key: str
    dtype: DType | None
    shape: Shape
    begin: int
    end: int


def matches(head: bytes, size: int) -> bool:
    r"""Whether a file of ``size`` bytes that begins with ``head`` can be a safetensors file.

    Examples
    --------
    >>> matches(b"\x02\0\0\0\0\0\0\0{}", 10), matches(b"PK\x03\x04\0\0\x08\x08\0\0", 2000)
    (True, False)
    """
    if len(head) < 8 or not 2 <= int.from_bytes(head[:8], "little") <= min(size - 8, MAX_HEADER_NBYTES):
        return False
    start = head[8:].lstrip(_WHITESPACE)
    return start.startswith(b"{") or not start


def locate(source: ByteSource) -> Layout:
    """Find the tensors of a safetensors file.

    Parameters
    ----------
    source
        The file.

    Returns
    -------
    Layout
        One storage for each byte range that the header names; entries with the same range are tied and share it.

    Raises
    ------
    CheckpointError
        If the header lies: bad JSON, duplicate names, ranges that overlap, leave the file or contradict the shape.
    """
    header, data_start = _read_header(source)
    if "__metadata__" in header:
        _check_metadata(header["__metadata__"])
    entries = [_entry(key, info, data_start, source.size) for key, info in header.items() if key != "__metadata__"]
    storages, index_of = _storages(entries)
    tensors = tuple(
        TensorSpec(spell((entry.key,)), entry.dtype, entry.shape, contiguous_strides(entry.shape), index_of[entry.key])
        for entry in entries
        if entry.dtype is not None
    )
    unknown = [entry.key for entry in entries if entry.dtype is None]
    warnings = (f"{len(unknown)} tensors of unknown dtype are kept as bytes, first {unknown[0]!r}",) if unknown else ()
    return Layout("safetensors", source.size, storages, tensors, warnings=warnings)


def _read_header(source: ByteSource) -> tuple[dict[str, Any], int]:
    if source.size < 8:
        raise CheckpointError(f"a file of {source.size} bytes is too short for safetensors")
    (nbytes,) = struct.unpack("<Q", source.read(0, 8))
    if nbytes > MAX_HEADER_NBYTES or nbytes > source.size - 8:
        raise CheckpointError(f"the safetensors header claims {nbytes} bytes of a file of {source.size}")
    raw = source.read(8, nbytes)
    if raw.count(b"{") > MAX_TENSORS + 2 or raw.count(b"[") > 2 * MAX_TENSORS or raw.count(b",") > MAX_COMMAS:
        raise CheckpointError(f"the safetensors header lists more than {MAX_TENSORS} tensors")
    try:
        header = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_no_float
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the safetensors header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError("the safetensors header is not a JSON object")
    return header, 8 + nbytes


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} occurs twice")
    return table


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not an integer")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("__metadata__ of the safetensors header is not a table of strings")


def _entry(key: str, info: object, data_start: int, size: int) -> Entry:
    if not isinstance(info, dict):
        raise CheckpointError(f"safetensors entry {key!r} is not an object")
    shape, offsets, dtype_name = info.get("shape"), info.get("data_offsets"), info.get("dtype")
    if not isinstance(dtype_name, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"safetensors entry {key!r} has no valid dtype, shape or data_offsets")
    begin, end = offsets
    if begin > end or end > size - data_start:
        raise CheckpointError(f"the range {begin}..{end} of safetensors entry {key!r} leaves the file")
    dtype = _DTYPES.get(dtype_name)
    entry = Entry(key, dtype, tuple(shape), data_start + begin, data_start + end)
    if dtype is not None:
        numel = 1
        for n in entry.shape:
            numel *= n
        if dtype.nbytes(numel) != end - begin:
            raise CheckpointError(
                f"safetensors entry {key!r} ({dtype_name} {list(entry.shape)}) does not fill its {end - begin} bytes"
            )
    return entry


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    # bool is an int to Python, and true is no size
    return (
        isinstance(value, list)
        and len(value) <= MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
    )


def _storages(entries: Iterable[Entry]) -> tuple[tuple[Storage, ...], dict[str, int]]:
    """Storages by offset, and the index of each entry's storage."""
    storages: list[Storage] = []
    index_of: dict[str, int] = {}
    previous: Entry | None = None
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        nbytes = entry.end - entry.begin
        if nbytes and previous is not None:
            if (entry.begin, entry.end) == (previous.begin, previous.end):
                index_of[entry.key] = index_of[previous.key]
                continue
            if entry.begin < previous.end:
                raise CheckpointError(f"safetensors entries {previous.key!r} and {entry.key!r} overlap")
        index_of[entry.key] = len(storages)
        storages.append(_storage(entry, nbytes))
        if nbytes:
            previous = entry
    return tuple(storages), index_of


def _storage(entry: Entry, nbytes: int) -> Storage:
    if entry.dtype is None or not nbytes:
        return Storage(entry.begin, nbytes)
    itemsize = entry.dtype.itemsize
    row_nbytes = itemsize
    # A row of packed 4- or 6-bit elements may end inside a byte; then there is no row boundary to cut at.
    if len(entry.shape) > 1 and nbytes % entry.shape[0] == 0:
        row_nbytes = nbytes // entry.shape[0]
    return Storage(entry.begin, nbytes, itemsize, row_nbytes)


FORMAT = FileFormat("safetensors", (".safetensors",), matches, locate, write_safetensors)
