"""Compare two versions by their manifests, without reading a value."""

from __future__ import annotations

from dataclasses import dataclass

from theta_nb.manifest.model import Entry, Manifest

__all__ = ["Changes", "compare"]


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of the parameters that differ between two versions, sorted.

    Parameters
    ----------
    changed, added, removed
        Parameter names; ``@N`` stands for a storage that no tensor covers.
    other
        Whether something that is no tensor differs (metadata, pickled values, order in the file).
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    other: bool = False

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed or self.other)


def compare(old: Manifest | None, new: Manifest | None) -> Changes:
    """What changed from ``old`` to ``new``; ``None`` stands for a file that does not exist.

    Values are compared by digest, so the same value encoded in two ways is no change.
    """
    before = old.entries if old is not None else {}
    after = new.entries if new is not None else {}
    both = before.keys() & after.keys()
    changed = sorted(name for name in both if _value(before[name]) != _value(after[name]))
    other = old is not None and new is not None and (old.skeleton != new.skeleton or old.format != new.format)
    return Changes(tuple(changed), tuple(sorted(after.keys() - before)), tuple(sorted(before.keys() - after)), other)


def _value(entry: Entry) -> tuple[bytes, str, tuple[int, ...]]:
    return entry.digest, entry.dtype, entry.shape
