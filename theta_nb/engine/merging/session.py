"""The merge session: what is to be merged, what was chosen, what would come out, and the result."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from theta_nb.engine.merging import placing, saved, writing
from theta_nb.engine.merging.computing import nbytes_of
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.looking import Looking, Progress
from theta_nb.engine.merging.recipe import Recipe
from theta_nb.engine.merging.tries import Tries, Try
from theta_nb.errors import MergeError
from theta_nb.merges.group import Array
from theta_nb.tensors.dtypes import DTYPES

if TYPE_CHECKING:
    import torch

__all__ = ["Committer", "MergeSession", "Progress"]


class Committer(Protocol):
    """Keeps the result of a session: implemented over git elsewhere."""

    def commit(self, session: MergeSession, message: str, *, branch: str = "", progress: Progress | None = None) -> str:
        """Make the merge commit, on a new branch if one is named, and return its name; on failure nothing changed."""
        ...


@dataclass(eq=False)
class _Filling:
    """What of a result is in a model: of the last model only, so that no other is kept alive.

    Forks of a session share it, since they share the model.
    """

    model: Any = None
    fingerprints: dict[str, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def of(self, model: Any) -> dict[str, Any]:
        """Fingerprints by parameter."""
        if self.model is not model:
            self.model, self.fingerprints = model, {}
        return self.fingerprints


class MergeSession(Looking):
    """Merges checkpoints: choose, look, evaluate, and only then keep the result.

    Parameters
    ----------
    base
        The common ancestor; ``None`` if the histories are unrelated.
    inputs
        The checkpoints, ours first.
    executor
        Where parameters are computed; two threads by default.
    cache
        Where statistics are remembered.
    statistics
        Statistics of the training data, one checkpoint for each input, for methods that need them.
    committer
        What :meth:`commit` calls.

    Examples
    --------
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> one = np.ones(2, np.float32)
    >>> inputs = [StateInput("ours", {"w": one}), StateInput("theirs", {"w": 3 * one})]
    >>> session = MergeSession(StateInput("original", {"w": 0 * one}), inputs)
    >>> session.use("linear").arrays()["w"].tolist()
    [2.0, 2.0]
    """

    def __init__(
        self,
        base: MergeInput | None,
        inputs: Sequence[MergeInput],
        *,
        committer: Committer | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base, inputs, **options)
        self._committer = committer
        self._decided: dict[str, tuple[Any, dict[str, tuple[float, ...]]]] = {}
        self._held: dict[str, tuple[Any, Array]] = {}
        self._filling = _Filling()
        self.tries = Tries(self)

    # --- results --------------------------------------------------------------------------------------------------

    def arrays(self, progress: Progress | None = None) -> dict[str, Array]:
        """The result as NumPy arrays, tied ones being one array; only what was chosen anew is computed again.

        Raises
        ------
        MergeError
            If both sides changed something and no method was chosen.
        """
        self._require_choice()
        wanted = [d for d in self.tensor_decisions if not d.dropped]
        stale = [d for d in wanted if self._held.get(d.unit.name, (None,))[0] != self._fingerprint(d)]
        self._each(stale, self._hold, progress)
        out = {d.unit.name: self._held[d.unit.name][1] for d in wanted}
        return placing.with_views(self, out)

    def state_dict(self, progress: Progress | None = None) -> dict[str, torch.Tensor]:
        """The result as torch tensors that share memory with the session; tied ones are one tensor."""
        return {name: placing.as_torch(array) for name, array in self.arrays(progress).items()}

    def materialize(self, into: Any, progress: Progress | None = None) -> Any:
        """Put the result into a model or a state dict that exists already, in place.

        Only the parameters whose choice changed since the last time are computed, and nothing new is allocated.

        Parameters
        ----------
        into
            A torch module, or a mapping from names to torch tensors or NumPy arrays.
        progress
            Told how far it is.

        Returns
        -------
        object
            ``into``.

        Raises
        ------
        MergeError
            If it lacks a parameter of the result, or one has another shape or dtype; nothing was changed then.
        """
        self._require_choice()
        places = placing.places(into, self)
        with self._filling.lock:
            filled = self._filling.of(into)
            wanted = [d for d in self.tensor_decisions if not d.dropped and d.unit.name in places]
            stale = [d for d in wanted if filled.get(d.unit.name) != self._fingerprint(d)]

            def fill(decision: Decision) -> None:
                name = decision.unit.name
                filled.pop(name, None)
                target = places[name]

                def sink(offset: int, data: Array) -> None:
                    target[offset : offset + len(data)] = data

                self.produce(decision, sink)
                filled[name] = self._fingerprint(decision)

            self._each(stale, fill, progress)
        return into

    def write(self, path: str, progress: Progress | None = None) -> None:
        """Write the result as a checkpoint file: in ours' form where names and shapes allow, else a new one.

        The file appears whole or not at all. Memory is bounded by a few blocks for safetensors files and wherever
        ours' form is kept.

        Raises
        ------
        MergeError
            If choices are open.
        CheckpointError
            If the format cannot hold the result.
        """
        self.require_closed()
        writing.write(self, path, progress)

    def commit(self, message: str, *, branch: str = "", progress: Progress | None = None) -> str:
        """Keep the result through the committer, and return the commit's name.

        Parameters
        ----------
        message
            Of the commit.
        branch
            A new branch to be made for it, which leaves work tree and current branch alone; by default the current
            branch moves.
        progress
            Told how many parameters are computed.

        Raises
        ------
        MergeError
            If choices are open, or the session has nowhere to commit.
        """
        self.require_closed()
        return self.committer.commit(self, message, branch=branch, progress=progress)

    @property
    def committer(self) -> Committer:
        """What keeps the result.

        Raises
        ------
        MergeError
            If the session has nowhere to commit.
        """
        if self._committer is None:
            raise MergeError("this session has nowhere to commit to", hint="Write the result with session.write(path).")
        return self._committer

    def produce(self, decision: Decision, sink: Callable[[int, Array], None]) -> None:
        """Hand the bytes of one parameter's result to ``sink``, block by block."""
        name = decision.unit.name
        fingerprint = self._fingerprint(decision)
        kept = self._decided.get(name)
        decided = dict(kept[1]) if kept is not None and kept[0] in (fingerprint, None) else {}
        self.kitchen.produce(decision, self.depths[name], sink, decided)
        if decided:
            self._decided[name] = (fingerprint, decided)

    def _hold(self, decision: Decision) -> None:
        name, info = decision.unit.name, decision.info
        if info is None:
            return
        # What was handed out before would change under somebody's eyes, so it is not written to again.
        flat = np.empty(nbytes_of(info), np.uint8)

        def sink(offset: int, data: Array) -> None:
            nonlocal flat
            if offset == 0 and len(data) > len(flat):
                flat = np.empty(len(data), np.uint8)  # an embedding that has grown
            flat[offset : offset + len(data)] = data

        self.produce(decision, sink)
        shape = placing.shape_of(decision)
        dtype = np.dtype(np.uint8) if info.dtype == "bytes" else DTYPES[info.dtype].to_numpy()
        self._held[name] = (self._fingerprint(decision), flat.view(dtype).reshape(shape))

    # --- trying out -----------------------------------------------------------------------------------------------

    def evaluate(self, function: Callable[[Any], Mapping[str, float] | float], into: Any = None) -> Try:
        """Evaluate the result as it is chosen now, and remember it as a numbered try; see :class:`Tries`."""
        return self.tries.evaluate(function, into)

    def fork(self) -> MergeSession:
        """A session with choices of its own, which are these at first: to try something while this one is used.

        What was measured and computed, the model that is filled, and the numbered tries are shared.

        Examples
        --------
        >>> from theta_nb.engine.merging.inputs import StateInput
        >>> one = np.ones(2, np.float32)
        >>> session = MergeSession(None, [StateInput("ours", {"w": one}), StateInput("theirs", {"w": 3 * one})])
        >>> session.use("linear").fork().use("slerp").settings == session.settings
        False
        """
        made = copy.copy(self)
        made._watchers = []
        made._forget()
        made._steps, made._place = [self.settings], 0
        made._decided, made._held = dict(self._decided), dict(self._held)
        made.tries = Tries(made, self.tries)
        return made

    def sweep(self, function: Callable[[Any], Any], *, into: Any = None, **grid: Any) -> list[Try]:
        """Evaluate all combinations of some parameters' values; see :meth:`Tries.sweep`."""
        return self.tries.sweep(function, into=into, **grid)

    def search(self, function: Callable[[Any], Any], *, budget: int, **options: Any) -> Try:
        """Look for the best values of some parameters, or of all; see :meth:`Tries.search`."""
        return self.tries.search(function, budget=budget, **options)

    # --- recipes --------------------------------------------------------------------------------------------------

    def recipe(self) -> Recipe:
        """What was chosen, as data; with the numbers that were decided for what has been computed."""
        decided = {
            name: kept[1]
            for name, kept in sorted(self._decided.items())
            if name in self.decisions and kept[0] == self._fingerprint(self.decisions[name])
        }
        return Recipe.of(self.base, self.inputs, self.settings, decided, self.kitchen.spare)

    def apply(self, recipe: Recipe, *, check: bool = True) -> MergeSession:
        """Choose what a recipe says, and take the numbers that it decided.

        Parameters
        ----------
        recipe
            From :meth:`recipe`, a file, or a commit.
        check
            Whether its inputs must be the ones of this session.

        Raises
        ------
        MergeError
            If they are not, or the recipe does not fit them.
        """
        if check:
            recipe.check(self.base, self.inputs, self.kitchen.spare)
        self._choose(self.check(recipe.settings))
        if check:
            self.take_decided(recipe)
        return self

    def take_decided(self, recipe: Recipe) -> None:
        """Use the numbers that a recipe of these inputs and choices decided, instead of computing them."""
        for name, numbers in recipe.decided.items():
            if name in self.decisions:
                self._decided[name] = (self._fingerprint(self.decisions[name]), dict(numbers))

    def save(self, path: str) -> None:
        """Write choices, history and tries as a JSON file, to be read by :meth:`load`; it appears whole or not at all.

        Raises
        ------
        MergeError
            If it cannot be written.
        """
        saved.save_session(self, path)

    def load(self, path: str) -> MergeSession:
        """Go on where a saved session was: choices, steps back, tries. Its inputs must be the same.

        Raises
        ------
        MergeError
            If the file is none of ours, or from a merge of other checkpoints. Nothing has changed then.
        """
        return saved.load_session(self, path)
