"""The words and columns that the lines of a manifest are made of, each checked as it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from theta_nb.errors import ManifestError
from theta_nb.manifest.model import INLINE_NBYTES, MAX_LINKS, UPDATE_NAME, ChunkRef, Entry, Value
from theta_nb.storage.objects import is_oid
from theta_nb.tensors.chunks import chunk_digest
from theta_nb.tensors.dtypes import dtype_named

__all__ = ["PREFIX", "VIEW", "Prefixes", "integer", "read_entry", "read_value", "unhex"]

PREFIX = 16
"""Hexadecimal digits of a digest shown where the full one stands elsewhere in the manifest."""

VIEW = "view of "

_MAX_INT = 2**62
_MAX_DIMS = 64
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class Prefixes:
    """Resolves the unique full name that a prefix stands for; full names stand for themselves."""

    def __init__(self, names: Iterable[str], what: str) -> None:
        self._what = what
        self._names: set[str] = set()
        self._by_prefix: dict[str, str] = {}  # empty where several names begin alike
        for name in names:
            self._names.add(name)
            prefix = name[:PREFIX]
            self._by_prefix[prefix] = "" if prefix in self._by_prefix else name

    def name(self, prefix: str) -> str:
        """The full name.

        Raises
        ------
        ManifestError
            If none begins so, or several do.
        """
        found = prefix if prefix in self._names else self._by_prefix.get(prefix)
        if not found:
            raise ManifestError(
                f"{self._what} {prefix[:PREFIX]!r} is {'not described' if found is None else 'ambiguous'} in the "
                "manifest: lines of two versions are mixed",
                hint="Take the whole file from one version.",
            )
        return found

    def __getitem__(self, prefix: str) -> bytes:
        return bytes.fromhex(self.name(prefix))


def integer(text: str) -> int:
    """A size: decimal digits without a sign or a leading zero.

    Examples
    --------
    >>> integer("17")
    17
    """
    if not _DECIMAL.fullmatch(text) or int(text) > _MAX_INT:
        raise ManifestError(f"{text[:30]!r} is not a size")
    return int(text)


def unhex(text: str) -> bytes:
    """Bytes in lower-case hexadecimal."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if data.hex() != text:
        raise ManifestError(f"{text[:30]!r} is not hexadecimal")
    return data


def _shape(text: str) -> tuple[int, ...]:
    if not (text.startswith("[") and text.endswith("]")):
        raise ManifestError(f"{text[:40]!r} is not a shape")
    inner = text[1:-1]
    sizes = tuple(integer(word) for word in inner.split(",")) if inner else ()
    if len(sizes) > _MAX_DIMS:
        raise ManifestError(f"a shape has {len(sizes)} dimensions, more than {_MAX_DIMS}")
    return sizes


def read_entry(name: str, row: list[str], digests: Prefixes) -> Entry:
    """The tensor that a line of part 1 describes, given its five columns."""
    _, dtype, shape, digest, how = row
    if (dtype == "bytes") != name.startswith("@"):
        raise ManifestError(f"parameter {name!r} cannot be of dtype {dtype[:40]!r}")
    if dtype != "bytes":
        dtype_named(dtype)
    if how.startswith(VIEW):
        if not is_oid(digest):
            raise ManifestError(f"parameter {name!r} has a digest of {len(digest)} digits instead of 64")
        return Entry(name, dtype, _shape(shape), bytes.fromhex(digest), owner=how.removeprefix(VIEW))
    return Entry(name, dtype, _shape(shape), digests[digest])


def read_value(words: list[str], oids: Prefixes, objects: Mapping[str, int]) -> Value:
    """The value that a line of part 2 describes, given its words."""
    digest, update, nbytes = words[1:4]
    if not is_oid(digest):
        raise ManifestError(f"{digest[:30]!r} is not a digest")
    crc32 = b""
    rest = words[4:]
    if rest and rest[0].startswith("crc32:"):
        crc32 = unhex(rest[0].removeprefix("crc32:"))
        rest = rest[1:]
        if len(crc32) != 4:
            raise ManifestError("a CRC-32 has not 4 bytes")
    chunks = tuple(_chunk(word, oids, objects) for word in rest)
    value = Value(bytes.fromhex(digest), integer(nbytes), chunks, crc32)
    if update != value.update:
        raise ManifestError(
            f"value {digest[:PREFIX]!r} is stored as {value.update!r} and listed as {update[:40]!r}",
            hint="Upgrade theta-nb, or take the whole file from one version.",
        )
    return value


def _chunk(word: str, oids: Prefixes, objects: Mapping[str, int]) -> ChunkRef:
    if word.startswith("x"):
        inline = unhex(word[1:])
        if len(inline) > INLINE_NBYTES:
            raise ManifestError(f"an inline chunk has {len(inline)} bytes, more than {INLINE_NBYTES}")
        return ChunkRef(chunk_digest(inline), inline=inline)
    ref: ChunkRef | None = None
    steps = word.split("+")
    if len(steps) > MAX_LINKS:
        raise ManifestError(f"a chain of {len(steps)} updates is longer than {MAX_LINKS}")
    for step in steps:
        ref = _step(step, ref, oids, objects)
    if ref is None:
        raise ManifestError("a chunk is not described")
    return ref


def _step(text: str, base: ChunkRef | None, oids: Prefixes, objects: Mapping[str, int]) -> ChunkRef:
    parts = text.split(":")
    update = "dense" if base is None else parts.pop(0)
    if len(parts) != 4 or not is_oid(parts[0]) or not UPDATE_NAME.fullmatch(update) or (base and update == "dense"):
        raise ManifestError(f"{text[:40]!r} does not describe a chunk")
    oid = oids.name(parts[1])
    offset, length = integer(parts[2]), integer(parts[3])
    if length == 0 or offset + length > objects[oid]:
        raise ManifestError(f"a chunk leaves its object {oid[:12]}")
    return ChunkRef(bytes.fromhex(parts[0]), oid, offset, length, update=update, base=base)
