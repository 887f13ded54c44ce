"""``%theta merge``, ``sweep`` and ``evaluate``: a merge session that stays open from cell to cell."""

from __future__ import annotations

import ast
import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from theta_nb.commands import dispatch
from theta_nb.commands.parser import UsageError
from theta_nb.errors import ThetaError

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession
    from theta_nb.engine.merging.tries import Try
    from theta_nb.git.places import Places

__all__ = ["OpenMerge", "TriesTable", "session_bundle"]

Function = Callable[[Any], Mapping[str, float] | float]


@dataclass(frozen=True)
class TriesTable:
    """Evaluations, as a table.

    Parameters
    ----------
    tries
        In their order.
    best
        Number of the best; 0 if none is.
    """

    tries: tuple[Try, ...]
    best: int = 0

    def __iter__(self) -> Iterator[Try]:
        return iter(self.tries)

    def __len__(self) -> int:
        return len(self.tries)

    def __getitem__(self, index: int) -> Try:
        return self.tries[index]

    def rows(self) -> list[list[str]]:
        """A heading, then a line for each try."""
        from theta_nb.engine.merging.recipe import Recipe

        metrics = list(dict.fromkeys(name for one in self.tries for name in one.metrics))
        out = [["try", "merge", *metrics, "seconds"]]
        for one in self.tries:
            values = [f"{one.metrics[name]:.6g}" if name in one.metrics else "" for name in metrics]
            number = f"{one.number}{' *' if one.number == self.best else ''}"
            out.append([number, Recipe(None, (), one.settings).short(), *values, f"{one.seconds:.2f}"])
        return out

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        return "\n".join(
            "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows."""
        from theta_nb.report.fragments import fragment, grid

        head, *rows = self.rows()
        return {"text/plain": str(self), "text/html": fragment(grid(head, rows))}


@dataclass
class OpenMerge:
    """The merge that is open in a notebook, and the evaluations that it knows.

    Parameters
    ----------
    session
        The session; ``None`` if there is none.
    path
        Its checkpoint.
    evaluations
        Functions by name.
    """

    session: MergeSession | None = None
    path: str = ""
    evaluations: dict[str, Function] = field(default_factory=dict)

    # --- merge --------------------------------------------------------------------------------------------------------

    def merge(self, arguments: Namespace, context: dispatch.Context) -> Any:
        """Open a session or go on with the one that is open; keep it where a message is given."""
        if arguments.abort and self.session is not None and not _under_way(context.places):
            self.session = None
            return None
        if arguments.abort or arguments.methods or arguments.dry_run or (arguments.words and arguments.message):
            return dispatch.execute(arguments, context)
        from theta_nb.commands.merging_arguments import wishes_of

        wishes = wishes_of(arguments, context)
        if arguments.words and not arguments.continue_:
            self._open(arguments, context, wishes)
        elif self.session is None or _stale(self.session, context.places):
            self._resume(context.places, wishes)
        elif self.session is not None:
            wishes.apply(self.session, context.places, self.path, configured=False)
        if self.session is None:  # never: opening gave one, or an error
            raise ThetaError("no merge is open")
        if arguments.continue_ or (arguments.message and not arguments.words):
            return self._keep(arguments.message, context)
        return self.session

    def _open(self, arguments: Namespace, context: dispatch.Context, wishes: Any) -> None:
        from theta_nb.commands.merge import contested_checkpoints, open_merge
        from theta_nb.commands.merging_arguments import revisions_and_checkpoints

        places = context.places
        revisions, paths = revisions_and_checkpoints(arguments, context)
        paths = paths or contested_checkpoints(places, revisions)
        if len(paths) != 1:
            found = ", ".join(paths[:5])
            raise ThetaError(
                f"{len(paths)} checkpoints were changed by both sides{': ' * bool(found)}{found}",
                hint="Name one behind the commits."
                if paths
                else "'%theta merge REV -m MESSAGE' merges the commits without a session.",
            )
        self.session, self.path = open_merge(places, revisions, paths[0], wishes), paths[0]
        self._offer(next(reversed(self.evaluations.values()), None))

    def _resume(self, places: Places, wishes: Any) -> None:
        from theta_nb.commands.merge import open_conflicts

        sessions = open_conflicts(places, wishes)
        if not sessions:
            self.session = None
            raise ThetaError("no merge is open", hint="Begin one with '%theta merge REV', or 'git merge REV'.")
        # One after the other: when the first is staged, the next is what is left in conflict.
        self.path, self.session = next(iter(sessions.items()))
        self._offer(next(reversed(self.evaluations.values()), None))

    def _keep(self, message: str, context: dispatch.Context) -> Any:
        from theta_nb.commands.merge import described

        session = self._required()
        session.commit(message)
        result = described(context.places, session, self.path)
        self.session = None
        return result

    def _offer(self, function: Function | None) -> None:
        """Let the explorers of the open merge evaluate with the function that was defined last."""
        from theta_nb.jupyter.evaluator import offer

        if function is not None and self.session is not None:
            offer(self.session, function)

    def _required(self) -> MergeSession:
        if self.session is None:
            raise ThetaError("no merge is open", hint="Begin one with '%theta merge REV'.")
        return self.session

    # --- evaluations --------------------------------------------------------------------------------------------------

    def register(self, name: str, cell: str, run: Callable[[str], None], namespace: Mapping[str, Any]) -> str:
        """Run a cell and keep the last function that it defines under a name.

        Raises
        ------
        UsageError
            If it defines none.
        """
        functions = _functions_of(cell)
        if functions is None:
            run(cell)  # which is IPython's to show: where it is wrong, or what only IPython understands
            functions = []
        if not functions:
            raise UsageError(
                "the cell defines no function", hint="Define one that takes a state dict and returns metrics."
            )
        run(cell)
        function = namespace.get(functions[-1])
        if not callable(function):
            raise UsageError(f"{functions[-1]!r} was not defined", hint="Look at the error above.")
        self.evaluations.pop(name, None)  # the one that was defined last stands last
        self.evaluations[name] = function
        self._offer(function)
        return f"{functions[-1]} is the evaluation {name!r}; '%theta sweep {name} PARAMETER=VALUE,VALUE' uses it."

    def evaluate(self, arguments: Namespace, context: dispatch.Context) -> TriesTable:
        """Evaluate the session as it is chosen now."""
        session = self._required()
        made = session.evaluate(self._function(arguments.name), _model(arguments, context))
        return TriesTable((made,))

    def sweep(self, arguments: Namespace, context: dispatch.Context) -> TriesTable:
        """Evaluate a grid."""
        from theta_nb.engine.merging.rating import best_of
        from theta_nb.engine.merging.spelling import parse_grid

        session, function = self._required(), self._function(arguments.name)
        grid = parse_grid(arguments.grid)
        into = _model(arguments, context)
        done: list[Try] = []
        total = math.prod(map(len, grid.values()))
        try:
            with context.progress("evaluating", unit="") as progress:

                def told(number: int, of: int, one: Try) -> None:
                    done.append(one)
                    if progress is not None:
                        progress(number, of)

                session.tries.sweep(function, into=into, progress=told, **grid)
        except KeyboardInterrupt:
            if done:
                _display(TriesTable(tuple(done)))
            raise KeyboardInterrupt(
                f"stopped after {len(done)} of {total} evaluations, which are kept; what is chosen is as before"
            ) from None
        best = best_of(done, arguments.metric, smallest=arguments.smallest)
        if arguments.use_best:
            session.restore(best.settings)
            if into is not None:
                session.materialize(into)
        return TriesTable(tuple(done), best.number)

    def _function(self, name: str) -> Function:
        if name not in self.evaluations:
            known = ", ".join(self.evaluations)
            raise UsageError(
                f"no evaluation is called {name!r}",
                hint=f"Known: {known}." if known else "Define one in a cell that begins with '%%theta evaluate NAME'.",
            )
        return self.evaluations[name]


def _functions_of(cell: str) -> list[str] | None:
    """Names of the functions that a cell defines; ``None`` if it is no Python."""
    try:
        return [node.name for node in ast.parse(cell).body if isinstance(node, ast.FunctionDef)]
    except SyntaxError:
        return None


def _display(value: object) -> None:
    from IPython.display import display

    display(value)  # type: ignore[no-untyped-call]


def _model(arguments: Namespace, context: dispatch.Context) -> Any:
    if arguments.into is None:
        return None
    if arguments.into not in context.states:
        raise UsageError(f"{arguments.into!r} is no model or state dict of this notebook")
    return context.states[arguments.into]


def _under_way(places: Places) -> str:
    from theta_nb.git.merge_commit import under_way

    return under_way(places)


def _stale(session: MergeSession, places: Places) -> bool:
    """Whether a session is about a conflict that is over, or about other commits than HEAD."""
    from theta_nb.commands.merge import is_current

    return not is_current(session, places)


def session_bundle(session: MergeSession, *, measure: bool = True) -> dict[str, str]:
    """What a notebook shows of a session: what is chosen, and the preview; the weights are read if that is wanted."""
    from theta_nb.report.fragments import Markup, fragment, grid, text

    preview = session.preview(measure=measure)
    chosen = session.recipe().short()
    waiting = f"{len(preview.open)} wait for a choice" if preview.open else "nothing is open"
    head = f"merge of {', '.join(session.labels)}: {chosen}; {waiting}"
    rows = []
    for row in [one for one in preview if one.state != "equal"][:60]:
        cosine = f"{row.cosines[0]:+.2f}" if row.cosines else ""
        conflict = f"{row.conflict:.0%}" if row.conflict is not None else ""
        about = "≈ " if row.estimated else ""
        moved = f"{about}{row.distances[0]:.3g}" if row.distances is not None else ""
        kind = "bad" if row.open else ""
        choice = Markup(f"<span class='{kind}'>{text('waits' if row.open else row.choice)}</span>")
        rows.append([Markup(f"<code>{text(row.name)}</code>"), row.state, choice, cosine, conflict, moved])
    left = sum(row.state != "equal" for row in preview) - len(rows)
    more = [Markup(f"<div class='dim'>… and {left} more</div>")] if left > 0 else []
    equal = preview.counts().get("equal", 0)
    if equal:
        more.append(Markup(f"<div class='dim'>{equal:,} equal</div>"))
    table = grid(["parameter", "state", "choice", "cosine", "conflict", "moved"], rows, numbers=[3, 4, 5])
    html = fragment(Markup(f"<div class='b'>{text(head)}</div>"), table, *more)
    return {"text/plain": f"{head}\n{preview}", "text/html": html}
