"""What a version costs on disk, by the way in which it is stored."""

from __future__ import annotations

from collections.abc import Container

from theta_nb.manifest.model import Manifest

__all__ = ["new_storage"]


def new_storage(manifest: Manifest, known: Container[str]) -> dict[str, int]:
    """Encoded bytes of a manifest's objects that are new, by update type, the largest first.

    Parameters
    ----------
    manifest
        The version.
    known
        Names of the objects that earlier versions have.

    Returns
    -------
    dict
        Update type to bytes. What is shared is counted once; layout and skeleton count as ``"dense"``.
    """
    sizes: dict[tuple[str, int], tuple[str, int]] = {}
    for ref in manifest.chunk_refs():
        for link in ref.links():
            if link.oid and link.oid not in known:
                sizes[link.oid, link.offset] = (link.update, link.length)
    total: dict[str, int] = {}
    for update, length in sizes.values():
        total[update] = total.get(update, 0) + length
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
