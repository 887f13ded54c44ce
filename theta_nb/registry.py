"""Tables of plug-ins: a name leads to an import string, and nothing is imported before it is used.

Built-ins and outsiders use the same table: an outsider publishes an entry point in the table's group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from theta_nb.errors import ThetaError

__all__ = ["Plugin", "Registry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where a plug-in lives and how to get it.

    Parameters
    ----------
    target
        Import string, ``"package.module:attribute"``.
    install
        Command that installs what it needs, shown when the import fails; may be empty.
    """

    target: str
    install: str = ""


class Registry(Generic[T]):
    """A read-only table from names to lazily imported objects.

    Parameters
    ----------
    what
        What a member is called in messages (``"format"``).
    group
        Entry-point group that outsiders publish in.
    builtin
        Members that come with the package; an entry point of the same name does not replace them.

    Examples
    --------
    >>> table = Registry("codec", "theta_nb.codecs", {"json": Plugin("json:dumps")})
    >>> table["json"]([1])
    '[1]'
    """

    def __init__(self, what: str, group: str, builtin: Mapping[str, Plugin]) -> None:
        self.what = what
        self.group = group
        self._builtin = dict(builtin)
        self._loaded: dict[str, T] = {}
        self._external: dict[str, Plugin] | None = None

    def names(self) -> tuple[str, ...]:
        """All names, built-ins first, each part in its own order."""
        return tuple(self._builtin) + tuple(self._plugins())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __getitem__(self, name: str) -> T:
        """The member called ``name``, imported on first use.

        Raises
        ------
        ThetaError
            If no member has the name or its import fails; the message lists the names or the install command.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _plugins(self) -> dict[str, Plugin]:
        # Scanning installed distributions takes tens of milliseconds, so it waits until an unknown name asks for it.
        if self._external is None:
            from importlib.metadata import entry_points

            self._external = {
                entry.name: Plugin(entry.value)
                for entry in entry_points(group=self.group)
                if entry.name not in self._builtin
            }
        return self._external

    def _load(self, name: str) -> T:
        plugin = self._builtin.get(name) or self._plugins().get(name)
        if plugin is None:
            known = ", ".join(self.names())
            raise ThetaError(f"no {self.what} is called {name!r}", hint=f"Known: {known}.")
        module, _, attribute = plugin.target.partition(":")
        try:
            member: Any = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            hint = f"Run '{plugin.install}'." if plugin.install else "Check the plug-in's installation."
            raise ThetaError(f"the {self.what} {name!r} cannot be loaded: {error}", hint=hint) from error
        return cast(T, member)
