"""The checkpoints that take part in a merge, behind one small protocol.

A merge reads a tensor a block at a time, from a file, from stored objects or from memory, and knows everything else
about it (dtype, shape, digest) without reading it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from theta_nb.checkpoints.layout import Layout
from theta_nb.engine.layouts import anonymous
from theta_nb.engine.three_way import digest_of
from theta_nb.errors import CheckpointError
from theta_nb.merges.group import Array, widen
from theta_nb.tensors.chunks import chunk_digest, chunk_extents, storage_digest, tensor_digest
from theta_nb.tensors.dtypes import DTYPES, DType
from theta_nb.tensors.spec import Shape, TensorSpec, contiguous_strides

__all__ = [
    "VALUE",
    "MergeInput",
    "RawReader",
    "StateInput",
    "TensorInfo",
    "WideReader",
    "describe_anonymous",
    "input_digest",
    "tensor_infos",
]

VALUE = "value"
"""What stands for the dtype of what is no tensor: it is taken as it is, or not."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    Parameters
    ----------
    dtype
        Canonical name; ``"bytes"`` for a storage that no tensor covers, :data:`VALUE` for what is no tensor.
    shape
        Shape; the byte length for such a storage.
    digest
        Identity of the value.
    owner
        Name of the tensor or storage that holds the bytes, if it is another: tied tensors and views are one unit.
    """

    dtype: str
    shape: Shape
    digest: bytes
    owner: str = ""

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class RawReader(Protocol):
    """Random access to the bytes of one storage."""

    def read(self, start: int, stop: int, /) -> Array:
        """Bytes ``start`` to ``stop`` as uint8; valid until the next call."""
        ...


class MergeInput(Protocol):
    """A checkpoint that takes part in a merge."""

    @property
    def label(self) -> str:
        """Name in messages and parameters (``"ours"``)."""
        ...

    @property
    def revision(self) -> str:
        """Where it comes from (a revision, a path); part of the recipe."""
        ...

    @property
    def digest(self) -> str:
        """Identity of all its tensors, in hexadecimal; part of the recipe."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        ...

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a tensor that owns them; one reader serves one thread."""
        ...


class WideReader:
    """The elements of a tensor as float32 or float64, over its bytes.

    Parameters
    ----------
    raw
        The bytes.
    dtype
        Canonical name.
    """

    def __init__(self, raw: RawReader, dtype: str) -> None:
        self._raw = raw
        self._dtype = DTYPES[dtype].to_numpy()
        self._factor = 2 if self._dtype.kind == "c" else 1

    def read(self, start: int, stop: int, /) -> Array:
        """Elements ``start`` to ``stop``; those of complex numbers count twice."""
        size = self._dtype.itemsize
        raw = self._raw.read(start // self._factor * size, stop // self._factor * size)
        if raw.ctypes.data % self._dtype.alignment:
            raw = raw.copy()
        return widen(raw.view(self._dtype))


def input_digest(tensors: Mapping[str, TensorInfo]) -> str:
    """Identity of a set of tensors; see :func:`theta_nb.engine.three_way.digest_of`."""
    return digest_of({name: info.digest for name, info in tensors.items()})


class _Bytes:
    """Reads a buffer in memory."""

    def __init__(self, data: Array) -> None:
        self._data = data

    def read(self, start: int, stop: int, /) -> Array:
        """Bytes ``start`` to ``stop``."""
        return self._data[start:stop]


class StateInput:
    """A state dict in memory: names to NumPy arrays or torch tensors.

    Parameters
    ----------
    label, revision
        As in :class:`MergeInput`.
    state
        Flat; its arrays are read, never written.

    Examples
    --------
    >>> StateInput("ours", {"w": np.zeros((2, 3), np.float32)}).tensors["w"].shape
    (2, 3)
    """

    def __init__(self, label: str, state: Mapping[str, Any], revision: str = "") -> None:
        self.label = label
        self.revision = revision
        self._flat: dict[str, Array] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, value in state.items():
            flat, dtype, shape = _bytes_of(name, value)
            self._flat[name] = flat
            spec = TensorSpec(name, dtype, shape, contiguous_strides(shape), 0)
            row = 1 if len(shape) < 2 else int(np.prod(shape[1:]))
            chunks = chunk_extents(flat.nbytes, max(row * dtype.itemsize, 1), dtype.itemsize)
            digests = [chunk_digest(flat[e.offset : e.offset + e.nbytes].data) for e in chunks]
            self.tensors[name] = TensorInfo(dtype.name, shape, tensor_digest(spec, digests))
        self.digest = input_digest(self.tensors)

    def reader(self, name: str, /) -> RawReader:
        """The bytes of a tensor."""
        return _Bytes(self._flat[name])


def _bytes_of(name: str, value: Any) -> tuple[Array, DType, Shape]:
    """Bytes, dtype and shape of an array or a torch tensor, without a copy where it is dense."""
    if hasattr(value, "detach"):  # torch, without importing it
        import torch

        kind = str(value.dtype).removeprefix("torch.")
        dense = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        flat = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
        shape = tuple(value.shape)
    else:
        array = np.asarray(value)
        kind, shape = array.dtype.name, tuple(array.shape)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if kind not in DTYPES:
        raise CheckpointError(f"{name!r} is an array of {kind}, which no checkpoint holds")
    return flat, DTYPES[kind], shape


def tensor_infos(layout: Layout, names: tuple[str, ...], digests: list[list[bytes]]) -> dict[str, TensorInfo]:
    """Entries for the tensors of a layout, given the chunk digests of its storages."""
    infos: dict[str, TensorInfo] = {}
    for index, storage in enumerate(layout.storages):
        if names[index] == anonymous(index):
            digest = storage_digest(storage.nbytes, digests[index])
            infos[names[index]] = TensorInfo("bytes", (storage.nbytes,), digest)
    for tensor in layout.tensors:
        owner = names[tensor.storage]
        digest = tensor_digest(tensor, digests[tensor.storage])
        infos[tensor.name] = TensorInfo(tensor.dtype.name, tensor.shape, digest, "" if owner == tensor.name else owner)
    describe_anonymous(infos)
    return infos


def describe_anonymous(infos: dict[str, TensorInfo]) -> None:
    """Storages that no tensor covers, as flat tensors of the one dtype that all views on them have."""
    kinds: dict[str, set[str]] = {}
    for info in infos.values():
        if info.owner:
            kinds.setdefault(info.owner, set()).add(info.dtype)
    for name, found in kinds.items():
        info = infos[name]
        dtype = DTYPES[min(found)]
        if info.dtype == "bytes" and len(found) == 1 and dtype.bits % 8 == 0 and not info.shape[0] % dtype.itemsize:
            infos[name] = TensorInfo(dtype.name, (info.shape[0] // dtype.itemsize,), info.digest)
