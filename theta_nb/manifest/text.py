"""The text form of a manifest; its specification is ``FORMAT.md`` in this folder.

Part 1 has one short line per tensor, sorted by name, for people and for plain ``git diff``. Part 2 says how each value
is rebuilt. A manifest is untrusted input: every number is bounded, every reference resolved and every digest that can
be checked without reading objects is checked here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from theta_nb.errors import CheckpointError, ManifestError
from theta_nb.manifest.checks import check, check_how
from theta_nb.manifest.memo import Memo
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value
from theta_nb.manifest.words import PREFIX, VIEW, Prefixes, integer, read_entry, read_value, unhex
from theta_nb.storage.objects import is_oid

__all__ = ["MAX_MANIFEST_NBYTES", "declared_size", "dump", "is_manifest", "parse"]

MAGIC = b"theta-manifest "
VERSION = 1
MAX_MANIFEST_NBYTES = 256 * 2**20
"""Longer texts are refused before they are parsed."""

_MAX_LINES = 2**22
_HEADER_END = re.compile(rb"\n\r?\n")
_SIZE_LINE = re.compile(rb"^size ([0-9]{1,19})\r?$", re.MULTILINE)
# What names escape (see checkpoints/naming.py), so that none reads as another one or moves a terminal's cursor.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_CONFLICT = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")
_HEADERS = frozenset({"format", "size", "layout", "skeleton", "derived", "recipe"})


def is_manifest(head: bytes) -> bool:
    """Whether content that starts with ``head`` is meant to be a manifest, of any version.

    Examples
    --------
    >>> is_manifest(b"theta-manifest 1")
    True
    """
    return head.startswith(MAGIC)


def declared_size(data: bytes) -> int:
    r"""Bytes that the checkpoint has by the header of its manifest, 0 where it does not say; nothing is checked.

    Examples
    --------
    >>> declared_size(b"theta-manifest 1\nformat opaque\nsize 17592186044416\n")
    17592186044416
    """
    end = _HEADER_END.search(data)
    found = _SIZE_LINE.search(data, 0, end.start() + 1 if end else len(data))
    return int(found[1]) if found else 0


# --- writing ----------------------------------------------------------------------------------------------------------


def dump(manifest: Manifest) -> bytes:
    """Text of a manifest: UTF-8, LF line ends, the same bytes for the same manifest."""
    short_digest = _shortener(digest.hex() for digest in manifest.values)
    short_oid = _shortener(manifest.objects)
    lines = [f"theta-manifest {VERSION}", f"format {manifest.format}", f"size {manifest.size}"]
    lines.append(f"layout {short_digest(manifest.layout.hex())}")
    lines.append(f"skeleton {short_digest(manifest.skeleton.hex())}")
    lines += [f"derived {index} {data.hex()}" for index, data in sorted(manifest.derived.items())]
    if manifest.recipe:
        lines.append(f"recipe {manifest.recipe}")
    lines.append("")
    for name in sorted(manifest.entries):
        entry = manifest.entries[name]
        shape = ",".join(map(str, entry.shape))
        digest = entry.digest.hex()
        if entry.owner:
            tail = f"{digest}\tview of {entry.owner}"
        else:
            tail = f"{short_digest(digest)}\t{manifest.values[entry.digest].update}"
        lines.append(f"{name}\t{entry.dtype}\t[{shape}]\t{tail}")
    lines.append("")
    lines += [f"object {oid} {size}" for oid, size in sorted(manifest.objects.items())]
    lines += [_value_line(manifest.values[digest], short_oid) for digest in sorted(manifest.values)]
    lines.append("")
    return "\n".join(lines).encode("utf-8")


def _shortener(names: Iterable[str]) -> Callable[[str], str]:
    """A function that cuts hexadecimal names to a prefix, or leaves them whole where prefixes collide."""
    count = Counter(name[:PREFIX] for name in names)

    def shorten(name: str) -> str:
        return name[:PREFIX] if count[name[:PREFIX]] == 1 else name

    return shorten


def _value_line(value: Value, short_oid: Callable[[str], str]) -> str:
    words = ["value", value.digest.hex(), value.update, str(value.nbytes)]
    if value.crc32:
        words.append(f"crc32:{value.crc32.hex()}")
    for chunk in value.chunks:
        if not chunk.oid:
            words.append(f"x{chunk.inline.hex()}")
        else:
            words.append("+".join(_link(link, short_oid) for link in chunk.links()))
    return " ".join(words)


def _link(ref: ChunkRef, short_oid: Callable[[str], str]) -> str:
    update = "" if ref.base is None else f"{ref.update}:"
    return f"{update}{ref.digest.hex()}:{short_oid(ref.oid)}:{ref.offset}:{ref.length}"


# --- parsing ----------------------------------------------------------------------------------------------------------


def parse(data: bytes, *, source: str = "manifest", memo: Memo | None = None) -> Manifest:
    """Read and check a manifest.

    Parameters
    ----------
    data
        Text, with LF or CRLF line ends.
    source
        What to call it in messages, usually a path.
    memo
        What other manifests of the same checkpoint had, where several are parsed; it changes nothing but the time.

    Returns
    -------
    Manifest
        Closed under its references; every digest agrees with the chunk digests it is made of.

    Raises
    ------
    ManifestError
        If the text is no manifest, needs a newer release, holds conflict markers, or mixes lines of two versions.
    """
    try:
        return _Parser(data, memo).manifest()
    except ManifestError as error:
        raise ManifestError(f"{source}: {error.message}", hint=error.hint) from error
    except CheckpointError as error:
        raise ManifestError(f"{source}: {error.message}") from error


class _Parser:
    """One pass over the lines: header, part 1, part 2; then the references are resolved."""

    def __init__(self, data: bytes, memo: Memo | None = None) -> None:
        self.memo = memo
        if len(data) > MAX_MANIFEST_NBYTES or data.count(b"\n") > _MAX_LINES:
            raise ManifestError(f"{len(data)} bytes are too many for a manifest")
        try:
            self.text = data.replace(b"\r\n", b"\n").decode("utf-8")
        except UnicodeDecodeError:
            raise ManifestError("the manifest is not UTF-8 text") from None
        self.headers: dict[str, str] = {}
        self.derived: dict[int, bytes] = {}
        self.rows: dict[str, list[str]] = {}
        self.objects: dict[str, int] = {}
        self.value_words: list[list[str]] = []

    def manifest(self) -> Manifest:
        self._split()
        missing = [key for key in ("format", "size", "layout", "skeleton") if key not in self.headers]
        if missing:
            raise ManifestError(f"the manifest has no line {missing[0]!r}")
        oids = Prefixes(self.objects, "object")
        values: dict[bytes, Value] = {}
        for words in self.value_words:
            value = self._value(words, oids)
            if value.digest in values:
                raise ManifestError(f"value {words[1][:PREFIX]!r} is described twice: lines of two versions are mixed")
            values[value.digest] = value
        digests = Prefixes((digest.hex() for digest in values), "value")
        manifest = Manifest(
            format=self.headers["format"],
            size=integer(self.headers["size"]),
            layout=digests[self.headers["layout"]],
            skeleton=digests[self.headers["skeleton"]],
            entries={name: self._entry(name, row, digests) for name, row in self.rows.items()},
            values=values,
            objects=self.objects,
            derived=self.derived,
            recipe=self.headers.get("recipe", ""),
        )
        check_how(manifest, self.rows)
        check(manifest, self.memo)
        return manifest

    def _value(self, words: list[str], oids: Prefixes) -> Value:
        if self.memo is None:
            return read_value(words, oids, self.objects)
        return self.memo.value(words, oids.name, self.objects, lambda: read_value(words, oids, self.objects))

    def _entry(self, name: str, row: list[str], digests: Prefixes) -> Entry:
        if self.memo is None or row[4].startswith(VIEW):
            return read_entry(name, row, digests)
        try:
            digest = digests.name(row[3])
        except ManifestError:
            return read_entry(name, row, digests)  # which names the first of several faults, as it does without a memo
        return self.memo.entry(row, digest, lambda: read_entry(name, row, digests))

    def _split(self) -> None:
        lines = self.text.split("\n")
        if lines[0] != f"theta-manifest {VERSION}":
            if lines[0].startswith(MAGIC.decode()):
                raise ManifestError(
                    f"version {lines[0].removeprefix(MAGIC.decode())[:20]!r} of the manifest is not known",
                    hint="Upgrade theta-nb.",
                )
            raise ManifestError("this is not a manifest")
        part = 0
        for line in lines[1:]:
            if line.startswith(_CONFLICT) and "\t" not in line:
                raise ManifestError(
                    "the manifest holds conflict markers of a merge by lines",
                    hint="Take one side ('git checkout --ours PATH' or '--theirs'), or merge again with the drivers "
                    "that 'git theta install' sets up.",
                )
            if part == 3:
                raise ManifestError(
                    f"line {line[:60]!r} stands behind the end", hint="Take the whole file from one version."
                )
            if not line:
                part += 1
            elif part == 0:
                self._header(line)
            elif part == 1:
                self._row(line)
            else:
                self._machine_line(line)
        if part < 3:
            raise ManifestError("the manifest is cut short", hint="Take the whole file from another version.")

    def _header(self, line: str) -> None:
        key, _, rest = line.partition(" ")
        if key not in _HEADERS:
            raise ManifestError(f"header {key[:40]!r} is not known", hint="Upgrade theta-nb.")
        if key == "derived":
            number, _, data = rest.partition(" ")
            index = integer(number)
            if index in self.derived:
                raise ManifestError(f"derived field {index} occurs twice: lines of two versions are mixed")
            self.derived[index] = unhex(data)
        elif key in self.headers:
            raise ManifestError(f"header {key!r} occurs twice: lines of two versions are mixed")
        else:
            self.headers[key] = rest

    def _row(self, line: str) -> None:
        columns = line.split("\t")
        if len(columns) != 5:
            raise ManifestError(f"line {line[:60]!r} has {len(columns)} columns instead of 5")
        if _UNPRINTABLE.search(columns[0]):
            raise ManifestError(f"parameter {columns[0][:60]!r} holds a character that no name has")
        if columns[0] in self.rows:
            raise ManifestError(f"parameter {columns[0]!r} has two lines: two versions are mixed")
        self.rows[columns[0]] = columns

    def _machine_line(self, line: str) -> None:
        words = line.split(" ")
        if words[0] == "object" and len(words) == 3 and is_oid(words[1]):
            if words[1] in self.objects:
                raise ManifestError(f"object {words[1][:12]} is described twice: lines of two versions are mixed")
            self.objects[words[1]] = integer(words[2])
        elif words[0] == "value" and len(words) >= 4:
            self.value_words.append(words)
        else:
            raise ManifestError(f"line {line[:60]!r} is not known", hint="Upgrade theta-nb.")
