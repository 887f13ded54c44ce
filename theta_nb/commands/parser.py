"""The grammar of ``git theta``: built once, used by the command line and by the notebook magics."""

from __future__ import annotations

import argparse
import difflib
from typing import TYPE_CHECKING, NoReturn

from theta_nb.commands.grammar import GROUPS, Formatter
from theta_nb.errors import ThetaError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["OVERVIEW", "WORKFLOW", "CommandLineParser", "UsageError", "build_parser", "closest"]

OVERVIEW = """\
git for the inside of model checkpoints: only the tensors that changed are stored, a diff names them, and a
merge is a numerical operation on them.
"""

WORKFLOW = """\
a first session:
  git theta install                    once on every machine
  git theta track "*.safetensors"      once in every repository
  git add model.safetensors            from here on it is plain git:
  git commit -m "first weights"        add, commit, diff, checkout, merge, push
  git theta status                     which tensors have changed since

'git theta COMMAND -h' explains a command and shows examples.
"""


class UsageError(ThetaError):
    """The command line cannot be understood."""


class CommandLineParser(argparse.ArgumentParser):
    """A parser that raises :class:`UsageError` where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        """Report a mistake in the arguments."""
        raise UsageError(message, hint=f"'{self.prog} -h' explains.")

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Write the help text; that nobody reads it is told to the caller, which argparse would hide."""
        print(self.format_help(), end="", file=file)


def closest(word: str, words: list[str]) -> str:
    """The most similar of some words, or nothing.

    Examples
    --------
    >>> closest("trak", ["add", "track", "untrack"])
    'track'
    """
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=0.6)), "")


def build_parser(parser_class: type[argparse.ArgumentParser] = CommandLineParser) -> argparse.ArgumentParser:
    """The parser of all commands.

    Parameters
    ----------
    parser_class
        What the parser and those of the commands are instances of; it decides what happens on a mistake.

    Returns
    -------
    argparse.ArgumentParser
        Its result has ``command`` (``None`` where none is given) and the arguments of that command.

    Examples
    --------
    >>> build_parser().parse_args(["track", "*.pt"]).patterns
    ['*.pt']
    """
    parser = parser_class(
        prog="git theta",
        usage="git theta [-h] [--version] COMMAND ...",
        description=OVERVIEW,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", prog="git theta", help=argparse.SUPPRESS, parser_class=parser_class
    )
    overview = ""
    for title, members in GROUPS.items():
        overview += f"{title}:\n"
        for add in members:
            name, summary = add(commands)
            overview += f"  {name:<12}{summary}\n"
        overview += "\n"
    parser.epilog = overview + WORKFLOW
    return parser
