"""What was compared."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Side"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions that were compared.

    Parameters
    ----------
    path
        Path of the checkpoint in the repository, or of a file; empty for state in memory.
    label
        What a person calls it: ``"HEAD~1"``, ``"work tree"``, ``"index"``, ``"memory"``.
    exists
        Whether there is such a file.
    format
        Name of the file format; empty where there is no file.
    size
        Length of the file in bytes.
    parameters
        Number of parameter groups.
    """

    path: str
    label: str
    exists: bool = True
    format: str = ""
    size: int = 0
    parameters: int = 0

    def __str__(self) -> str:
        return f"{self.path} ({self.label})" if self.path and self.label else self.path or self.label
