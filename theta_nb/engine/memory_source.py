"""State in memory as one side of a comparison: what is being trained against what is committed, before saving.

Every tensor counts as it would stand in a file of its own: contiguous, in its shape. So unchanged layers are known by
their digests, without a look at the other side's values. A committed tensor that is a view (``w.t()``) has a digest
which covers its strides; against it, equal values are found equal when they are measured.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from theta_nb.checkpoints.naming import Path, spell
from theta_nb.engine.diff import Parameter
from theta_nb.engine.sources import Stored
from theta_nb.errors import CheckpointError
from theta_nb.tensors.chunks import Extent, chunk_digest, chunk_extents, row_nbytes, tensor_digest
from theta_nb.tensors.dtypes import DTYPES, DType
from theta_nb.tensors.spec import TensorSpec, contiguous_strides

__all__ = ["MemorySource", "state_of"]

_MAX_DEPTH = 50
_BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES.values() if dtype.numpy is not None} | {"bool": DTYPES["bool"]}


@dataclass(frozen=True, slots=True)
class _Held:
    """A tensor of the state, and where it lies."""

    value: Any
    dtype: DType
    shape: tuple[int, ...]
    place: tuple[Any, ...]  # equal for tensors on the same memory


def state_of(value: Any) -> Mapping[Any, Any]:
    """The state dict of a module or an optimizer; a mapping is one already.

    Raises
    ------
    CheckpointError
        If it is neither.
    """
    if isinstance(value, Mapping):
        return value
    state = value.state_dict() if callable(getattr(value, "state_dict", None)) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{type(value).__name__} is no state", hint="Give a state dict, a module, or the name of a version."
        )
    return state


class MemorySource:
    """Torch tensors or NumPy arrays by name, nested containers included.

    Parameters
    ----------
    state
        A state dict, or what has one. Numbers and texts in it are left out, as they are no tensors.
    executor
        Where tensors are hashed.
    names
        Parameter names of the other side: a key that is one of them stands for it as it is spelled, so what
        ``Repository.load`` gave is compared with where it came from.

    Raises
    ------
    CheckpointError
        If it has no tensor, or one without values (sparse, quantized, on the meta device).

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(1) as executor:
    ...     source = MemorySource({"w": np.ones((2, 3), "float32"), "step": 3}, executor)
    >>> [(name, parameter.dtype, parameter.shape) for name, parameter in source.parameters.items()]
    [('w', 'float32', (2, 3))]
    """

    def __init__(self, state: Any, executor: Executor, names: Collection[str] = ()) -> None:
        self._held = dict(_tensors(state_of(state), names))
        if not self._held:
            raise CheckpointError("the state holds no tensor", hint="Give a state dict or a module.")
        self._extents = {name: tuple(_extents(held)) for name, held in self._held.items()}
        jobs = {
            name: [executor.submit(self._digest, name, extent) for extent in extents]
            for name, extents in self._extents.items()
        }
        self._digests = {name: tuple(job.result() for job in some) for name, some in jobs.items()}
        self._parameters = dict(self._describe())

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Parameter groups by name; tensors on the same memory are tied to the first of them."""
        return self._parameters

    def stored(self, name: str) -> Stored:
        """Where the elements of a parameter lie."""
        held = self._held[name]
        nbytes = sum(extent.nbytes for extent in self._extents[name])
        return Stored(_spec(name, held), nbytes, self._extents[name], self._digests[name])

    def prepare(self, names: Iterable[str]) -> None:
        """Do nothing: the values are here."""

    def block(self, stored: Stored, chunk: int, offset: int, dest: memoryview) -> memoryview:
        """A part of a chunk: the tensor's own memory, or a copy where that is on a device or has gaps."""
        start = stored.extents[chunk].offset + offset
        return _bytes(self._held[stored.spec.name], start, start + len(dest))

    def _digest(self, name: str, extent: Extent) -> bytes:
        return chunk_digest(_bytes(self._held[name], extent.offset, extent.offset + extent.nbytes))

    def _describe(self) -> Iterator[tuple[str, Parameter]]:
        first: dict[tuple[Any, ...], str] = {}
        for name, held in self._held.items():
            digest = tensor_digest(_spec(name, held), self._digests[name])
            tied = first.setdefault(held.place, name)
            yield name, Parameter(name, held.dtype.name, held.shape, digest, "" if tied == name else tied)


def _spec(name: str, held: _Held) -> TensorSpec:
    return TensorSpec(name, held.dtype, held.shape, contiguous_strides(held.shape), 0)


def _extents(held: _Held) -> Iterator[Extent]:
    nbytes = held.dtype.nbytes(_spec("", held).numel)
    return chunk_extents(nbytes, row_nbytes(held.dtype, held.shape), held.dtype.itemsize)


def _tensors(state: Mapping[Any, Any], names: Collection[str]) -> Iterator[tuple[str, _Held]]:
    """Every tensor by the name it would have in a file."""
    for key, value in state.items():
        if isinstance(key, str) and key in names and _is_tensor(value):
            yield key, _held(key, value)
        elif isinstance(key, str | int):
            yield from _walk((key,), value)


def _walk(path: Path, value: Any) -> Iterator[tuple[str, _Held]]:
    if _is_tensor(value):
        name = spell(path)
        yield name, _held(name, value)
    elif len(path) < _MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        children = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, child in children:
            if isinstance(key, str | int):
                yield from _walk((*path, key), child)


def _is_tensor(value: Any) -> bool:
    return _is_torch(value) or isinstance(value, np.ndarray | np.generic)


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever made the tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _held(name: str, value: Any) -> _Held:
    place: tuple[Any, ...]
    if _is_torch(value):
        if str(value.layout) != "torch.strided" or value.is_quantized or value.is_meta:
            raise CheckpointError(f"{name!r} is not a dense tensor with values")
        kind = str(value.dtype).removeprefix("torch.")
        shape = tuple(value.shape)
        view = (kind, shape, value.stride(), value.is_conj(), value.is_neg())
        place = (value.device, value.data_ptr(), *view) if value.numel() else (name,)
        value = value.detach()
    else:
        value = np.asarray(value)
        kind, shape = value.dtype.name, value.shape
        place = (value.__array_interface__["data"][0], kind, shape, value.strides) if value.size else (name,)
    dtype = DTYPES.get(kind) or _BY_NUMPY.get(kind)
    if dtype is None or (not _is_torch(value) and not value.dtype.isnative):
        raise CheckpointError(f"{name!r} is of type {kind}, which checkpoints cannot hold")
    return _Held(value, dtype, shape, place)


def _bytes(held: _Held, start: int, stop: int) -> memoryview:
    """Raw bytes of a range of a tensor in row-major order."""
    size = held.dtype.itemsize
    first, last = start // size, -(-stop // size)
    value = held.value
    if _is_torch(value):
        import torch

        value = value.resolve_conj().resolve_neg() if value.is_conj() or value.is_neg() else value
        flat = value.view(-1) if value.is_contiguous() else value.reshape(-1)
        array = flat[first:last].cpu().contiguous().view(torch.uint8).numpy()
    else:
        array = np.ascontiguousarray(value).reshape(-1)[first:last].view(np.uint8)
    return memoryview(array).cast("B")[start - first * size : stop - first * size]
