"""Files that no format can take apart: stored whole, chunked and restored, but not by layer."""

from __future__ import annotations

from theta_nb.checkpoints.formats import FileFormat
from theta_nb.checkpoints.layout import ByteSource, Layout, Storage

__all__ = ["FORMAT", "locate"]


def locate(source: ByteSource, reason: str = "") -> Layout:
    """One storage for the whole file.

    Parameters
    ----------
    source
        The file.
    reason
        Why it cannot be taken apart, as the end of a sentence.

    Examples
    --------
    >>> import io, os, tempfile
    >>> from theta_nb.checkpoints.layout import FileSource
    >>> with tempfile.TemporaryFile() as file:
    ...     _ = file.write(b"anything"), file.flush()
    ...     layout = locate(FileSource(file.fileno()), "it is a note")
    >>> layout.storages[0].nbytes, layout.warnings
    (8, ('stored whole, not by layer: it is a note',))
    """
    warnings = (f"stored whole, not by layer: {reason}",) if reason else ()
    return Layout("opaque", source.size, (Storage(0, source.size),), warnings=warnings)


def matches(head: bytes, size: int) -> bool:
    """Every file can be stored whole."""
    return True


FORMAT = FileFormat("opaque", (), matches, locate)
