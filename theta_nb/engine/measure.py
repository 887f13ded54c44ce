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
from theta_nb.engine.diff import NOT_MEASURED, RAW, ParameterChange
from theta_nb.engine.pictures import Picture, Window, as_matrix, picture_of, window_of
from theta_nb.engine.sources import Source, Stored
from theta_nb.engine.spectra import spectrum_of
from theta_nb.engine.statistics_cache import StatisticsCache, cache_key
from theta_nb.errors import ThetaError
from theta_nb.tensors.lanes import parts_of
from theta_nb.tensors.moments import Piece
from theta_nb.tensors.pairs import PairKernel
from theta_nb.tensors.spectrum import Spectrum
from theta_nb.tensors.statistics import Statistics

__all__ = ["PairOfSources"]

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


class PairOfSources:
    """Measures what differs between two sides.

    Parameters
    ----------
    old, new
        The two sides.
    cache
        Path of the file that remembers statistics; empty for none.
    workers
        Threads, where no executor is given.
    """

    def __init__(self, old: Source, new: Source, *, cache: str = "", workers: int = 2) -> None:
        self._old, self._new = old, new
        self._cache_path = cache
        self._workers = workers

    def measure(
        self,
        changes: Sequence[ParameterChange],
        *,
        histograms: bool = False,
        progress: Progress | None = None,
        executor: Executor | None = None,
    ) -> tuple[ParameterChange, ...]:
        """The same changes, with statistics or a note that says why there are none.

        Parameters
        ----------
        changes
            From :func:`theta_nb.engine.diff.structural_diff`; those without values on both sides stay as they are, and
            so do unchanged ones, whose values are not read.
        histograms
            Whether to count magnitudes.
        progress
            Called with bytes done and bytes in all, from this thread. What it raises stops the work.
        executor
            Where chunks are worked on: threads, as they share memory.
        """
        wanted = [change for change in changes if _comparable(change)]
        problem = self._prepare(wanted)
        plans = {change.name: self._plan(change) for change in wanted}
        cache = StatisticsCache(self._cache_path) if self._cache_path else None
        try:
            run = _Run(self._old, self._new, cache, histograms=histograms)
            if executor is not None:
                run.all(plans.values(), executor, progress)
            else:
                with ThreadPoolExecutor(self._workers, thread_name_prefix="theta-measure") as own:
                    run.all(plans.values(), own, progress)
        finally:
            if cache is not None:
                cache.close()
        return tuple(
            _measured(change, plans[change.name], run, problem)
            if change.name in plans and _comparable(change)
            else change
            for change in changes
        )

    def spectrum(self, change: ParameterChange, *, count: int = 64, seed: int = 0) -> Spectrum:
        """Singular values of the difference of one parameter.

        Raises
        ------
        ThetaError
            If there is no difference, or its values are not here.
        """
        old, new, alignment = self._opened(change)
        pairs = _all_pairs(Blocks(self._old, self._new), old, new, alignment)
        return spectrum_of(pairs, old.spec, new.spec, alignment.overlap or new.spec.shape, count=count, seed=seed)

    def picture(
        self, change: ParameterChange, *, size: tuple[int, int] = (96, 96), stop: Callable[[], None] | None = None
    ) -> Picture:
        """The difference of one parameter, scaled down.

        Parameters
        ----------
        change
            The parameter.
        size
            Most rows and columns of the picture.
        stop
            Called between blocks. What it raises stops the work.

        Raises
        ------
        ThetaError
            If there is no difference, or its values are not here.
        """
        old, new, alignment = self._opened(change)
        pairs = _all_pairs(Blocks(self._old, self._new), old, new, alignment)
        return picture_of(_watched(pairs, stop), old.spec, new.spec, alignment.overlap or new.spec.shape, size=size)

    def window(
        self, change: ParameterChange, *, row: int = 0, column: int = 0, size: tuple[int, int] = (8, 8)
    ) -> Window:
        """Single values of one parameter; a window that would stick out is moved inside.

        Raises
        ------
        ThetaError
            If there are no two sides, or their values are not here.
        """
        old, new, alignment = self._opened(change)
        if not alignment.flat or (old.spec.dtype.bits | new.spec.dtype.bits) % 8:
            raise ThetaError(
                f"{change.name} is a view or packed, and single values of it are not listed",
                hint="Read it with repo.checkpoint(...)[name].numpy().",
            )
        rows, columns = as_matrix(alignment.overlap or new.spec.shape)
        height, width = min(rows, size[0]), min(columns, size[1])
        row, column = max(0, min(row, rows - height)), max(0, min(column, columns - width))
        blocks = Blocks(self._old, self._new)
        starts = [(row + i) * columns + column for i in range(height)]
        pairs = (pair for start in starts for pair in blocks.flat(old, new, start, start + width))
        return window_of(pairs, old.spec, new.spec, shape=(rows, columns), row=row, column=column)

    def _opened(self, change: ParameterChange) -> tuple[Stored, Stored, Alignment]:
        """Where both sides of a parameter lie, their values at hand."""
        if not _comparable(change) or change.old is None or change.new is None:
            raise ThetaError(f"{change.name} is {change.status}: there is no difference to look at")
        self._prepare([change])
        old, new = self._old.stored(change.old.name), self._new.stored(change.new.name)
        return old, new, align(old, new)

    def _prepare(self, changes: Sequence[ParameterChange]) -> str:
        """Fetch what is not here; why that failed, or nothing."""
        problem = ""
        for source, names in (
            (self._old, [change.old.name for change in changes if change.old is not None]),
            (self._new, [change.new.name for change in changes if change.new is not None]),
        ):
            try:
                source.prepare(names)
            except ThetaError as error:
                problem = str(error)  # what is here is measured all the same
        return problem

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


def _comparable(change: ParameterChange) -> bool:
    """Whether there are two values that may differ."""
    if change.old is None or change.new is None or RAW in (change.old.dtype, change.new.dtype):
        return False
    return change.status in ("modified", "retyped", "reshaped")


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


def _all_pairs(
    blocks: Blocks, old: Stored, new: Stored, alignment: Alignment
) -> Iterator[tuple[memoryview, memoryview]]:
    return _pairs(blocks, old, new, alignment, _Stretch(0, alignment.numel if alignment.flat else -1, 0))


def _watched(
    pairs: Iterable[tuple[memoryview, memoryview]], stop: Callable[[], None] | None
) -> Iterator[tuple[memoryview, memoryview]]:
    for pair in pairs:
        if stop is not None:
            stop()
        yield pair


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
