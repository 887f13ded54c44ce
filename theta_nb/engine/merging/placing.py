"""Puts the result of a merge into memory: arrays, torch tensors, a model that exists already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from theta_nb.checkpoints.layout import Layout
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.errors import CheckpointError, MergeError
from theta_nb.merges.group import Array
from theta_nb.merges.tensors import overlap

if TYPE_CHECKING:
    import torch

    from theta_nb.engine.merging.session import MergeSession

__all__ = ["as_torch", "places", "shape_of", "with_views"]


def shape_of(decision: Decision) -> tuple[int, ...]:
    """Shape of a parameter's result: the union where versions overlap."""
    info = decision.info
    if info is None or decision.method is None:
        return info.shape if info is not None else ()
    versions = (decision.unit.base, *(decision.unit.versions[k] for k in decision.inputs))
    found = overlap([version.shape for version in versions if version is not None])
    return found[1] if found is not None else info.shape


def with_views(session: MergeSession, arrays: dict[str, Array]) -> dict[str, Array]:
    """Add what is tied to a parameter or a view on it, and leave out storages that have no name of their own."""
    out = {name: array for name, array in arrays.items() if not name.startswith("@")}
    for source in session.inputs:
        layout: Layout | None = getattr(source, "layout", None)
        for tensor in layout.tensors if layout is not None else ():
            info = source.tensors[tensor.name]
            if info.owner not in arrays or tensor.name in out:
                continue
            flat = arrays[info.owner].reshape(-1).view(np.uint8)
            dtype = tensor.dtype.to_numpy()
            if tensor.end() <= len(flat) and not tensor.offset % dtype.alignment and not tensor.conj and not tensor.neg:
                steps = tuple(step * dtype.itemsize for step in tensor.strides)
                out[tensor.name] = np.ndarray(tensor.shape, dtype, flat.data, tensor.offset, steps)
    return out


def as_torch(array: Array) -> torch.Tensor:
    """A torch tensor on the memory of an array."""
    import torch

    name = array.dtype.name
    kind = getattr(torch, "bool" if name == "bool" else name, None)
    if not isinstance(kind, torch.dtype):
        raise CheckpointError(f"torch has no type for an array of {name}")
    if not array.size:
        return torch.empty(array.shape, dtype=kind)
    step = [s // array.dtype.itemsize for s in array.strides]
    root = array if array.flags.c_contiguous else np.asarray(array.base)
    start = (array.ctypes.data - root.ctypes.data) // array.dtype.itemsize
    flat = torch.from_numpy(np.ascontiguousarray(root).reshape(-1).view(np.uint8)).view(kind)
    return flat.as_strided(array.shape, step, start)


def places(into: Any, session: MergeSession) -> dict[str, Array]:
    """The memory of every parameter in a model or a state dict, as bytes.

    Raises
    ------
    MergeError
        If a parameter is missing, or has another shape, dtype or place than the result needs.
    """
    state: Mapping[str, Any] = into if isinstance(into, Mapping) else into.state_dict(keep_vars=True)
    found: dict[str, Array] = {}
    for decision in session.tensor_decisions:
        name, info = decision.unit.name, decision.info
        if info is None or name.startswith("@"):
            continue
        if name not in state:
            raise MergeError(f"the model has no parameter {name!r}")
        found[name] = _memory(name, state[name], info, shape_of(decision))
    return found


def _memory(name: str, value: Any, info: TensorInfo, shape: tuple[int, ...]) -> Array:
    kind = str(value.dtype).removeprefix("torch.")
    if tuple(value.shape) != shape or kind != info.dtype:
        raise MergeError(
            f"{name!r} is {kind} {list(value.shape)} in the model, and {info.dtype} {list(shape)} in the result"
        )
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous or not value.flags.writeable:
            raise MergeError(f"{name!r} cannot be written in place: it is read-only or not contiguous")
        return value.reshape(-1).view(np.uint8)
    import torch

    tensor = value.detach()
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise MergeError(
            f"{name!r} cannot be written in place: it is on {tensor.device} or not contiguous",
            hint="Load session.state_dict() into the model instead.",
        )
    made: Array = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()
    return made
