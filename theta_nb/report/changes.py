"""What changed between two versions, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from theta_nb.engine.compare import compare
from theta_nb.manifest.model import Entry, Manifest

__all__ = ["COLOURS", "change_lines"]

COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "~": "\x1b[36m"}
_RESET = "\x1b[m"
_SHOWN = 60


def change_lines(
    old: Manifest | None, new: Manifest | None, *, colour: bool = False, shown: int = _SHOWN
) -> Iterator[str]:
    """A heading that counts the changes, then one line per parameter: ``+`` added, ``-`` removed, ``~`` changed.

    Parameters
    ----------
    old, new
        Two versions; ``None`` where the file does not exist.
    colour
        Whether to mark signs with ANSI colours.
    shown
        Most lines of parameters; the rest is counted.
    """
    changes = compare(old, new)
    before: Mapping[str, Entry] = old.entries if old is not None else {}
    after: Mapping[str, Entry] = new.entries if new is not None else {}
    yield _heading(old, new)
    signs = {
        **dict.fromkeys(changes.changed, "~"),
        **dict.fromkeys(changes.added, "+"),
        **dict.fromkeys(changes.removed, "-"),
    }
    names = sorted(signs)
    width = max((len(name) for name in names[:shown]), default=0)
    for name in names[:shown]:
        sign = signs[name]
        text = f"{name:<{width}}  {_what(before.get(name), after.get(name))}"
        yield f"{COLOURS[sign]}{sign}{_RESET} {text}" if colour else f"{sign} {text}"
    if len(names) > shown:
        yield f"  … and {len(names) - shown} more"


def _heading(old: Manifest | None, new: Manifest | None) -> str:
    changes = compare(old, new)
    if old is None and new is not None:
        return f"new checkpoint, {len(new.entries)} parameters"
    if new is None and old is not None:
        return f"checkpoint removed, {len(old.entries)} parameters"
    counts = (
        (f"of {len(old.entries) if old else 0} parameters changed", changes.changed),
        ("added", changes.added),
        ("removed", changes.removed),
    )
    parts = [f"{len(names)} {what}" for what, names in counts if names or what.startswith("of")]
    if changes.other:
        parts.append("also what is no tensor (metadata, pickled values)")
    if old is not None and new is not None and old.format != new.format:
        parts.append(f"format {old.format} -> {new.format}")
    return ", ".join(parts)


def _what(old: Entry | None, new: Entry | None) -> str:
    if old is not None and new is not None and (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"{_shape(old)} -> {_shape(new)}"
    entry = new or old
    return _shape(entry) if entry is not None else ""


def _shape(entry: Entry) -> str:
    return f"{entry.dtype} [{','.join(map(str, entry.shape))}]"
