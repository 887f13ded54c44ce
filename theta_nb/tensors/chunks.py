"""How a storage is cut into chunks, and how chunks and tensors are identified.

A chunk is about 16 MiB of raw bytes that ends on a row boundary, so work is parallel, memory is bounded, and one
changed row of an embedding re-stores one chunk. BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs) of the raw bytes
identifies a chunk. A tensor's digest covers its view as well as its chunks: a square ``w`` and ``w.t()`` have equal
bytes, dtype and shape, and different values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from blake3 import blake3

from theta_nb.tensors.dtypes import DType
from theta_nb.tensors.spec import Shape, TensorSpec, contiguous_strides

__all__ = [
    "CHUNK_NBYTES",
    "DIGEST_NBYTES",
    "Extent",
    "chunk_digest",
    "chunk_extents",
    "row_nbytes",
    "storage_digest",
    "tensor_digest",
]

CHUNK_NBYTES = 16 * 2**20
"""Upper bound of a chunk's raw size, in bytes."""

DIGEST_NBYTES = 32
"""Length of every digest, in bytes."""


class Extent(NamedTuple):
    """A byte range within a storage."""

    offset: int
    nbytes: int


def row_nbytes(dtype: DType, shape: Shape) -> int:
    """Bytes of one row (index along the first dimension) of a contiguous tensor; one element below two dimensions.

    Examples
    --------
    >>> from theta_nb.tensors.dtypes import dtype_named
    >>> row_nbytes(dtype_named("float32"), (30522, 384)), row_nbytes(dtype_named("float32"), (7,))
    (1536, 4)
    """
    if len(shape) < 2:
        return dtype.itemsize
    count = 1
    for size in shape[1:]:
        count *= size
    return max(dtype.itemsize, -(-count * dtype.bits // 8))


def chunk_nbytes(row: int, itemsize: int) -> int:
    """Raw bytes of every chunk but the last, for rows of ``row`` bytes and elements of ``itemsize`` bytes."""
    if row <= CHUNK_NBYTES:
        return CHUNK_NBYTES // row * row
    return max(CHUNK_NBYTES // itemsize * itemsize, itemsize)


def chunk_extents(nbytes: int, row: int, itemsize: int) -> Iterator[Extent]:
    """Cut ``nbytes`` bytes into chunks, in order.

    Parameters
    ----------
    nbytes
        Length of the storage; 0 gives no chunk.
    row
        Bytes of a row; a chunk holds whole rows, or a part of one row longer than :data:`CHUNK_NBYTES`.
    itemsize
        Bytes of an element, never split.

    Examples
    --------
    >>> [e.nbytes for e in chunk_extents(40 * 2**20, 3 * 2**20, 4)]
    [15728640, 15728640, 10485760]
    """
    if row <= CHUNK_NBYTES:
        step = chunk_nbytes(row, itemsize)
        for offset in range(0, nbytes, step):
            yield Extent(offset, min(step, nbytes - offset))
        return
    step = chunk_nbytes(row, itemsize)
    for start in range(0, nbytes, row):
        end = min(start + row, nbytes)
        for offset in range(start, end, step):
            yield Extent(offset, min(step, end - offset))


def chunk_digest(raw: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of a chunk's raw bytes, 32 bytes."""
    return blake3(raw).digest()


def storage_digest(nbytes: int, chunks: Iterable[bytes]) -> bytes:
    """Digest of bytes that no single tensor covers: BLAKE3 over their length and chunk digests."""
    return blake3(b"storage %d\n" % nbytes + b"".join(chunks)).digest()


def tensor_digest(spec: TensorSpec, chunks: Iterable[bytes]) -> bytes:
    """Digest of a tensor: BLAKE3 over dtype, view and the chunk digests of its storage.

    The name is no part of it, so a renamed tensor keeps its digest. The strides of a contiguous tensor are
    normalised, as those of size-1 dimensions carry no meaning.

    Examples
    --------
    >>> from theta_nb.tensors.dtypes import dtype_named
    >>> w = TensorSpec("w", dtype_named("float32"), (2, 2), (2, 1), 0)
    >>> wt = TensorSpec("w", dtype_named("float32"), (2, 2), (1, 2), 0)
    >>> chunks = [chunk_digest(bytes(16))]
    >>> tensor_digest(w, chunks) == tensor_digest(wt, chunks)
    False
    """
    strides = contiguous_strides(spec.shape) if spec.contiguous else spec.strides
    flags = ("c" if spec.conj else "") + ("n" if spec.neg else "")
    shape = ",".join(map(str, spec.shape))
    step = ",".join(map(str, strides))
    head = f"tensor {spec.dtype.name} {shape} {step} {spec.offset} {flags}\n"
    return blake3(head.encode("ascii") + b"".join(chunks)).digest()
