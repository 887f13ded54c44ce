r"""Names of parameters: an injective, one-line spelling of the path that leads to a tensor.

A path is a sequence of steps from the root of the saved object. A flat state dict has paths of one string, and they
keep their spelling. Anything that a flat key could be confused with is escaped, so two paths never share a name and
a name never holds a line break, a control character or an invisible one.

=====================  ===========================================================
step                   spelling
=====================  ===========================================================
``"layer.0.weight"``   ``layer.0.weight``
``"a/b"``, ``"a\b"``    ``a\/b``, ``a\\b``
``"[0]"``, ``"@0"``      ``\[0]``, ``\@0`` (only the first character of a step)
``""``                 ``\e``
``"a\nb"``, U+2028     ``a\x0ab``, ``\u2028``
``0``                  ``[0]``
``Other("None")``      ``[None]``
=====================  ===========================================================

Steps are joined with ``/``; the empty path (a file that holds one bare tensor) is ``[]``. No name starts with ``@``:
those are reserved for storages that no tensor views.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from theta_nb.errors import CheckpointError

__all__ = ["ROOT", "Other", "Path", "Step", "parse", "spell", "spell_step"]


@dataclass(frozen=True, slots=True)
class Other:
    """A step that is neither a string key nor an integer.

    Parameters
    ----------
    text
        What stands between the brackets: the ``repr`` of a key, or a word such as ``state``.
    """

    text: str


Step = str | int | Other
Path = tuple[Step, ...]

ROOT = "[]"

# Fixed ranges, not unicodedata: a name must have one spelling whatever the Python version. C0, DEL and C1 controls;
# soft hyphen; invisible and bidirectional format characters, which make a name read as another one; line and
# paragraph separators; surrogates, which UTF-8 cannot hold; the byte order mark; non-characters.
_UNPRINTABLE = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff"
)
_PLAIN = re.compile(rf"[^\[@/\\{_UNPRINTABLE}][^/\\{_UNPRINTABLE}]*")
_SPECIAL = re.compile(rf"[/\\{_UNPRINTABLE}]")
_SPECIAL_IN_BRACKETS = re.compile(rf"[/\\\]{_UNPRINTABLE}]")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|([/\\\[\]@]))")


def spell(path: Path) -> str:
    r"""Name of the tensor at ``path``.

    Parameters
    ----------
    path
        Keys and indices from the root of the saved object to the tensor.

    Returns
    -------
    str
        One line of printable text; different paths have different names.

    Examples
    --------
    >>> spell(("encoder.layer.0.weight",))
    'encoder.layer.0.weight'
    >>> spell(("optimizer", "state", 0, "exp_avg"))
    'optimizer/state/[0]/exp_avg'
    >>> print(spell(("a/b",)), spell(("[0]",)), spell((Other("None"),)))
    a\/b \[0] [None]
    """
    return "/".join(map(spell_step, path)) if path else ROOT


def spell_step(step: Step) -> str:
    r"""Spelling of one step of a path.

    Examples
    --------
    >>> spell_step("weight"), spell_step(3), spell_step("@0")
    ('weight', '[3]', '\\@0')
    """
    if isinstance(step, str):
        if _PLAIN.fullmatch(step):
            return step
        if not step:
            return r"\e"
        text = _SPECIAL.sub(_escaped, step)
        return f"\\{text}" if text[0] in "[@" else text
    if isinstance(step, int):
        return f"[{int(step)}]"
    if not step.text:
        return r"[\e]"
    if _INTEGER.fullmatch(step.text):  # would read as an index
        return f"[\\x{ord(step.text[0]):02x}{step.text[1:]}]"
    return f"[{_SPECIAL_IN_BRACKETS.sub(_escaped, step.text)}]"


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    if char in "/\\]":
        return f"\\{char}"
    return f"\\x{ord(char):02x}" if char < "\u0100" else f"\\u{ord(char):04x}"


def parse(name: str) -> Path:
    r"""Path that :func:`spell` gives ``name`` for.

    Raises
    ------
    CheckpointError
        If no path is spelled this way.

    Examples
    --------
    >>> parse(r"optimizer/state/[0]/a\/b")
    ('optimizer', 'state', 0, 'a/b')
    """
    if name == ROOT:
        return ()
    path = tuple(_parse_step(text) for text in _split(name))
    try:
        canonical = spell(path)
    except ValueError:  # an integer of thousands of digits
        canonical = ""
    if canonical != name:
        raise CheckpointError(f"{name!r} is not the name of a parameter")
    return path


def _split(name: str) -> list[str]:
    steps = [""]
    for piece in re.split(r"(\\.|/)", name, flags=re.DOTALL):
        if piece == "/":
            steps.append("")
        else:
            steps[-1] += piece
    return steps


def _parse_step(text: str) -> Step:
    if text == r"\e":
        return ""
    if not text.startswith("["):
        return _unescaped(text)
    inner = text[1:-1]
    if _INTEGER.fullmatch(inner) and len(inner) < 4000:
        return int(inner)
    return Other("" if inner == r"\e" else _unescaped(inner))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda m: m[3] or chr(int(m[1] or m[2], 16)), text)
