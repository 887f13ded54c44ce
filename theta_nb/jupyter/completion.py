"""Completion of ``%theta`` lines: commands, options, commits, checkpoints, parameters and variables."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from theta_nb.commands.dispatch import command_names
from theta_nb.commands.grammar import NOTEBOOK_COMMANDS
from theta_nb.commands.parser import build_parser
from theta_nb.errors import ThetaError
from theta_nb.jupyter.choices import Choices
from theta_nb.jupyter.line import is_state

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Completion", "complete"]

_LINE = re.compile(r"^\s*(?:[\w.,*\s\[\]'\"]+=\s*)?%{1,2}theta\s+(.*)$", re.DOTALL)
_MOST = 500


class Completion:
    """The matcher that IPython asks.

    Parameters
    ----------
    shell
        Whose variables are offered where a model can be compared.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

        @context_matcher()  # type: ignore[untyped-decorator]
        def matcher(context: CompletionContext) -> dict[str, Any]:
            return self._match(context)

        matcher.is_theta = True
        self.matcher = matcher

    def _match(self, context: CompletionContext) -> dict[str, Any]:
        line = context.text_until_cursor.rpartition("\n")[2]
        found = _LINE.match(line)
        if found is None:
            return {"completions": [], "suppress": False}
        fragment, offers = complete(found[1], os.getcwd(), self._shell.user_ns)
        return {
            "completions": [SimpleCompletion(text=text, type=kind) for text, kind in offers],
            "matched_fragment": fragment,
            "suppress": True,
            "ordered": True,
        }


@dataclass(frozen=True)
class _Asked:
    """What has been typed: the command, the words behind it, and the fragment at the cursor."""

    words: list[str]
    fragment: str
    choices: Choices
    variables: list[str] = field(default_factory=list)


def complete(typed: str, folder: str, namespace: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """What could stand at the end of a line.

    Parameters
    ----------
    typed
        The line behind ``%theta``, up to the cursor.
    folder
        Current directory.
    namespace
        Variables of the notebook.

    Returns
    -------
    str
        The fragment that is completed.
    list
        Completions and what they are.
    """
    fragment = re.search(r"\S*$", typed)
    word = fragment[0] if fragment else ""
    try:
        words = shlex.split(typed[: len(typed) - len(word)])
    except ValueError:  # within quotes: whatever it is, it has blanks
        return word, []
    if not words:
        return word, _starting(word, [(name, "command") for name in [*command_names(), *NOTEBOOK_COMMANDS]])
    variables = [name for name, value in namespace.items() if not name.startswith("_") and is_state(value)]
    try:
        offers = _offers(_Asked(words, word, Choices(folder), variables))
    except (ThetaError, OSError):  # outside of a repository, or one that is broken: the command will say so
        offers = []
    return word, _starting(word, offers)


def _starting(fragment: str, offers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    shown = [(text, kind) for text, kind in dict.fromkeys(offers) if text.startswith(fragment)]
    return shown[:_MOST]


def _offers(asked: _Asked) -> list[tuple[str, str]]:
    name = asked.words[0]
    parser = _parser(name)
    if parser is None:
        return []
    options = {option: action for action in parser._actions for option in action.option_strings}
    before = options.get(asked.words[-1]) if len(asked.words) > 1 else None
    if before is not None and before.nargs != 0:
        return _values(before, asked)
    if asked.fragment.startswith("-"):
        return [(option, "option") for option in options if option.startswith("--") or len(asked.fragment) < 2]
    position = _position(asked.words[1:], options)
    return _POSITIONAL.get(name, _nothing)(asked, position)


def _parser(name: str) -> argparse.ArgumentParser | None:
    from theta_nb.jupyter.magics import parsers_of

    return parsers_of(build_parser()).get(name)


def _position(words: list[str], options: Mapping[str, argparse.Action]) -> int:
    """How many words that are no options stand before the fragment."""
    count = 0
    value_follows = False
    for word in words:
        if value_follows:
            value_follows = False
        elif word in options:
            value_follows = options[word].nargs != 0
        elif word != "--":
            count += 1
    return count


def _values(action: argparse.Action, asked: _Asked) -> list[tuple[str, str]]:
    """What may stand behind an option."""
    if action.choices is not None:
        return [(str(choice), "value") for choice in action.choices]
    if action.dest == "method":
        from theta_nb.merges.table import METHODS

        return [(name, "method") for name in METHODS.names()]
    if action.dest == "source":
        return asked.choices.revisions()
    if action.dest in ("filters", "parameters"):
        return asked.choices.parameters(asked.words)
    if action.dest == "verify_remote":
        return asked.choices.remotes()
    return []


# --- what each command takes ------------------------------------------------------------------------------------------


def _nothing(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return []


def _paths(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.paths()


def _new_paths(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.paths(new=True)


def _revisions(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.revisions()


def _revisions_and_paths(asked: _Asked, position: int) -> list[tuple[str, str]]:
    if "--" in asked.words:
        return asked.choices.paths()
    return [*_ranges(asked), *asked.choices.paths()]


def _diff(asked: _Asked, position: int) -> list[tuple[str, str]]:
    variables = [(name, "variable") for name in asked.variables] if "--" not in asked.words else []
    return [*variables, *_revisions_and_paths(asked, position)]


def _ranges(asked: _Asked) -> list[tuple[str, str]]:
    """Commits, also behind the dots of a range."""
    left, dots, _ = asked.fragment.rpartition("..")
    revisions = asked.choices.revisions()
    return [(f"{left}..{name}", kind) for name, kind in revisions] if dots else revisions


def _show(asked: _Asked, position: int) -> list[tuple[str, str]]:
    if position:
        return asked.choices.parameters(asked.words)
    revision, colon, _ = asked.fragment.partition(":")
    if colon:
        return [(f"{revision}:{path}", kind) for path, kind in asked.choices.paths_at(revision)]
    return [*asked.choices.paths(), *((f"{name}:", kind) for name, kind in asked.choices.revisions())]


def _blame(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.parameters(asked.words) if position else asked.choices.paths()


def _transfer(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.remotes() + asked.choices.revisions() if position == 0 else asked.choices.revisions()


def _pull(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.remotes() + asked.choices.paths() if position == 0 else asked.choices.paths()


def _patterns(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.patterns()


def _track(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return asked.choices.files()


def _topics(asked: _Asked, position: int) -> list[tuple[str, str]]:
    return [(name, "command") for name in command_names()]


_POSITIONAL: dict[str, Callable[[_Asked, int], list[tuple[str, str]]]] = {
    "track": _track,
    "untrack": _patterns,
    "add": _new_paths,
    "status": _paths,
    "ls-files": _paths,
    "checkout": _paths,
    "diff": _diff,
    "log": _revisions_and_paths,
    "show": _show,
    "merge": _revisions_and_paths,
    "replay": _revisions_and_paths,
    "blame": _blame,
    "push": _transfer,
    "fetch": _transfer,
    "pull": _pull,
    "fsck": _revisions,
    "help": _topics,
}
