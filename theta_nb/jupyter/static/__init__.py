"""ES modules and style sheets of the explorers, and how modules become the one file that a widget can have.

They are written by hand and run as they are, each with a data contract in its head and no knowledge of widgets (but for
``widget.js`` and the two entries). A page, a JupyterLab extension or a test imports them one by one; anywidget takes a
single module, so :func:`linked` joins an entry with what it imports. No build step is involved.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

__all__ = ["linked", "loader", "stylesheet"]

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)
_DEFAULT = re.compile(r"^export default ", re.MULTILINE)


@cache
def linked(entry: str) -> str:
    """An ES module and all that it imports, as one module.

    Every module becomes a function that is called once, in the order of the imports, so that private names do not
    meet. Only the forms that the modules use are understood: ``import { a, b as c } from "./name.js";`` and ``export``
    before ``function``, ``class`` and ``const``.

    Parameters
    ----------
    entry
        Name of the module whose default export is the widget, without ``.js``.

    Raises
    ------
    ValueError
        If a module imports or exports in another way, or modules import each other in a circle.
    """
    order: list[str] = []
    _collect(entry, order, ())
    parts = [_as_function(name, _source(name)) for name in order[:-1]]
    return _in_ascii("".join([*parts, _with_names(entry, _source(entry), default=True)]))


@cache
def loader(entry: str) -> str:
    """A small module that imports :func:`linked` once a page, however many widgets there are.

    anywidget imports the module of every widget anew, and a browser never forgets a module. So that opening explorers
    all day costs nothing, the module that is imported anew is this one; the code comes in the trait ``_module``.
    """
    key = hashlib.sha256(linked(entry).encode()).hexdigest()[:16]
    return _source("loader").replace("KEY", f"theta-nb {entry} {key}")


@cache
def stylesheet(name: str) -> str:
    """A style sheet, by its name without ``.css``."""
    return files(__name__).joinpath(f"{name}.css").read_text("utf-8")


def _in_ascii(source: str) -> str:
    """The same module with other characters as escapes: a browser keeps such a text in half the memory."""
    return re.sub(r"[^\x00-\x7f]", lambda match: f"\\u{ord(match[0]):04x}", source)


def _source(name: str) -> str:
    return files(__name__).joinpath(f"{name}.js").read_text("utf-8")


def _collect(name: str, order: list[str], above: tuple[str, ...]) -> None:
    """Put a module behind those that it imports."""
    if name in above:
        raise ValueError(f"modules import each other: {' -> '.join([*above, name])}")
    if name in order:
        return
    for _, wanted in _IMPORT.findall(_source(name)):
        _collect(wanted, order, (*above, name))
    order.append(name)


def _with_names(name: str, source: str, *, default: bool = False) -> str:
    """A module whose imports are taken from the objects of other modules."""

    def names(match: re.Match[str]) -> str:
        wanted = match[1].replace(" as ", ": ")
        return f"const {{{wanted}}} = $${match[2]};\n"

    body = _IMPORT.sub(names, source)
    left = _OTHER.search(_DEFAULT.sub("", body) if default else _EXPORT.sub("", body))
    if left:
        raise ValueError(f"{name}.js has a form of import or export that is not understood: {left[0]}")
    return body


def _as_function(name: str, source: str) -> str:
    exported = _EXPORT.findall(source)
    body = _EXPORT.sub("", _with_names(name, source))
    return f"const $${name} = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();\n"
