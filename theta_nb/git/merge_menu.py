"""The menu for parameters that wait for a choice, at the terminal: this one, all of a pattern, or all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from glob import escape

from theta_nb.engine.merging.choices import Choice, Override
from theta_nb.engine.merging.preview import PreviewRow
from theta_nb.engine.merging.recipe import Recipe
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.spelling import parse_choice
from theta_nb.engine.merging.states import State, Unit
from theta_nb.errors import MergeError
from theta_nb.git.asking import Terminal
from theta_nb.merges.table import METHODS
from theta_nb.report.visible import visible

__all__ = ["MergeMenu"]

_KEYS = {"o": "ours", "t": "theirs", "b": "original", "a": "linear"}
_HELP = """\
  o  ours         keep our value
  t  theirs       take their value
  b  original     go back to the value of the common ancestor
  a  average      of all sides
  m  a method     or type it at once, with its parameters: ties:density=0.3
  p  preview      of everything, as it is chosen now
  q  quit         the merge stays a conflict, and nothing is lost
Then: Enter for this parameter, * for all that are left, or a pattern such as encoder.*
"""


class MergeMenu:
    """Asks until nothing is open.

    Parameters
    ----------
    session
        What is merged.
    path
        Of the checkpoint.
    terminal
        Where the questions go.
    review
        Whether also those are asked about that only one side changed.
    """

    def __init__(self, session: MergeSession, path: str, terminal: Terminal, *, review: bool = False) -> None:
        self._session = session
        self._path = path
        self._terminal = terminal
        self._review = review
        self._rows: dict[str, PreviewRow] = {}

    def run(self) -> bool:
        """Whether everything was chosen; if not, the session is as it was left, and nothing should be kept."""
        left = [d.unit.name for d in self._session.decisions.values() if d.open or (self._review and _changed(d.unit))]
        count = len(left)
        self._rows = {row.name: row for row in self._session.preview()}
        say = "changed" if self._review else "changed by both sides"
        self._say(f"\n{self._path}: {count} {'parameter' if count == 1 else 'parameters'} {say}")
        while left:
            self._show(left[0], count - len(left) + 1, count)
            choice = self._choice(left[0])
            if choice is None:
                return False
            names = self._scope(left)
            if names is None:
                return False
            if names and self._apply(choice, names):
                left = [name for name in left if name not in names]
        self._say("Everything is chosen.")
        return True

    def _show(self, name: str, number: int, count: int) -> None:
        decision = self._session.decision(name)
        info = decision.info or next((one for one in decision.unit.versions if one is not None), None)
        kind = f"  {info.dtype} {list(info.shape)}" if info is not None else ""
        self._say(f"\n[{number}/{count}] {name}{kind}")
        self._say(f"  {decision.unit.state.value}{self._numbers(name)}")
        keep = " [k]eep it so" * (not decision.open)
        self._say(f" {keep} [o]urs [t]heirs [b] original [a]verage [m]ethod [p]review [?] help [q]uit")

    def _numbers(self, name: str) -> str:
        """How far the sides went, and how much they agree; empty where that cannot be said."""
        row = self._rows[name]
        parts = [f"the task vectors' cosine is {row.cosines[0]:+.2f}"] if row.cosines else []
        parts += [f"they disagree in sign at {row.conflict:.0%} of the entries"] if row.conflict is not None else []
        parts += [f"the change is {row.change:.2%} of the weights"] if row.change is not None else []
        return f"; {', '.join(parts)}" if parts else ""

    def _choice(self, name: str) -> Choice | str | None:
        """A choice, ``"keep"``, or ``None`` for whoever has had enough."""
        while True:
            answer = self._ask("theta> ")
            if answer is None or answer in ("q", "quit"):
                return None
            if answer in ("k", "keep") and not self._session.decision(name).open:
                return "keep"
            if answer in ("p", "preview"):
                self._say(str(self._session.preview()))
                continue
            if answer in ("", "?", "h", "help"):
                self._terminal.write(_HELP)
                continue
            if answer in ("m", "method"):
                self._say(f"  {', '.join(METHODS.names())}")
                answer = self._ask("method> ")
                if answer is None:
                    return None
            try:
                return parse_choice(_KEYS.get(answer, answer))
            except MergeError as error:
                self._say(f"  {error}")

    def _scope(self, left: Sequence[str]) -> list[str] | None:
        """Names that the choice is for; empty to choose again."""
        if len(left) == 1:
            return list(left)
        answer = self._ask(f"for [Enter] this one, * all {len(left)} that are left, or a pattern> ")
        if answer is None:
            return None
        if not answer:
            return [left[0]]
        found = [name for name in left if fnmatchcase(name, answer)]
        if not found:
            self._say("  That matches none of those that are left.")
        return found

    def _apply(self, choice: Choice | str, names: Sequence[str]) -> bool:
        if isinstance(choice, str):
            return True
        # One override a name: a pattern would also be about what nobody was asked.
        overrides = tuple(Override(escape(name), choice) for name in names)
        settings = self._session.settings
        everything = set(names) >= set(self._session.open) and not self._review
        if everything:
            overrides = tuple(one for one, name in zip(overrides, names, strict=True) if not self._mergeable(name))
            settings = replace(settings, default=choice)
        settings = replace(settings, overrides=(*settings.overrides, *overrides))
        before = self._session.settings
        try:
            self._session.apply(Recipe(None, (), settings), check=False)
            still = [name for name in names if self._session.decision(name).open]
        except MergeError as error:
            self._session.restore(before)
            self._say(f"  {error}")
            return False
        return not still

    def _mergeable(self, name: str) -> bool:
        """Whether the method in use counts for it."""
        decision = self._session.decision(name)
        return decision.open and not decision.reason.startswith("conflict")

    def _ask(self, question: str) -> str | None:
        self._terminal.write(question)
        line = self._terminal.readline(interrupts=False)
        return line.strip() if line.endswith("\n") else None

    def _say(self, text: str) -> None:
        self._terminal.write("\n".join(map(visible, text.split("\n"))) + "\n")


def _changed(unit: Unit) -> bool:
    """Whether the sides differ in it."""
    return unit.state not in (State.EQUAL, State.CHANGED_SAME, State.ADDED_SAME, State.DELETED_BOTH)
