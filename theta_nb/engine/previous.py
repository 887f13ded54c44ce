"""The version before: what changed chunks may be stored as updates of.

Apart from :mod:`theta_nb.engine.incremental`, which needs NumPy: a filter that adds a new file does not wait for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from theta_nb.engine.known import KnownChunk
from theta_nb.manifest.model import Manifest, Value
from theta_nb.settings import Tolerance
from theta_nb.tensors.chunks import Extent
from theta_nb.tensors.spec import TensorSpec

if TYPE_CHECKING:
    from theta_nb.updates.table import Update

__all__ = ["AUTO", "Previous"]

AUTO = "auto"
"""Setting that lets sizes decide between the types that cost nothing to try."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The version that changed chunks may be stored as updates of: the committed one, never a staged one.

    Parameters
    ----------
    manifest
        That version.
    update
        Update type to be used, or ``"auto"``.
    tolerance
        Float tensors whose numbers are all as near to the old ones as this stay the old ones.
    encoder
        What encodes updates, where that is not the type with its default settings.
    """

    manifest: Manifest
    update: str = AUTO
    tolerance: Tolerance | None = None
    encoder: Update | None = None

    def chunks(self, name: str, dtype: str, shape: tuple[int, ...]) -> dict[Extent, KnownChunk]:
        """Encodings of the chunks of a parameter by their place, if its rows were as long then; else none."""
        old = self.manifest.entries.get(name)
        if old is None or old.owner or old.dtype != dtype or len(old.shape) != len(shape) or old.shape[1:] != shape[1:]:
            return {}
        value = self.manifest.values[old.digest]
        extents = old.extents(value.nbytes)
        return {e: KnownChunk.of(r, self.manifest.objects) for e, r in zip(extents, value.chunks, strict=True)}

    def value_of(self, tensor: TensorSpec | None) -> Value | None:
        """The committed value of a parameter that had the same dtype and shape, if it held the bytes itself."""
        old = None if tensor is None else self.manifest.entries.get(tensor.name)
        if old is None or tensor is None or old.owner or (old.dtype, old.shape) != (tensor.dtype.name, tensor.shape):
            return None
        return self.manifest.values[old.digest]
