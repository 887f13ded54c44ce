"""By how much the parameters of two versions differ: planned from digests, read in parallel, remembered on disk.

A parameter is measured in *units*, each with a key under which its statistics are remembered. Where both sides are cut
into the same chunks, a unit is a pair of chunks: an embedding of which one row changed needs one chunk to be read
again, and equal chunks are known from earlier comparisons. Elsewhere (another dtype, another shape, views) the unit is
the parameter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

from theta_nb.engine.alignment import Alignment, Blocks, align, stretches
from theta_nb.engine.diff import NOT_MEASURED, ParameterChange
from theta_nb.engine.sources import Source, Stored, prepare
from theta_nb.engine.statistics_cache import StatisticsCache, cache_key
from theta_nb.errors import ThetaError
from theta_nb.tensors.lanes import parts_of
from theta_nb.tensors.moments import Piece
from theta_nb.tensors.pairs import PairKernel
from theta_nb.tensors.statistics import Statistics

__all__ = ["Measurement"]

Progress = Callable[[int, int], None]

_TASK_NBYTES = 8 * 2**20  # small parameters are worked on together
_IN_FLIGHT = 32


class _Stretch(NamedTuple):
    """A range of elements to compare; the whole, row by row, where ``stop`` is negative."""

    start: int
    stop: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Unit:
    key: bytes
    old: Stored
    new: Stored
    alignment: Alignment
    stretches: tuple[_Stretch, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one parameter is measured, or why it cannot be."""

    units: tuple[_Unit, ...] = ()
    alignment: Alignment | None = None
    problem: str = ""


class Measurement:
    """Statistics of what differs between two sides.

    Parameters
    ----------
    old, new
        The two sides.
    cache
        Path of the file that remembers statistics; empty for none.
    histograms
        Whether to count magnitudes.
    """

    def __init__(self, old: Source, new: Source, *, cache: str, histograms: bool) -> None:
        self._old, self._new = old, new
        self._cache_path = cache
        self._histograms = histograms

    def of(
        self, changes: Sequence[ParameterChange], where: Executor | int, progress: Progress | None
    ) -> tuple[ParameterChange, ...]:
        """The same changes, with statistics or a note that says why there are none.

        Parameters
        ----------
        changes
            Those that are not comparable stay as they are.
        where
            Threads that work on chunks, or how many.
        progress
            Called with bytes done and bytes in all, from this thread. What it raises stops the work.
        """
        wanted = [change for change in changes if change.comparable]
        problem = prepare(self._old, self._new, wanted)
        plans = {change.name: self._plan(change) for change in wanted}
        cache = StatisticsCache(self._cache_path) if self._cache_path else None
        try:
            run = _Run(self._old, self._new, cache, histograms=self._histograms)
            if isinstance(where, int):
                with ThreadPoolExecutor(where, thread_name_prefix="theta-measure") as own:
                    run.all(plans.values(), own, progress)
            else:
                run.all(plans.values(), where, progress)
        finally:
            if cache is not None:
                cache.close()
        return tuple(
            _measured(change, plans[change.name], run, problem) if change.comparable else change for change in changes
        )

    def _plan(self, change: ParameterChange) -> _Plan:
        if change.old is None or change.new is None:
            return _Plan()
        try:
            old, new = self._old.stored(change.old.name), self._new.stored(change.new.name)
            alignment = align(old, new)
            parts_of(old.spec.dtype)
            parts_of(new.spec.dtype)
        except ThetaError as error:
            return _Plan(problem=error.message)
        if _same_chunks(old, new):
            units = tuple(_chunk_units(old, new, alignment))
        else:
            shape = ",".join(map(str, alignment.overlap or ()))
            key = cache_key("tensor", change.old.digest, change.new.digest, shape)
            units = (_Unit(key, old, new, alignment, _stretches(old, new, alignment)),)
        return _Plan(units, alignment)


def _same_chunks(old: Stored, new: Stored) -> bool:
    """Whether chunk N of one side stands for the same elements as chunk N of the other."""
    return (
        old.spec.dtype == new.spec.dtype
        and old.spec.shape == new.spec.shape
        and old.extents == new.extents
        and old.spec.covers(old.nbytes)
        and new.spec.covers(new.nbytes)
    )


def _chunk_units(old: Stored, new: Stored, alignment: Alignment) -> Iterator[_Unit]:
    dtype = old.spec.dtype
    for extent, before, after in zip(old.extents, old.digests, new.digests, strict=True):
        start = extent.offset * 8 // dtype.bits
        stretch = _Stretch(start, start + extent.nbytes * 8 // dtype.bits, 2 * extent.nbytes)
        yield _Unit(cache_key("chunk", dtype.name, before, after), old, new, alignment, (stretch,))


def _stretches(old: Stored, new: Stored, alignment: Alignment) -> tuple[_Stretch, ...]:
    bits = old.spec.dtype.bits + new.spec.dtype.bits
    if not alignment.flat:
        return (_Stretch(0, -1, alignment.numel * bits // 8),)
    return tuple(_Stretch(start, stop, (stop - start) * bits // 8) for start, stop in stretches(old, alignment.numel))


def _pairs(
    blocks: Blocks, old: Stored, new: Stored, alignment: Alignment, stretch: _Stretch
) -> Iterator[tuple[memoryview, memoryview]]:
    if stretch.stop < 0:
        return blocks.rows(old, new, alignment)
    return blocks.flat(old, new, stretch.start, stretch.stop)


def _measured(change: ParameterChange, plan: _Plan, run: _Run, fetching: str) -> ParameterChange:
    problem = plan.problem or next((run.problems[unit.key] for unit in plan.units if unit.key in run.problems), "")
    if problem:
        return replace(change, note=f"{NOT_MEASURED}{fetching or problem}")
    total = Piece()
    for unit in plan.units:
        total.add(run.pieces[unit.key])
    alignment = plan.alignment
    overlap, note = (alignment.overlap, alignment.note) if alignment is not None else (None, "")
    statistics = Statistics.of(total, overlap)
    if change.status == "modified" and not statistics.changed and not statistics.delta_norm:
        # Digests cover how a tensor lies in its storage, and what else lies there.
        return replace(change, status="unchanged", note="the same values, stored in another way")
    return replace(change, statistics=statistics, note=note)


class _Run:
    """One pass over everything that is not known yet."""

    def __init__(self, old: Source, new: Source, cache: StatisticsCache | None, *, histograms: bool) -> None:
        self._old, self._new = old, new
        self._cache = cache
        self._histograms = histograms
        self._local = threading.local()
        self.pieces: dict[bytes, Piece] = {}
        """Statistics by key of the unit."""
        self.problems: dict[bytes, str] = {}
        """Why a unit has none."""

    def all(self, plans: Iterable[_Plan], executor: Executor, progress: Progress | None) -> None:
        """Look up or compute every unit."""
        units = {unit.key: unit for plan in plans for unit in plan.units}
        if self._cache is not None:
            self.pieces = self._cache.find(list(units), histograms=self._histograms)
        todo = [unit for key, unit in units.items() if key not in self.pieces]
        work = [(unit, stretch) for unit in todo for stretch in unit.stretches]
        found: dict[bytes, list[Piece]] = {unit.key: [] for unit in todo}
        total = sum(stretch.nbytes for _, stretch in work)
        done = 0
        try:
            for task, outcomes in _in_order(executor, self._task, list(_tasks(work))):
                for (unit, stretch), outcome in zip(task, outcomes, strict=True):
                    done += stretch.nbytes
                    if isinstance(outcome, str):
                        self.problems[unit.key] = outcome
                    else:
                        found[unit.key].append(outcome)
                if progress is not None:
                    progress(done, total)
        finally:
            self._keep({unit.key: found[unit.key] for unit in todo if len(found[unit.key]) == len(unit.stretches)})

    def _keep(self, found: dict[bytes, list[Piece]]) -> None:
        """Add up the complete units and remember them, also where the work was stopped before its end."""
        new = {}
        for key, pieces in found.items():
            new[key] = total = Piece()
            for piece in pieces:
                total.add(piece)
        self.pieces.update(new)
        if self._cache is not None:
            self._cache.remember(new)

    def _task(self, task: list[tuple[_Unit, _Stretch]]) -> list[Piece | str]:
        return [self._one(unit, stretch) for unit, stretch in task]

    def _one(self, unit: _Unit, stretch: _Stretch) -> Piece | str:
        """Statistics of a stretch, or why there are none."""
        blocks, kernel = self._tools(unit)
        total = Piece()
        try:
            for old, new in _pairs(blocks, unit.old, unit.new, unit.alignment, stretch):
                total.add(kernel.block(old, new))
        except ThetaError as error:
            kernel.take_tallies()
            return str(error)
        total.add(Piece(tallies=kernel.take_tallies()))
        return total

    def _tools(self, unit: _Unit) -> tuple[Blocks, PairKernel]:
        """Reader and kernel of the running thread: their memory is used for one unit after the other."""
        if not hasattr(self._local, "blocks"):
            self._local.blocks = Blocks(self._old, self._new)
            self._local.kernels = {}
        kernels: dict[tuple[object, ...], PairKernel] = self._local.kernels
        old, new = unit.old.spec, unit.new.spec
        kind = (old.dtype, old.conj, old.neg, new.dtype, new.conj, new.neg)
        if kind not in kernels:
            kernels[kind] = PairKernel(old, new, histograms=self._histograms)
        return self._local.blocks, kernels[kind]


def _tasks(work: Sequence[tuple[_Unit, _Stretch]]) -> Iterator[list[tuple[_Unit, _Stretch]]]:
    """Stretches in tasks that are worth a thread's while."""
    task: list[tuple[_Unit, _Stretch]] = []
    nbytes = 0
    for item in work:
        if task and nbytes + item[1].nbytes > _TASK_NBYTES:
            yield task
            task, nbytes = [], 0
        task.append(item)
        nbytes += item[1].nbytes
    if task:
        yield task


_Task = list[tuple[_Unit, _Stretch]]


def _in_order(
    executor: Executor, work: Callable[[_Task], list[Piece | str]], tasks: Sequence[_Task]
) -> Iterator[tuple[_Task, list[Piece | str]]]:
    """Results in the order of the tasks; stopping early drops what has not begun and waits for what has."""
    waiting: deque[tuple[_Task, Future[list[Piece | str]]]] = deque()
    try:
        for task in tasks:
            if len(waiting) >= _IN_FLIGHT:
                first, future = waiting[0]
                outcome = future.result()
                waiting.popleft()
                yield first, outcome
            waiting.append((task, executor.submit(work, task)))
        while waiting:
            first, future = waiting[0]
            outcome = future.result()
            waiting.popleft()
            yield first, outcome
    finally:
        for _, future in waiting:
            future.cancel()
        for _, future in waiting:
            if not future.cancelled():
                future.exception()
