"""Errors that cross layers.

Every error of the package is a :class:`ThetaError`. Its message is one sentence that names the thing
(file, parameter, object) and, in ``hint``, the next step. Edges (command line, filter, notebook) print
``str(error)``; nothing else formats errors.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CheckpointError",
    "CorruptObjectError",
    "ManifestError",
    "MergeError",
    "MissingObjectError",
    "NotTrackedError",
    "ThetaError",
    "UnknownWordError",
    "UnsafeFileError",
    "count",
    "listed",
]


class ThetaError(Exception):
    """Base of every error that theta-nb raises on purpose.

    Parameters
    ----------
    message
        What went wrong, naming the file, parameter or object.
    hint
        The next step for the reader, as an imperative sentence; may be empty.

    Examples
    --------
    >>> str(ThetaError("model.pt is not tracked", hint="Run 'git theta track model.pt'."))
    "model.pt is not tracked. Run 'git theta track model.pt'."
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        return f"{self.message.rstrip('.')}. {self.hint}"


class CheckpointError(ThetaError):
    """A checkpoint file cannot be read as the format it claims to be."""


class UnsafeFileError(CheckpointError):
    """A checkpoint file lies in a way that makes even storing it as opaque bytes unsafe."""


class ManifestError(ThetaError):
    """A manifest is malformed, mixed from two versions, or needs a newer release."""


class MergeError(ThetaError):
    """A merge cannot be done as asked: the message names the method, the parameter or the tensor."""


class NotTrackedError(ThetaError):
    """A path is not handled by the theta filter."""


class MissingObjectError(ThetaError):
    """Objects that a manifest refers to are in no store at hand.

    Parameters
    ----------
    message, hint
        As for :class:`ThetaError`.
    oids
        SHA-256 names of the missing objects, in hexadecimal.
    """

    def __init__(self, message: str, *, oids: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.oids = oids


class CorruptObjectError(ThetaError):
    """An object's bytes do not decode to the value that its manifest names.

    Parameters
    ----------
    message, hint
        As for :class:`ThetaError`.
    oid
        SHA-256 name of the corrupt object, or ``None`` where the value was inline.
    """

    def __init__(self, message: str, *, oid: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.oid = oid


class UnknownWordError(ThetaError):
    """A word is neither a commit nor a file.

    Parameters
    ----------
    word
        As it was typed.
    """

    def __init__(self, word: str) -> None:
        super().__init__(
            f"{word!r} is neither a commit nor a file here",
            hint="Write '--' before paths that exist in history only; 'git log' shows commits.",
        )
        self.word = word


def count(number: int, noun: str) -> str:
    """A number with its noun.

    Examples
    --------
    >>> count(1, "tensor"), count(20_000, "tensor")
    ('1 tensor', '20,000 tensors')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str], separator: str = ", ", *, most: int = 3) -> str:
    """The first few of some names or sentences, and how many there are beside, for a message.

    Examples
    --------
    >>> listed(["a", "b"])
    'a, b'
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = separator.join(items[:most])
    if len(items) <= most:
        return shown
    joint = " " if separator == ", " else separator
    return f"{shown}{joint}and {len(items) - most:,} more"
