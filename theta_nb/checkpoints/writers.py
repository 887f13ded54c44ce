"""Writes a state dict as a new file: safetensors, or PyTorch through ``torch.save``.

Both take torch tensors and NumPy arrays (``ml_dtypes`` included). torch is imported only where a tensor or a PyTorch
file is at hand.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from theta_nb.checkpoints.formats import State
from theta_nb.errors import CheckpointError
from theta_nb.tensors.dtypes import DTYPES

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["write_pytorch", "write_safetensors"]

_AS_PT = "Save it as a .pt file, which can hold it"
_SAFETENSORS_NAMES = {dtype.name: dtype.safetensors for dtype in DTYPES.values() if dtype.safetensors is not None}
_SAFETENSORS_NAMES |= {
    dtype.numpy: dtype.safetensors
    for dtype in DTYPES.values()
    if dtype.numpy is not None and dtype.safetensors is not None
}
_SAFETENSORS_NAMES["float4_e2m1fn_x2"] = "F4"  # torch's name; two elements in a byte


@dataclass(frozen=True, slots=True)
class _Source:
    """A tensor that is to be written, and the addresses of memory that it occupies."""

    name: str
    value: Any
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    itemsize: int
    device: str
    begin: int
    end: int


def write_safetensors(state: State, path: str, metadata: Mapping[str, str]) -> None:
    """Write ``state`` as a safetensors file.

    Written here rather than by the safetensors library, whose ``__metadata__`` comes out in another order each time:
    the same state dict must give the same file. Tensors are ordered as the library orders them, widest elements first
    and then by name, so that every tensor is aligned.

    Parameters
    ----------
    state
        Flat: names to torch tensors or NumPy arrays.
    path
        File to write; replaced if it exists. The caller makes the replacement atomic.
    metadata
        Text for ``__metadata__``; left out if empty.

    Raises
    ------
    CheckpointError
        If the format cannot hold a value: a nested dict, a number, a dtype, or tensors that share memory.

    Examples
    --------
    >>> import os, tempfile, numpy, safetensors.numpy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     write_safetensors({"w": numpy.ones(2, "float32")}, path, {"format": "pt"})
    ...     safetensors.numpy.load_file(path)["w"]
    array([1., 1.], dtype=float32)
    """
    _check_text(metadata)
    sources = [_source(name, value) for name, value in state.items()]
    _check_untied(sources)
    sources.sort(key=lambda source: (-source.itemsize, source.name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for source in sources:
        offsets = [position, position + source.nbytes]
        header[source.name] = {"dtype": source.dtype, "shape": list(source.shape), "data_offsets": offsets}
        position += source.nbytes
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for source in sources:
            _write_bytes(file, source)


def _check_text(metadata: Mapping[str, str]) -> None:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise CheckpointError(f"the metadata {key!r} is not text", hint="Convert it with str or json.dumps.")


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever made the tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _source(name: object, value: Any) -> _Source:
    if not isinstance(name, str) or name == "__metadata__":
        raise CheckpointError(f"a safetensors file cannot hold the key {name!r}", hint=f"{_AS_PT}.")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise CheckpointError(f"the key {name!r} is not Unicode text", hint="Rename the parameter.") from None
    if _is_torch(value):
        return _torch_source(name, value)
    import numpy as np

    if isinstance(value, np.ndarray | np.generic):
        return _numpy_source(name, np.asarray(value))
    kind = type(value).__name__
    raise CheckpointError(
        f"{name!r} is a {kind}, and safetensors files hold a flat table of tensors", hint=f"{_AS_PT}."
    )


def _torch_source(name: str, value: torch.Tensor) -> _Source:
    import torch

    kind = str(value.dtype).removeprefix("torch.")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        raise CheckpointError(f"{name!r} is not a dense tensor with values", hint=f"{_AS_PT}, or densify it.")
    if kind not in _SAFETENSORS_NAMES or (kind == "float4_e2m1fn_x2" and not value.ndim):
        raise CheckpointError(f"safetensors has no type for {name!r} ({kind})", hint=f"{_AS_PT}, or convert it.")
    itemsize = value.element_size()
    shape = tuple(value.shape)
    begin, end = _bounds(value.data_ptr(), shape, tuple(s * itemsize for s in value.stride()), itemsize)
    nbytes = value.numel() * itemsize
    if kind == "float4_e2m1fn_x2":  # torch counts pairs
        kind, shape = "float4_e2m1", (*shape[:-1], 2 * shape[-1])
    return _Source(name, value, _SAFETENSORS_NAMES[kind], shape, nbytes, itemsize, str(value.device), begin, end)


def _numpy_source(name: str, value: np.ndarray) -> _Source:
    kind = value.dtype.name
    if kind not in _SAFETENSORS_NAMES:
        raise CheckpointError(f"safetensors has no type for {name!r} ({kind})", hint=f"{_AS_PT}, or convert it.")
    itemsize = value.dtype.itemsize
    begin, end = _bounds(value.__array_interface__["data"][0], value.shape, value.strides, itemsize)
    return _Source(name, value, _SAFETENSORS_NAMES[kind], value.shape, value.nbytes, itemsize, "cpu", begin, end)


def _bounds(start: int, shape: tuple[int, ...], steps: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Addresses between which the elements of an array lie; equal if it has none. ``steps`` are in bytes."""
    if 0 in shape:
        return start, start
    reach = [(n - 1) * step for n, step in zip(shape, steps, strict=True)]
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + itemsize


def _check_untied(sources: list[_Source]) -> None:
    """Refuse tensors that share memory: written twice, they would come back untied."""
    previous: _Source | None = None
    for source in sorted(sources, key=lambda source: (source.device, source.begin)):
        if source.begin == source.end:
            continue
        if previous is not None and previous.device == source.device and source.begin < previous.end:
            raise CheckpointError(
                f"{previous.name!r} and {source.name!r} share memory, and a safetensors file would untie them",
                hint="Save them as a .pt file, or pass a clone of one of them.",
            )
        previous = source


def _write_bytes(file: BinaryIO, source: _Source) -> None:
    import numpy as np

    value = source.value
    if _is_torch(value):
        import torch

        dense = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
        # as_strided, not reshape: a contiguous dimension of size 1 may have any stride, which view() refuses
        value = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
    else:
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        value = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    file.write(memoryview(value))


def write_pytorch(state: State, path: str, metadata: Mapping[str, str]) -> None:
    """Write ``state`` with ``torch.save``; nested containers and tied tensors are kept.

    NumPy arrays become torch tensors, so that they are located by layer when the file is read again.

    Parameters
    ----------
    state
        Anything that ``torch.save`` takes.
    path
        File to write; replaced if it exists. The caller makes the replacement atomic.
    metadata
        Must be empty: the format has no place for it.

    Raises
    ------
    CheckpointError
        If there is metadata, or a NumPy array whose type torch does not have.
    """
    if metadata:
        raise CheckpointError(
            f"{path} cannot hold metadata", hint="Put it into the state dict, or use a .safetensors file name."
        )
    import torch

    # torch names the folder inside the archive after the file it is given by path, which may be a temporary one.
    with open(path, "wb") as file:
        torch.save(_as_torch(state, {}), file)


def _as_torch(value: Any, made: dict[int, tuple[Any, Any]]) -> Any:
    """``value`` with every NumPy array in its containers replaced; a container without any is itself.

    ``made`` maps the identity of what was seen to itself (which keeps the identity taken) and its replacement.
    """
    import numpy as np

    if not isinstance(value, np.ndarray | Mapping | list | tuple):
        return value
    if id(value) in made:
        return made[id(value)][1]
    made[id(value)] = value, value  # what a cycle finds
    if isinstance(value, np.ndarray):
        result: Any = _tensor_from(value)
    elif isinstance(value, Mapping):
        result = _mapping_as_torch(value, made)
    else:
        parts = [_as_torch(part, made) for part in value]
        changed = any(part is not old for part, old in zip(parts, value, strict=True))
        result = type(value)(parts) if changed and type(value) in (list, tuple) else value
    made[id(value)] = value, result
    return result


def _mapping_as_torch(value: Mapping[Any, Any], made: dict[int, tuple[Any, Any]]) -> Any:
    if not isinstance(value, dict):  # torch.save would pickle its class
        return {key: _as_torch(part, made) for key, part in value.items()}
    changed = {key: new for key, part in value.items() if (new := _as_torch(part, made)) is not part}
    if not changed:
        return value
    result = copy.copy(value)  # keeps the attributes of a state dict
    result.update(changed)
    return result


def _tensor_from(array: np.ndarray) -> torch.Tensor:
    import numpy as np
    import torch

    dtype = getattr(torch, array.dtype.name, None)
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"torch has no type for an array of {array.dtype}", hint="Convert the array.")
    # A copy: torch must not alias an array that may be read-only.
    dense = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return torch.from_numpy(dense.reshape(-1).view(np.uint8)).view(dtype).reshape(array.shape)
