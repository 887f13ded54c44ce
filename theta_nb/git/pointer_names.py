"""What the pointer files of a checkpoint are called: after its tensors, on any file system.

Where two branches are merged, git merges their pointer files one by one. So a file is called after a tensor only if it
stands for this tensor and nothing else: another object under that name means that the tensor changed. What several
values share is called after the object itself, and comes and goes with it.
"""

from __future__ import annotations

import hashlib
import re

from theta_nb.manifest.model import Manifest

__all__ = ["pointer_names"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._@+-]")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)
_MOST_LETTERS = 80


def pointer_names(manifest: Manifest) -> dict[str, str]:
    """Object by name of its pointer file: the tensor that it holds, or ``@packed-`` and its own name.

    Names of tensors are somebody's text: what is not safe on every file system is replaced, and a digest added.
    """
    labels = [(entry.name, entry.digest) for name, entry in sorted(manifest.entries.items()) if not entry.owner]
    labels += [("@layout", manifest.layout), ("@skeleton", manifest.skeleton)]
    known = {digest for _, digest in labels}
    labels += [("@base", digest) for digest in sorted(manifest.values.keys() - known)]
    users: dict[str, str] = {}
    for label, digest in labels:
        chunks = manifest.values[digest].chunks
        for number, ref in enumerate(chunks):
            place = label if len(chunks) == 1 else f"{label}.{number}"
            for step, link in enumerate(ref.links()):
                if not link.oid:
                    continue
                if (link.offset, link.length) != (0, manifest.objects[link.oid]):
                    users.setdefault(link.oid, "@packed")
                else:
                    users.setdefault(link.oid, f"{place}.{link.update}.{step}" if step else place)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for oid, label in users.items():
        name = _file_name(f"{label}-{oid[:16]}" if label.startswith("@") else label, taken)
        taken.add(name.casefold())
        names[name] = oid
    return names


def _file_name(label: str, taken: set[str]) -> str:
    name = _UNSAFE.sub("_", label[: 2 * _MOST_LETTERS])
    safe = 0 < len(name) <= _MOST_LETTERS and name == label and name[0] not in ".-" and name[-1] != "."
    if safe and not _DEVICES.match(name) and name.casefold() not in taken:
        return name
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()
    kept = "_" + name[:_MOST_LETTERS].strip(".-") if name[:1] in ("", ".", "-") or _DEVICES.match(name) else name
    lengths = range(8, len(digest) + 1)
    return next(f for n in lengths if (f := f"{kept[:_MOST_LETTERS]}-{digest[:n]}").casefold() not in taken)
