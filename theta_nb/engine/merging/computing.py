"""Computes the merged value of single parameters, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np

from theta_nb.engine.merging.decisions import BASE, Decision
from theta_nb.engine.merging.inputs import MergeInput, TensorInfo, WideReader
from theta_nb.engine.merging.outcomes import Outcome, weigh
from theta_nb.engine.merging.ranking import Ranks
from theta_nb.engine.merging.sampling import Sample, take_sample
from theta_nb.engine.merging.states import Unit
from theta_nb.engine.merging.statistics import Statistics, StatisticsCache, gram_for, key_of, measure
from theta_nb.errors import MergeError
from theta_nb.merges.gram import Gram, gram_along, inner_products
from theta_nb.merges.group import Array, Group, Reader, widen
from theta_nb.merges.method import Method
from theta_nb.merges.tensors import merge_tensors
from theta_nb.tensors.dtypes import DTYPES

__all__ = ["Kitchen", "Sink"]

Sink = Callable[[int, Array], None]
"""Takes bytes of the result and their offset; must copy what it keeps."""

_COPY_NBYTES = 2**22
_RANKED = 2**15  # larger tensors have their histograms remembered


class Kitchen:
    """Reads the inputs and computes results; safe to share between threads.

    Parameters
    ----------
    base
        The ancestor, or ``None``.
    inputs
        What is merged; the first is ours.
    statistics
        Where Gram matrices are remembered.
    spare
        Statistics of the training data, one checkpoint for each input, for the methods that need them.
    """

    def __init__(
        self,
        base: MergeInput | None,
        inputs: Sequence[MergeInput],
        statistics: StatisticsCache,
        spare: Sequence[MergeInput] = (),
    ) -> None:
        self.base = base
        self.inputs = tuple(inputs)
        self.statistics = statistics
        self.spare = tuple(spare)
        self.ranks = Ranks(self.group)
        self.samples: dict[tuple[str, str, str], Sample | None] = {}
        """By name, kind, and what statistics of the training data come with them."""
        self._alongs: dict[tuple[str, str], Gram] = {}
        self._plain: dict[tuple[str, tuple[int, ...]], Array] = {}

    def group(self, unit: Unit, positions: Sequence[int], depth: float = 0.0, statistics: str = "") -> Group:
        """The inputs of a parameter, ready to be merged; all must have one shape."""
        infos = [(self.inputs[k], unit.names[k + 1], unit.versions[k]) for k in positions]
        readers = []
        wide = False
        for source, name, info in infos:
            if info is None:
                raise MergeError(f"{unit.name} is not in {source.label}")
            readers.append(WideReader(source.reader(name), info.dtype))
            wide = wide or info.dtype in ("float64", "complex128")
        shape = unit.versions[positions[0]].shape or (1,)  # type: ignore[union-attr]
        if DTYPES[infos[0][2].dtype].kind == "c":  # type: ignore[union-attr]
            shape = (*shape, 2)
        base = None
        if unit.base is not None and self.base is not None:
            base = WideReader(self.base.reader(unit.names[0]), unit.base.dtype)
            wide = wide or unit.base.dtype in ("float64", "complex128")
        group = Group(
            name=unit.name,
            shape=shape,
            inputs=tuple(readers),
            base=base,
            dtype=np.float64 if wide else np.float32,
            depth=depth,
            statistics=self._statistics_of(unit, positions) if statistics else (),
            model_cut=lambda index, density: self.ranks.model_cut(positions[index], density, wide=wide),
        )
        if group.size > _RANKED and base is not None and not wide:
            group.histogram = lambda index: self.ranks.histogram(unit, positions[index])
        return group

    def measured(self, unit: Unit) -> Statistics:
        """Statistics of a parameter: remembered, or measured in one pass."""
        found = self.known(unit)
        if found is None:
            found = measure(self.group(unit, unit.present))
            self.statistics.put(_key(unit), found)
        return found

    def known(self, unit: Unit) -> Statistics | None:
        """Statistics of a parameter, if they are remembered."""
        return self.statistics.get(_key(unit), len(unit.present))

    def along(self, unit: Unit, axis: str) -> Gram:
        """Gram matrices of the rows or columns of a parameter, computed once."""
        found = self._alongs.get((unit.name, axis))
        if found is None:
            found = self._alongs[unit.name, axis] = gram_along(self.group(unit, unit.present), axis)
        return found

    def take_sample(self, unit: Unit, kind: str, statistics: str = "") -> None:
        """Keep a sample of a parameter's inputs.

        Parameters
        ----------
        unit
            The parameter.
        kind, statistics
            What a method asks for: :attr:`Method.sample` and :attr:`Method.statistics`.
        """
        group = self.group(unit, unit.present, statistics=statistics)
        self.samples[unit.name, kind, statistics] = take_sample(group, kind)

    def weigh(
        self,
        decision: Decision,
        depth: float,
        decided: dict[str, tuple[float, ...]],
        stopped: Event | None = None,
    ) -> Outcome:
        """Lengths of a parameter's result, computed in full and not kept.

        Parameters
        ----------
        decision
            What is done; a method.
        depth
            Place of the parameter in the model.
        decided
            Filled with the numbers that the method decides.
        stopped
            Ends the work at the next block.

        Raises
        ------
        MergeError
            If it was stopped.
        """

        def check() -> None:
            if stopped is not None and stopped.is_set():
                raise MergeError(f"{decision.unit.name}: given up")

        info, method = decision.info, decision.method
        if info is None or method is None:
            raise MergeError(f"{decision.unit.name} is not merged")
        check()
        if not self._comparable(decision, info):
            whole = widen(np.ascontiguousarray(self.resized(decision, depth, decided)).reshape(-1))
            return Outcome(float(np.linalg.norm(whole.astype(np.float64))))
        group = self.group(decision.unit, decision.inputs, depth, method.statistics)
        group.decided = decided
        group.inputs = tuple(map(_Latest, group.inputs))
        group.base = None if group.base is None else _Latest(group.base)
        with np.errstate(all="ignore"):
            return weigh(group, method.blocks(group, decision.parameters), check)

    def _comparable(self, decision: Decision, info: TensorInfo) -> bool:
        versions = (decision.unit.base, *(decision.unit.versions[k] for k in decision.inputs))
        return len({v.shape for v in versions if v is not None}) == 1 and 0 not in info.shape

    def produce(
        self, decision: Decision, depth: float, sink: Sink, decided: dict[str, tuple[float, ...]] | None = None
    ) -> None:
        """Compute a parameter and hand its bytes to ``sink`` in order.

        Parameters
        ----------
        decision
            What is done.
        depth
            Place of the parameter in the model.
        sink
            Takes the bytes.
        decided
            Numbers that a replay takes from its recipe; those that are computed are added.
        """
        info = decision.info
        if info is None:
            return
        if decision.method is None:
            self._copy(decision, info, sink)
            return
        versions = [decision.unit.versions[k] for k in decision.inputs]
        shapes = {v.shape for v in (decision.unit.base, *versions) if v is not None}
        if len(shapes) > 1 or not info.shape or 0 in info.shape:
            sink(0, _as_bytes(self.resized(decision, depth, decided)))
            return
        group = self.group(decision.unit, decision.inputs, depth, decision.method.statistics)
        if decided is not None:
            group.decided = decided
        if decision.method.gram:
            group.known_gram = self._gram(decision, decision.method, group)
        _run(decision, group, info, sink)

    def _gram(self, decision: Decision, method: Method, group: Group) -> Gram | None:
        """The Gram matrix by which a method computes, if it is known or will be again."""
        if method.base == "none" and group.base is not None:
            plain = replace(group, base=None)
            key = (decision.unit.name, tuple(decision.inputs))
            return Gram(
                lambda: self._products(key, plain),
                has_base=False,
                name=group.name,
                along=lambda axis: gram_along(plain, axis),
                count=len(group.inputs),
            )
        known = self.known(decision.unit) if len(decision.inputs) == len(decision.unit.versions) else None
        return None if known is None else gram_for(group, known)

    def _products(self, key: tuple[str, tuple[int, ...]], group: Group) -> Array:
        """Inner products of the inputs alone, computed once."""
        found = self._plain.get(key)
        if found is None:
            found = self._plain[key] = inner_products(group)
        return found

    def resized(self, decision: Decision, depth: float, decided: dict[str, tuple[float, ...]] | None = None) -> Array:
        """A parameter whose versions differ in shape, or that is too small to be worth blocks, at full length."""
        unit, method = decision.unit, decision.method
        if method is None:
            raise MergeError(f"{unit.name} is not merged")
        arrays = [self.array(self.inputs[k], unit.names[k + 1], unit.versions[k]) for k in decision.inputs]
        base = None if unit.base is None or self.base is None else self.array(self.base, unit.names[0], unit.base)
        given: dict[str, Any] = dict(decision.parameters)
        return merge_tensors(method, arrays, base=base, name=unit.name, depth=depth, decided=decided, **given)

    def array(self, source: MergeInput, name: str, info: TensorInfo | None) -> Array:
        """A parameter of an input, whole."""
        if info is None:
            raise MergeError(f"{name} is not in {source.label}")
        dtype = DTYPES[info.dtype]
        raw = source.reader(name)
        size = dtype.nbytes(info.count)
        out = np.empty(size, np.uint8)
        for start in range(0, size, _COPY_NBYTES):
            stop = min(start + _COPY_NBYTES, size)
            out[start:stop] = raw.read(start, stop)
        return out.view(dtype.to_numpy()).reshape(info.shape)

    def _copy(self, decision: Decision, info: TensorInfo, sink: Sink) -> None:
        position = decision.take
        if position is None:
            return
        source = self.base if position == BASE else self.inputs[position]
        if source is None:
            raise MergeError(f"{decision.unit.name}: there is no common ancestor to take it from")
        raw = source.reader(decision.unit.names[position + 1])
        nbytes = nbytes_of(info)
        for start in range(0, nbytes, _COPY_NBYTES):
            sink(start, raw.read(start, min(start + _COPY_NBYTES, nbytes)))

    def _statistics_of(self, unit: Unit, positions: Sequence[int]) -> tuple[Array, ...]:
        if not self.spare:
            return ()
        found = []
        for k in positions:
            name = unit.names[k + 1]
            info = self.spare[k].tensors.get(name)
            if info is None:
                return ()
            found.append(self.array(self.spare[k], name, info))
        return tuple(found)


class _Latest:
    """Remembers what it read last: a result is compared with its parents right after these were read to make it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._start = self._stop = 0
        self._values = np.empty(0, np.float32)

    def read(self, start: int, stop: int, /) -> Array:
        """Elements ``start`` to ``stop``."""
        if not self._start <= start <= stop <= self._stop:
            self._values = self._reader.read(start, stop)
            self._start, self._stop = start, stop
        return self._values[start - self._start : stop - self._start]


def _key(unit: Unit) -> bytes:
    """Under which statistics of a parameter are remembered."""
    return key_of([info.digest for info in (unit.base, *unit.versions) if info is not None], unit.base is not None)


def nbytes_of(info: TensorInfo) -> int:
    """Bytes of a tensor."""
    return info.count if info.dtype == "bytes" else DTYPES[info.dtype].nbytes(info.count)


def _as_bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _run(decision: Decision, group: Group, info: TensorInfo, sink: Sink) -> None:
    """Run the method and hand over each block, rounded once to the dtype of the result."""
    dtype = DTYPES[info.dtype].to_numpy()
    real = dtype if dtype.kind != "c" else np.dtype(f"f{dtype.itemsize // 2}")
    method = decision.method
    if method is None:
        return
    position = 0
    with np.errstate(all="ignore"):
        for block in method.blocks(group, decision.parameters):
            rounded = block if block.dtype == real else block.astype(real)
            sink(position, rounded.view(np.uint8))
            position += rounded.nbytes
    if position != group.size * real.itemsize:
        raise MergeError(f"the merge method {method.name!r} did not make the whole of {decision.unit.name!r}")
