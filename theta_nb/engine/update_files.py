"""Read updates that others made: files and PEFT folders, through our own readers; nothing is imported or executed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.layout import FileSource
from theta_nb.checkpoints.naming import parse
from theta_nb.engine.checkpoint import Checkpoint
from theta_nb.engine.storages import FileStorages
from theta_nb.errors import CheckpointError, ThetaError
from theta_nb.updates.change import Array
from theta_nb.updates.named import LOADED_TYPES, NamedUpdates, UpdateSet
from theta_nb.updates.peft import PeftAdapter, is_peft_key

__all__ = ["UpdateData", "read_update"]

UpdateData = str | os.PathLike[str] | Mapping[str, Any]
"""A file, the folder of a PEFT adapter, or arrays and tensors by name."""

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MAX_CONFIG_NBYTES = 2**20


def read_update(data: UpdateData, update: str = "") -> UpdateSet:
    """Read an update.

    Parameters
    ----------
    data
        A ``.safetensors``, ``.pt`` or ``.bin`` file with names as of git-theta; a folder of PEFT, or the weights file
        in one; or a mapping with names as of git-theta.
    update
        Update type; may be empty for a PEFT adapter, which says it itself.

    Raises
    ------
    ThetaError
        If it cannot be read, is of another type, or not of a supported kind.
    """
    if update and update not in LOADED_TYPES:
        raise ThetaError(f"no file can bring the update type {update!r}", hint=f"Known: {', '.join(LOADED_TYPES)}.")
    if isinstance(data, Mapping):
        return _named({_text(key): _as_array(_text(key), value) for key, value in data.items()}, update, "the mapping")
    if not isinstance(data, str | os.PathLike):
        raise ThetaError(
            f"an update is a {type(data).__name__}, and has to be a path, or arrays by name",
            hint="Give the path of a file or of a PEFT folder, or {'layer.weight/R': …, 'layer.weight/C': …}.",
        )
    path = os.fspath(data)
    if os.path.isdir(path):
        weights = next((p for p in (os.path.join(path, name) for name in _WEIGHTS) if os.path.exists(p)), None)
        if weights is None:
            raise ThetaError(
                f"{path} has no {' or '.join(_WEIGHTS)}", hint="Give the folder of a PEFT adapter or a file."
            )
        return _adapter(weights, update)
    if os.path.basename(path) in _WEIGHTS and os.path.exists(os.path.join(os.path.dirname(path), _CONFIG)):
        return _adapter(path, update)
    return _named(_arrays(path), update, path)


def _named(arrays: Mapping[str, Array], update: str, source: str) -> UpdateSet:
    if any(map(is_peft_key, arrays)):
        raise ThetaError(
            f"{source} has the names of a PEFT adapter, whose scale stands in {_CONFIG}",
            hint="Give the folder that holds both.",
        )
    if not update:
        raise ThetaError(
            f"{source} does not say of which type it is", hint=f"Add --update-type {'|'.join(LOADED_TYPES)}."
        )
    return NamedUpdates(arrays, update)


def _adapter(weights: str, update: str) -> UpdateSet:
    adapter = PeftAdapter(_arrays(weights), _config(os.path.join(os.path.dirname(weights), _CONFIG)))
    if update and update != adapter.update:
        raise ThetaError(f"the adapter is of the update type {adapter.update!r}, not {update!r}")
    return adapter


def _config(path: str) -> dict[str, Any]:
    with _opened(path) as fd:
        raw = os.read(fd, _MAX_CONFIG_NBYTES + 1)
    try:
        if len(raw) > _MAX_CONFIG_NBYTES:
            raise ValueError("too long")
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ThetaError(f"{path} is not valid JSON ({str(error)[:100]})") from error
    if not isinstance(config, dict):
        raise ThetaError(f"{path} is not a JSON object")
    return config


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """A descriptor of a regular file."""
    try:
        # Without O_NONBLOCK, opening a pipe of that name would wait for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise ThetaError(f"cannot read {path} ({getattr(error, 'strerror', error)})") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ThetaError(f"{path} is not a file")
        yield fd
    finally:
        os.close(fd)


def _arrays(path: str) -> dict[str, Array]:
    """Every tensor of a file, by the keys that lead to it, joined by slashes."""
    with _opened(path) as fd:
        source = FileSource(fd)
        layout = locate(source, os.path.basename(path))
        if not layout.tensors:
            why = f": {layout.warnings[0]}" if layout.warnings else ""
            raise CheckpointError(f"{path} holds no tensors that can be read{why}")
        if layout.warnings:
            raise CheckpointError(f"{path} cannot be read completely: {layout.warnings[0]}")
        views = Checkpoint(layout, FileStorages(source, layout), path)
        found: dict[str, Array] = {}
        for name, view in views.items():
            key = "/".join(str(step) for step in parse(name))
            if key in found:
                raise CheckpointError(f"{path} has two tensors called {key!r}")
            try:
                found[key] = view.numpy()
            except CheckpointError as error:
                raise CheckpointError(f"{path}, {key!r}: {error.message}") from error
    return found


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise ThetaError(f"the key {str(key)[:40]!r} of the update is not text")
    return key


def _as_array(key: str, value: Any) -> Array:
    """A NumPy array with the values of an array or a torch tensor, bfloat16 and 8-bit floats included."""
    if isinstance(value, np.ndarray | np.generic):
        array: Array = np.asarray(value)
    elif type(value).__module__.partition(".")[0] == "torch":
        array = _of_tensor(key, value)
    elif isinstance(value, list | tuple):
        array = np.asarray(value)
    else:
        raise ThetaError(f"{key!r} is a {type(value).__name__}, not an array")
    if array.dtype.byteorder == ">" or array.dtype.hasobject:
        raise ThetaError(f"{key!r} is {array.dtype}, which no update can be")
    return array


def _of_tensor(key: str, tensor: Any) -> Array:
    import torch

    from theta_nb.tensors.dtypes import dtype_named

    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
        raise ThetaError(f"{key!r} is not a dense tensor with values")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    dtype = dtype_named(str(plain.dtype).removeprefix("torch.")).to_numpy()
    raw = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else np.empty(0, np.uint8)
    array: Array = raw.view(dtype).reshape(tuple(plain.shape))
    return array
