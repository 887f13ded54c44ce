"""The ``__metadata__`` of safetensors files that are merged: what a result with other tensors than ours still needs."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput

__all__ = ["safetensors_metadata"]


def safetensors_metadata(stored: object) -> dict[str, str] | None:
    """Metadata of an input that is a safetensors file; ``None`` where it is another one, or has none."""
    if isinstance(stored, ManifestInput) and stored.layout.format == "safetensors":
        return _metadata(stored.skeleton())
    if isinstance(stored, FileInput) and stored.layout.format == "safetensors":
        fd = os.open(stored.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            length = struct.unpack("<Q", os.pread(fd, 8, 0))[0]
            return _metadata(os.pread(fd, 8 + min(length, os.fstat(fd).st_size), 0))
        finally:
            os.close(fd)
    return None


def _metadata(head: bytes) -> dict[str, str] | None:
    """From the length and the header at the beginning of a file, which was located before."""
    length = struct.unpack_from("<Q", head)[0]
    found: Any = json.loads(head[8 : 8 + length]).get("__metadata__")
    return found if isinstance(found, dict) else None
