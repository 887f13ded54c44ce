"""Merge arrays in memory: one tensor at a time, any dtype and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from theta_nb.errors import MergeError
from theta_nb.merges.group import Array, Group
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import Value
from theta_nb.merges.table import method_named

__all__ = ["is_float", "merge_group", "merge_tensors", "overlap"]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of this type are merged: floats and complex numbers, also those of ``ml_dtypes``.

    Examples
    --------
    >>> is_float(np.dtype("float16")), is_float(np.dtype("int64"))
    (True, False)
    """
    return dtype.kind in "fc" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))


def merge_tensors(
    method: str | Method,
    inputs: Sequence[npt.ArrayLike],
    *,
    base: npt.ArrayLike | None = None,
    statistics: Sequence[npt.ArrayLike] = (),
    name: str = "",
    depth: float = 0.0,
    labels: Sequence[str] = (),
    decided: dict[str, tuple[float, ...]] | None = None,
    **parameters: Any,
) -> Array:
    """Merge arrays by a method of the table.

    Computed in float32, or float64 where an input is that wide, and rounded once to the dtype of the first input.
    Complex numbers are merged as pairs. Integers and booleans are no weights: the first input's are kept, unless it
    equals the base and exactly one value of others does not. Shapes that differ in one dimension (embeddings with
    more tokens) are merged where all overlap, and what lies beyond is kept from the first input that has it.

    Parameters
    ----------
    method
        Name, or a method.
    inputs
        The tensors; the first is *ours*.
    base
        Their common ancestor, where the method wants one.
    statistics
        For methods that need them, one of each input.
    name
        Part of the key of random draws.
    depth
        Place in the model, 0 to 1, for methods that depend on it.
    labels
        Names of the inputs, for parameters given by name.
    decided
        Numbers that a replay takes instead of computing them; those that are computed are added.
    parameters
        Of the method.

    Raises
    ------
    MergeError
        If a parameter is wrong, the number of inputs is not one that the method takes, a base is missing, or shapes
        differ in more than one dimension.

    Examples
    --------
    >>> merge_tensors("ties", [[1.0, 0], [0, -1]], base=[0.0, 0], weight=[1, 1]).tolist()
    [1.0, -1.0]
    """
    chosen = method_named(method) if isinstance(method, str) else method
    arrays = [np.asarray(x) for x in inputs]
    if not arrays:
        raise MergeError(f"{name or 'the merge'}: there are no inputs")
    origin = None if base is None else np.asarray(base)
    bound = chosen.bind(parameters, labels or [str(k) for k in range(len(arrays))])
    everything = [*arrays, *([] if origin is None else [origin])]
    floats = [array.dtype for array in everything if is_float(array.dtype)]
    if not floats:
        return settle(arrays, origin)
    # Integers among floats are numbers that were written without a point.
    arrays = [x if is_float(x.dtype) else x.astype(floats[0]) for x in arrays]
    if origin is not None and not is_float(origin.dtype):
        origin = origin.astype(floats[0])
    everything = [*arrays, *([] if origin is None else [origin])]
    if any(array.shape != arrays[0].shape for array in everything):
        return _resized(chosen, bound, arrays, origin, name, depth, decided)
    shaped = [np.asarray(s) for s in statistics]
    group = Group.of(arrays, origin, name=name, depth=depth, statistics=shaped)
    if decided is not None:
        group.decided = decided
    return merge_group(chosen, group, bound, arrays[0].dtype).reshape(arrays[0].shape)


def merge_group(method: Method, group: Group, parameters: Mapping[str, Value], dtype: np.dtype[Any]) -> Array:
    """The result of a method on a group, flat, in ``dtype``."""
    out = np.empty(group.size // 2 if dtype.kind == "c" else group.size, dtype)
    flat = out.view(out.real.dtype) if dtype.kind == "c" else out
    position = 0
    if not group.size:
        return out
    # NaN and Inf are values like others here, and no reason for a warning.
    with np.errstate(all="ignore"):
        for block in method.blocks(group, parameters):
            flat[position : position + len(block)] = block
            position += len(block)
    if position != group.size:
        raise MergeError(f"the merge method {method.name!r} made {position} of {group.size} numbers of {group.name!r}")
    return out


def settle(inputs: Sequence[Array], base: Array | None) -> Array:
    """What becomes of integers and booleans: a change that is the only one, else the first input.

    Examples
    --------
    >>> int(settle([np.int64(7), np.int64(9)], np.int64(7)))
    9
    """
    first = inputs[0]
    if base is None or not np.array_equal(first, base):
        return first
    changed = [x for x in inputs[1:] if x.dtype != base.dtype or not np.array_equal(x, base)]
    if changed and all(x.dtype == changed[0].dtype and np.array_equal(x, changed[0]) for x in changed):
        return changed[0]
    return first


def overlap(shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Common part and union of shapes that differ in one dimension; ``None`` if they differ in more.

    Examples
    --------
    >>> overlap([(5, 3), (7, 3)]), overlap([(5, 3), (7, 4)])
    (((5, 3), (7, 3)), None)
    """
    if len({len(shape) for shape in shapes}) != 1:
        return None
    low, high = (tuple(map(pick, zip(*shapes, strict=True))) for pick in (min, max))
    return (low, high) if sum(a != b for a, b in zip(low, high, strict=True)) <= 1 else None


def _resized(
    method: Method,
    parameters: Mapping[str, Value],
    inputs: Sequence[Array],
    base: Array | None,
    name: str,
    depth: float,
    decided: dict[str, tuple[float, ...]] | None,
) -> Array:
    everything = [*inputs, *([] if base is None else [base])]
    found = overlap([tuple(array.shape) for array in everything])
    if found is None:
        shapes = ", ".join(str(list(array.shape)) for array in everything)
        raise MergeError(f"{name or 'the tensor'} has shapes {shapes}, which do not overlap", hint="Take one side.")
    common, union = found
    part = tuple(slice(0, size) for size in common)
    out = np.zeros(union, inputs[0].dtype)
    for x in reversed(everything):  # the first input that reaches beyond the overlap is written last
        out[tuple(slice(0, size) for size in x.shape)] = x
    cropped = [np.ascontiguousarray(x[part]) for x in inputs]
    group = Group.of(cropped, None if base is None else base[part], name=name, depth=depth)
    if decided is not None:
        group.decided = decided
    out[part] = merge_group(method, group, parameters, out.dtype).reshape(common)
    return out
