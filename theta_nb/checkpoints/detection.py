"""Finds the format of a file: by its content, and by its name only to say what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from theta_nb.checkpoints import opaque
from theta_nb.checkpoints.formats import BUILTIN, FORMATS, Format
from theta_nb.checkpoints.layout import ByteSource, Layout
from theta_nb.errors import CheckpointError, UnsafeFileError

__all__ = ["format_for_name", "locate"]

_HEAD_NBYTES = 512
_LEGACY_PYTORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before 1.6, as a pickle


def locate(source: ByteSource, name: str) -> Layout:
    """Find the tensors of a checkpoint file, whatever its format.

    Parameters
    ----------
    source
        The file.
    name
        Its path, for messages and where the content fits several formats.

    Returns
    -------
    Layout
        Of format ``"opaque"``, with a warning that says why, if no format can take the file apart.

    Raises
    ------
    UnsafeFileError
        If the file must not even be stored whole.
    CheckpointError
        If it cannot be read.
    """
    head = source.read(0, min(source.size, _HEAD_NBYTES))
    found = _format_of(head, source.size, name)
    if found is None:
        return opaque.locate(source, _why_unknown(head, source.size, name))
    try:
        return found.locate(source)
    except UnsafeFileError:
        raise
    except CheckpointError as error:
        return opaque.locate(source, str(error))


def format_for_name(name: str) -> Format:
    """Format that a new file called ``name`` is written in.

    Raises
    ------
    CheckpointError
        If the ending is no format's.

    Examples
    --------
    >>> format_for_name("model.pt").name
    'pytorch'
    """
    found = next((FORMATS[key] for key in FORMATS if _named_like(name, FORMATS[key])), None)
    if found is None:
        raise CheckpointError(f"no checkpoint format writes {name!r}", hint="Use a .safetensors or .pt file name.")
    return found


def _named_like(name: str, candidate: Format) -> bool:
    return os.path.splitext(name)[1].lower() in candidate.extensions


def _format_of(head: bytes, size: int, name: str) -> Format | None:
    for keys in _rounds():
        fitting = [candidate for candidate in map(FORMATS.__getitem__, keys) if candidate.matches(head, size)]
        if fitting:
            return next((candidate for candidate in fitting if _named_like(name, candidate)), fitting[0])
    return None


def _rounds() -> Iterator[list[str]]:
    """Names of the formats to ask together: built-ins alone first, because finding others scans the installation."""
    yield [key for key in BUILTIN if key != "opaque"]
    yield [key for key in FORMATS if key not in BUILTIN]


def _why_unknown(head: bytes, size: int, name: str) -> str:
    if size == 0:
        return "it is empty"
    if _LEGACY_PYTORCH in head[:32]:
        return "it is in PyTorch's format before 1.6; load it and torch.save it again to have it by layer"
    ending = os.path.splitext(name)[1].lower()
    if ending and any(ending in FORMATS[key].extensions for key in BUILTIN):
        return f"its content is not what the ending {ending} says"
    return "its format is not known"
