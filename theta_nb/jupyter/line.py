"""The line behind ``%theta``: variables are put in, then it is split into words as a shell would."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from IPython.utils.text import EvalFormatter

from theta_nb.commands.parser import UsageError

__all__ = ["Line", "is_state", "read_line"]

# What git writes in braces (HEAD@{1}, v1^{commit}) stays; so does a dollar before anything but a name.
_VARIABLE = re.compile(r"(?<![@^$\w])\{([^{}]+)\}|(?<!\$)\$([A-Za-z_]\w*)")
_PLACE = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True)
class Line:
    """The words of a line.

    Parameters
    ----------
    words
        As after a shell's splitting.
    states
        Modules and state dicts that words name, by word.
    """

    words: list[str]
    states: Mapping[str, Any] = field(default_factory=dict)


def read_line(line: str, namespace: Mapping[str, Any]) -> Line:
    """Put variables in and split a line.

    ``$name`` and ``{expression}`` stand for values of the notebook; a value is one word, whatever blanks it holds. A
    bare name of a module or state dict is kept as a word, and its value handed on.

    Parameters
    ----------
    line
        What was typed behind the magic's name.
    namespace
        Variables of the notebook.

    Raises
    ------
    UsageError
        If quotes are not closed, or an expression fails.

    Examples
    --------
    >>> read_line("diff $rev HEAD@{1} 'my {what}.pt'", {"rev": "v1", "what": "model"}).words
    ['diff', 'v1', 'HEAD@{1}', 'my model.pt']
    """
    values: list[Any] = []

    def note(match: re.Match[str]) -> str:
        name = match[2]
        if name is not None:
            if name not in namespace:
                return match[0]
            values.append(namespace[name])
        else:
            values.append(_evaluate(match[1], namespace))
        return f"\ue000{len(values) - 1}\ue001"

    marked = _VARIABLE.sub(note, line)
    try:
        words = shlex.split(marked)
    except ValueError as error:
        raise UsageError(f"{line.strip()!r} has an open quote ({error})", hint="Close it.") from error
    states: dict[str, Any] = {}
    found = []
    for word in words:
        whole = _PLACE.fullmatch(word)
        if whole and is_state(values[int(whole[1])]):
            text = f"variable {int(whole[1]) + 1}"
            states[text] = values[int(whole[1])]
        else:
            text = _PLACE.sub(lambda match: str(values[int(match[1])]), word)
            if text.isidentifier() and is_state(namespace.get(text)):
                states[text] = namespace[text]
        found.append(text)
    return Line(found, states)


def _evaluate(expression: str, namespace: Mapping[str, Any]) -> Any:
    try:
        # What a cell would evaluate anyway; a value that is no text may be what is to be compared.
        return eval(expression.strip(), dict(namespace))  # noqa: S307
    except SyntaxError:
        pass  # {loss:.3f} is no expression, but means something in a text
    except Exception as error:
        raise _not_put_in(expression, error) from error
    try:
        return EvalFormatter().vformat(f"{{{expression}}}", (), dict(namespace))
    except Exception as error:
        raise _not_put_in(expression, error) from error


def _not_put_in(expression: str, error: Exception) -> UsageError:
    return UsageError(
        f"{{{expression}}} cannot be put in: {type(error).__name__}: {error}",
        hint="Braces hold names and expressions of the notebook.",
    )


def is_state(value: object) -> bool:
    """Whether a value is a module or a state dict: something whose tensors can be compared with a checkpoint."""
    if isinstance(value, type):
        return False
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "named_parameters", None)):
        return True
    return isinstance(value, Mapping) and any(hasattr(item, "dtype") for item in value.values())
