"""The grammar of ``git theta``: built once, used by the command line and by the notebook magics."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from theta_nb.commands.grammar import GROUPS, NOTEBOOK_GROUPS, Formatter
from theta_nb.errors import ThetaError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = [
    "OVERVIEW",
    "SEE_HELP",
    "WORKFLOW",
    "CommandLineParser",
    "UsageError",
    "build_parser",
    "closest",
    "parse",
    "respelled",
]

PROGRAM = "git theta"
"""What is typed in a terminal."""

_REQUIRED = "the following arguments are required: "
_IN_COLUMNS = re.compile(r"git theta(.*?)( {2,})")

SEE_HELP = "'git theta -h' lists the commands."
"""The next step for whoever typed something that is no command."""

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
        if message.startswith(_REQUIRED):
            message = f"'{self.prog}' needs {message.removeprefix(_REQUIRED)}"
        raise UsageError(message, hint=f"'{self.prog} -h' explains.")

    def print_help(self, file: SupportsWrite[str] | None = None) -> NoReturn:
        """Hand the help text to :func:`parse`; where it is shown is not the parser's business."""
        raise _Help(self.format_help())


class _Help(Exception):  # noqa: N818 - it is no error
    """The text that ``-h`` asks for."""


def closest(word: str, words: list[str]) -> str:
    """The most similar of some words, or nothing.

    Examples
    --------
    >>> closest("trak", ["add", "track", "untrack"])
    'track'
    """
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=0.6)), "")


def build_parser(
    parser_class: type[argparse.ArgumentParser] = CommandLineParser, prog: str = PROGRAM
) -> argparse.ArgumentParser:
    """The parser of all commands.

    Parameters
    ----------
    parser_class
        What the parser and those of the commands are instances of; it decides what happens on a mistake.
    prog
        What is typed before a command; examples and explanations are spelled with it as well. Anything but
        ``git theta`` is a notebook, which has some commands of its own.

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
        prog=prog,
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description=OVERVIEW,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", prog=prog, help=argparse.SUPPRESS, parser_class=parser_class
    )
    overview = ""
    for title, members in (GROUPS if prog == PROGRAM else NOTEBOOK_GROUPS).items():
        overview += f"{title}:\n"
        for add in members:
            name, summary = add(commands)
            overview += f"  {name:<12}{summary}\n"
        overview += "\n"
    parser.epilog = overview + WORKFLOW
    if prog != PROGRAM:
        for each in (parser, *commands.choices.values()):
            each.description = respelled(each.description or "", prog)
            each.epilog = respelled(each.epilog or "", prog)
            for action in each._actions:  # argparse formats these, so a per cent sign is written twice
                action.help = action.help and respelled(action.help, prog.replace("%", "%%"))
    return parser


def respelled(text: str, prog: str) -> str:
    r"""A text about ``git theta`` for those who type something else; columns stay aligned.

    Examples
    --------
    >>> respelled("git theta log      every checkpoint\nwhat 'git theta gc' does", "%theta").splitlines()
    ['%theta log         every checkpoint', "what '%theta gc' does"]
    """
    fill = " " * (len(PROGRAM) - len(prog))
    text = _IN_COLUMNS.sub(lambda match: f"{prog}{match[1]}{fill}{match[2]}", text)
    return text.replace(PROGRAM, prog)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str], names: Sequence[str]) -> argparse.Namespace | str:
    """Understand a command line.

    Parameters
    ----------
    parser
        From :func:`build_parser`.
    argv
        Arguments without the program's name.
    names
        Names of the commands.

    Returns
    -------
    argparse.Namespace or str
        What to do; or the text that was asked for, a help or the version. Its ``dashes`` is the number of words
        behind ``--``, ``None`` without it.

    Raises
    ------
    UsageError
        If it makes no sense.
    """
    _check_command(argv, names, parser.prog)
    try:
        arguments, unknown = parser.parse_known_args(argv)
    except _Help as help_text:
        return str(help_text).removesuffix("\n")
    unknown = _further_words(arguments, unknown)
    if unknown:
        command = f"{parser.prog} {arguments.command}" if arguments.command else parser.prog
        raise UsageError(f"{unknown[0]!r} is no argument of '{command}'", hint=f"'{command} -h' lists them.")
    if arguments.version:
        from theta_nb import __version__

        return f"theta-nb {__version__}"
    if arguments.command is None or arguments.command == "help":
        topic = getattr(arguments, "topic", None)
        return parse(parser, [topic, "-h"] if topic else ["-h"], names)
    # argparse removes it, and with it what a reader needs to tell commits from files.
    arguments.dashes = len(argv) - list(argv).index("--") - 1 if "--" in argv else None
    return arguments


def _further_words(arguments: argparse.Namespace, unknown: list[str]) -> list[str]:
    """Hand words that stand behind options to the argument that takes words; argparse gives it only the first run.

    Returns what is left.
    """
    place = next(
        (name for name in ("words", "paths", "patterns") if isinstance(getattr(arguments, name, None), list)), ""
    )
    words = [word for word in unknown if word != "--"]
    if not place or any(word.startswith("-") for word in words):
        return unknown
    setattr(arguments, place, [*getattr(arguments, place), *words])
    return []


def _check_command(argv: Sequence[str], names: Sequence[str], prog: str) -> None:
    """Name the command that was meant, before argparse lists all of them."""
    if not argv or argv[0].startswith("-") or argv[0] in names:
        return
    meant = closest(argv[0], list(names))
    hint = f"Did you mean '{prog} {meant}'?" if meant else respelled(SEE_HELP, prog)
    raise UsageError(f"'{argv[0]}' is no command of {prog}", hint=hint)
