"""What the manifests of one history have in common, parsed and checked once.

From one version of a checkpoint to the next most lines stay as they are. A line is taken from memory only where it
means the same: what abbreviations stand for, and the lengths of objects, are looked up anew in each manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from theta_nb.manifest.model import Entry, Value

__all__ = ["Memo"]


class _Use(NamedTuple):
    """A chunk's object: how a line spells it, which it is, and how long it must be."""

    word: str
    oid: str
    end: int


class Memo:
    """Entries and values by the lines that describe them; to be handed to every :func:`theta_nb.manifest.text.parse`.

    It keeps what it has seen, so it should live as long as one piece of work.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], tuple[Value, tuple[_Use, ...]]] = {}
        self._entries: dict[tuple[str, ...], Entry] = {}
        self._fitting: dict[tuple[int, int], tuple[Entry, Value]] = {}

    def value(
        self, words: list[str], name: Callable[[str], str], objects: Mapping[str, int], make: Callable[[], Value]
    ) -> Value:
        """The value of a line.

        Parameters
        ----------
        words
            The line.
        name
            What an abbreviated name of an object stands for in this manifest.
        objects
            Lengths of this manifest's objects.
        make
            Parses the line.
        """
        key = tuple(words)
        known = self._values.get(key)
        if known is not None and all(name(use.word) == use.oid and use.end <= objects[use.oid] for use in known[1]):
            return known[0]
        value = make()
        chunks = words[len(words) - len(value.chunks) :]
        uses = tuple(
            _Use(word.split(":")[1], ref.oid, ref.offset + ref.length)
            for word, ref in zip(chunks, value.chunks, strict=True)
            if ref.oid
        )
        self._values[key] = value, uses
        return value

    def entry(self, row: list[str], digest: str, make: Callable[[], Entry]) -> Entry:
        """The entry of a row whose abbreviated digest stands for ``digest`` in this manifest."""
        key = (*row, digest)
        found = self._entries.get(key)
        if found is None:
            found = self._entries[key] = make()
        return found

    def fits(self, entry: Entry, value: Value, check: Callable[[], None]) -> None:
        """Have a value checked against an entry, once for each pair."""
        # By identity, which costs nothing; both are kept, so that no other object can take their place in memory.
        key = (id(entry), id(value))
        if key not in self._fitting:
            check()
            self._fitting[key] = entry, value
