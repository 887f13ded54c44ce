"""The magic ``%theta``: the command line's words and options, with values instead of text."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand

from theta_nb.commands import dispatch, printing
from theta_nb.commands.grammar import NOTEBOOK_COMMANDS
from theta_nb.commands.parser import UsageError, build_parser, parse
from theta_nb.errors import ThetaError, UnknownWordError
from theta_nb.jupyter.display import Listing
from theta_nb.jupyter.errors import show_as_one_line
from theta_nb.jupyter.line import read_line
from theta_nb.jupyter.merging import OpenMerge
from theta_nb.jupyter.options import Theta, apply_options
from theta_nb.jupyter.progress import progress_displays

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["PROGRAM", "ThetaMagics", "notebook_parser", "parsers_of"]

PROGRAM = "%theta"
"""What is typed in a notebook."""

_IN_MEMORY = "A version may also be a variable that holds a module or a state dict; alone it is compared with HEAD."


def parsers_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Parsers of the commands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def notebook_parser() -> argparse.ArgumentParser:
    """The parser of the command line, as its words are typed in a notebook."""
    parser = build_parser(prog=PROGRAM)
    diff = parsers_of(parser)["diff"]
    diff.description = f"{diff.description}\n{_IN_MEMORY}"
    diff.epilog = f"{diff.epilog}\n  %theta diff HEAD model            what is being trained against what is committed"
    return parser


@magics_class
class ThetaMagics(Magics):
    """``%theta``.

    Parameters
    ----------
    shell
        Where it is registered.
    options
        Defaults.
    """

    def __init__(self, shell: InteractiveShell, options: Theta) -> None:
        super().__init__(shell)
        self._shell = shell
        self.options = options
        self.open_merge = OpenMerge()

    @no_var_expand  # git's own braces (HEAD@{1}) would be evaluated
    @needs_local_scope
    @line_cell_magic
    def theta(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Replaced by the overview of the commands."""
        namespace = {**self._shell.user_ns, **(local_ns or {})}
        try:
            return self._run(line, cell, namespace)
        except ThetaError as error:
            if isinstance(error, UnknownWordError):
                _name_variable(error, namespace)
            show_as_one_line(error, self._shell)
            raise
        except KeyboardInterrupt as error:
            if error.args:  # somebody has said what became of it
                show_as_one_line(error, self._shell)
            raise
        except OSError as error:
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            wrapped = ThetaError(said)
            show_as_one_line(wrapped, self._shell)
            raise wrapped from error

    def _run(self, line: str, cell: str | None, namespace: Mapping[str, Any]) -> Any:
        read = read_line(line, namespace)
        evaluation = cell if read.words[:1] == ["evaluate"] else None
        words = read.words + _words_of_cell(read.words, None if evaluation is not None else cell)
        parser = notebook_parser()
        apply_options(self.options, parsers_of(parser))
        arguments = parse(parser, words, [*dispatch.command_names(), *NOTEBOOK_COMMANDS])
        if isinstance(arguments, str):
            print(arguments)  # noqa: T201 - a help text, in the output of the cell
            return None
        progress = progress_displays(self._shell, wanted=self.options.progress)
        context = dispatch.Context(os.getcwd(), progress, states=read.states)
        if evaluation is not None:
            told = self.open_merge.register(arguments.name, evaluation, self._execute, self._shell.user_ns)
            print(told)  # noqa: T201
            return None
        return _presented(arguments, self._result(arguments, context), context.prefix)

    def _execute(self, cell: str) -> None:
        """Run a cell as if it had no magic above it."""
        self._shell.run_cell(cell, store_history=False).raise_error()  # type: ignore[no-untyped-call]

    def _result(self, arguments: argparse.Namespace, context: dispatch.Context) -> Any:
        """What a command returns; those that leave a merge open are not the command line's."""
        mine = {"merge": self.open_merge.merge, "evaluate": self.open_merge.evaluate, "sweep": self.open_merge.sweep}
        return mine.get(arguments.command, dispatch.execute)(arguments, context)


def _name_variable(error: UnknownWordError, namespace: Mapping[str, Any]) -> None:
    """Have the error say what is in the variable that was probably meant."""
    if error.word.isidentifier() and error.word in namespace:
        kind = type(namespace[error.word]).__name__
        error.hint = f"The variable {error.word} ({kind}) is no module or state dict; '${error.word}' is its text."


def _words_of_cell(words: list[str], cell: str | None) -> list[str]:
    """What a cell below the line says: the message of a commit."""
    if cell is None:
        return []
    if words[:1] != ["commit"]:
        raise UsageError(
            "only '%%theta commit' (the message) and '%%theta evaluate' take a cell",
            hint="Write it as a line: %theta …",
        )
    return ["-m", cell.strip("\n")]


def _presented(arguments: argparse.Namespace, result: Any, prefix: str) -> Any:
    """The value to return: what the verb returned, as something that shows itself."""
    if getattr(arguments, "json", False):
        return json.loads(printing.as_json(arguments, result))
    if getattr(arguments, "markdown", False):
        from IPython.display import Markdown

        return Markdown(printing.as_text(arguments, result, printing.PLAIN_STYLE))  # type: ignore[no-untyped-call]
    if getattr(arguments, "html", None):
        return _page(printing.as_html(result), arguments.html)
    if isinstance(result, tuple):
        # One history or diff is what was meant, not a list of one.
        alone = len(result) == 1 and hasattr(result[0], "to_html")
        return result[0] if alone else Listing(result, arguments, prefix)
    return result


def _page(page: str, file: str) -> Any:
    from IPython.display import HTML, FileLink

    if file == "-":
        return HTML(page)  # type: ignore[no-untyped-call]
    with open(file, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(page)
    return FileLink(file)  # type: ignore[no-untyped-call]


def _document() -> None:
    """Have ``%theta?`` show the overview."""
    with contextlib.suppress(AttributeError):
        ThetaMagics.theta.__doc__ = notebook_parser().format_help()


_document()
