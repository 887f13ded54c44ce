"""What a version costs on disk, by the way in which it is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

from theta_nb.manifest.model import Manifest

__all__ = ["by_object", "new_storage", "total_storage"]


def by_object(manifest: Manifest) -> dict[str, dict[str, int]]:
    """What each object of a manifest holds: encoded bytes by update type.

    What is shared counts once; layout and skeleton count as ``"dense"``.
    """
    found: dict[str, dict[int, tuple[str, int]]] = {}
    for ref in manifest.chunk_refs():
        for link in ref.links():
            if link.oid:
                found.setdefault(link.oid, {})[link.offset] = (link.update, link.length)
    return {oid: total_storage([dict([part]) for part in parts.values()]) for oid, parts in found.items()}


def total_storage(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of bytes by update type, the largest first.

    Examples
    --------
    >>> total_storage([{"delta": 3}, {"dense": 5}, {"delta": 4}])
    {'delta': 7, 'dense': 5}
    """
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def new_storage(manifest: Manifest, known: Container[str]) -> dict[str, int]:
    """Encoded bytes of a manifest's objects that are new, by update type, the largest first.

    Parameters
    ----------
    manifest
        The version.
    known
        Names of the objects that earlier versions have.
    """
    return total_storage(parts for oid, parts in by_object(manifest).items() if oid not in known)
