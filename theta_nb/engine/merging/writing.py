"""Puts the result of a merge somewhere: a file, a model, arrays; and keeps sessions on disk."""

from __future__ import annotations

import json
import math
import os
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from theta_nb.checkpoints.formats import FORMATS
from theta_nb.checkpoints.layout import Layout
from theta_nb.engine.layouts import owners
from theta_nb.engine.merging.computing import nbytes_of
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.documents import read_json
from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.engine.merging.metadata import safetensors_metadata
from theta_nb.engine.merging.recipe import Recipe
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.engine.merging.tries import Try
from theta_nb.engine.rebuild import Rebuilder
from theta_nb.errors import CheckpointError, MergeError
from theta_nb.merges.group import Array
from theta_nb.merges.tensors import overlap
from theta_nb.tensors.dtypes import DTYPES

if TYPE_CHECKING:
    import torch

    from theta_nb.engine.merging.session import MergeSession, Progress

__all__ = ["as_torch", "load_session", "places", "save_session", "shape_of", "with_views", "write"]


def shape_of(decision: Decision) -> tuple[int, ...]:
    """Shape of a parameter's result: the union where versions overlap."""
    info = decision.info
    if info is None or decision.method is None:
        return info.shape if info is not None else ()
    versions = (decision.unit.base, *(decision.unit.versions[k] for k in decision.inputs))
    found = overlap([version.shape for version in versions if version is not None])
    return found[1] if found is not None else info.shape


# --- in memory --------------------------------------------------------------------------------------------------------


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
    for name, decision in session.decisions.items():
        info = decision.info
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


# --- files ------------------------------------------------------------------------------------------------------------


def write(session: MergeSession, path: str, progress: Progress | None) -> None:
    """Write the result to a file that appears whole or not at all; see :meth:`MergeSession.write`."""
    folder = os.path.dirname(os.path.abspath(path))
    handle, partial = tempfile.mkstemp(prefix=".theta-merge-", dir=folder)
    try:
        try:
            os.fchmod(handle, _mode(path))
            _write(session, handle, partial, path, progress)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def _mode(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _write(session: MergeSession, fd: int, partial: str, path: str, progress: Progress | None) -> None:
    ours = session.inputs[0]
    ending = os.path.splitext(path)[1].lower()
    fits = isinstance(ours, FileInput | ManifestInput) and ending in FORMATS[ours.layout.format].extensions
    if fits and _same_structure(session):
        _into_frame(session, fd, progress)
    elif ending == ".safetensors":
        _fresh_safetensors(session, fd, progress)
    else:
        state = session.arrays(progress)
        if any("/" in name for name in state):
            raise CheckpointError(
                f"{path}: the result has other tensors than ours, and nested names cannot be written anew",
                hint="Write it to a .safetensors file.",
            )
        from theta_nb.checkpoints.detection import format_for_name

        format_for_name(path).write(state, partial, {})


def _same_structure(session: MergeSession) -> bool:
    """Whether the result has the names, shapes and dtypes of ours."""
    ours = {name: info for name, info in session.inputs[0].tensors.items() if not info.owner}
    kept = {d.unit.name: d for d in session.decisions.values() if not d.dropped}
    return ours.keys() == kept.keys() and all(
        d.info is not None and d.info.dtype == ours[name].dtype and shape_of(d) == ours[name].shape
        for name, d in kept.items()
    )


def _into_frame(session: MergeSession, fd: int, progress: Progress | None) -> None:
    """Copy ours and overwrite what differs from it; then make its checksums right."""
    ours = session.inputs[0]
    if isinstance(ours, FileInput):
        ours.copy_to(fd)
    elif isinstance(ours, ManifestInput):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as executor:
            Rebuilder(ours.manifest, ours.store, executor).file(fd)
    layout: Layout = ours.layout  # type: ignore[attr-defined]
    storages = {name: index for index, name in enumerate(owners(layout))}
    changed = [d for d in session.decisions.values() if d.take != 0]

    def fill(decision: Decision) -> None:
        start = layout.storages[storages[decision.unit.name]].offset
        session.produce(decision, lambda offset, data: _pwrite(fd, data, start + offset))

    session._each(changed, fill, progress)
    touched = {storages[d.unit.name] for d in changed}
    for derived in layout.derived:
        if derived.storage in touched:
            storage = layout.storages[derived.storage]
            _pwrite(fd, _crc32(fd, storage.offset, storage.nbytes), derived.offset)


def _crc32(fd: int, offset: int, nbytes: int) -> bytes:
    found = 0
    while nbytes:
        piece = os.pread(fd, min(nbytes, 2**20), offset)
        found = zlib.crc32(piece, found)
        offset, nbytes = offset + len(piece), nbytes - len(piece)
    return found.to_bytes(4, "little")


def _pwrite(fd: int, data: Any, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _fresh_safetensors(session: MergeSession, fd: int, progress: Progress | None) -> None:
    """Write a safetensors file tensor by tensor; nothing is held in memory but blocks."""
    wanted = [d for d in session.decisions.values() if not d.dropped]
    infos = {}
    for decision in wanted:
        name, info = decision.unit.name, decision.info
        tag = DTYPES[info.dtype].safetensors if info is not None and info.dtype in DTYPES else None
        if info is None or tag is None or name.startswith("@"):
            raise CheckpointError(
                f"a safetensors file cannot hold {name!r} as it is in ours", hint="Write a file in the format of ours."
            )
        infos[name] = (decision, TensorInfo(info.dtype, shape_of(decision), info.digest), tag)
    _refuse_ties(session)
    order = sorted(infos, key=lambda name: (-DTYPES[infos[name][1].dtype].itemsize, name))
    metadata = safetensors_metadata(session.inputs[0])
    header: dict[str, Any] = {"__metadata__": metadata} if metadata is not None else {}
    position, starts = 0, {}
    for name in order:
        _, info, tag = infos[name]
        end = position + nbytes_of(info)
        header[name] = {"dtype": tag, "shape": list(info.shape), "data_offsets": [position, end]}
        starts[name], position = position, end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    front = len(raw).to_bytes(8, "little") + raw
    _pwrite(fd, front, 0)
    os.ftruncate(fd, len(front) + position)

    def fill(decision: Decision) -> None:
        start = len(front) + starts[decision.unit.name]
        session.produce(decision, lambda offset, data: _pwrite(fd, data, start + offset))

    session._each(wanted, fill, progress)


def _refuse_ties(session: MergeSession) -> None:
    kept = {d.unit.name for d in session.decisions.values() if not d.dropped}
    for name, info in session.inputs[0].tensors.items():
        if info.owner in kept:
            raise CheckpointError(
                f"{name!r} shares memory with {info.owner!r}, which a safetensors file cannot hold",
                hint="Write a file in the format of ours.",
            )


# --- sessions ---------------------------------------------------------------------------------------------------------


def save_session(session: MergeSession, path: str) -> None:
    """Write choices, history and tries as JSON."""
    recipe = session.recipe()

    def plain(settings: Any) -> dict[str, Any]:
        return Recipe(recipe.base, recipe.inputs, settings).json()

    form = {
        "theta-session": 1,
        "recipe": recipe.json(),
        "steps": [plain(step) for step in session._steps],
        "place": session._place,
        "tries": [
            {
                "recipe": plain(one.settings),
                "metrics": {name: _finite(value) for name, value in one.metrics.items()},
                "seconds": one.seconds,
            }
            for one in session.tries
        ],
    }
    text = json.dumps(form, indent=1, sort_keys=True)
    folder = os.path.dirname(os.path.abspath(path))
    handle, partial = tempfile.mkstemp(prefix=".theta-session-", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(partial, path)


def _finite(value: float) -> float | str:
    """A number as JSON has it; NaN and infinities as text."""
    return value if math.isfinite(value) else str(value)


def load_session(session: MergeSession, path: str) -> MergeSession:
    """Read what :func:`save_session` wrote into a session of the same inputs."""
    with open(path, encoding="utf-8") as file:
        form = read_json(file.read(), path)
    try:
        if form["theta-session"] != 1:
            raise MergeError(f"{path} was written by a newer release", hint="Update theta-nb to read it.")
        current = _recipe(form["recipe"])
        steps = [_recipe(step).settings for step in form["steps"]]
        tries = [_try(number, one) for number, one in enumerate(form["tries"], 1)]
        place = int(form["place"])
        if not steps or not 0 <= place < len(steps):
            raise KeyError("place")
    except (KeyError, TypeError, ValueError) as error:
        raise MergeError(f"{path} is no saved session: {error}") from None
    current.check(session.base, session.inputs, session.kitchen.spare)
    session._steps, session._place = steps, place
    session._forget()
    session.take_decided(current)
    session.tries.extend(tries)
    return session


def _recipe(form: Any) -> Recipe:
    return Recipe.parse(json.dumps(form))


def _try(number: int, form: Mapping[str, Any]) -> Try:
    metrics = {str(name): float(value) for name, value in form["metrics"].items()}
    return Try(number, _recipe(form["recipe"]).settings, metrics, float(form["seconds"]))
