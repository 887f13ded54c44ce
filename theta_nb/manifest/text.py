"""The text form of a manifest; its specification is ``FORMAT.md`` in this folder.

Part 1 has one short line per tensor, sorted by name, for people and for plain ``git diff``. Part 2 says how each value
is rebuilt. A manifest is untrusted input: every number is bounded, every reference resolved and every digest that can
be checked without reading objects is checked here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from theta_nb.errors import CheckpointError, ManifestError
from theta_nb.manifest.memo import Memo
from theta_nb.manifest.model import INLINE_NBYTES, MAX_LINKS, UPDATE_NAME, ChunkRef, Entry, Manifest, Value
from theta_nb.storage.objects import is_oid
from theta_nb.tensors.chunks import chunk_digest, chunk_extents, row_nbytes, storage_digest, tensor_digest
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.spec import TensorSpec, contiguous_strides

__all__ = ["MAX_MANIFEST_NBYTES", "declared_size", "dump", "is_manifest", "parse"]

MAGIC = b"theta-manifest "
VERSION = 1
MAX_MANIFEST_NBYTES = 256 * 2**20
"""Longer texts are refused before they are parsed."""

_PREFIX = 16  # hexadecimal digits of a digest shown where the full one stands elsewhere in the manifest
_MAX_LINES = 2**22
_MAX_INT = 2**62
_MAX_DIMS = 64
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_HEADER_END = re.compile(rb"\n\r?\n")
_SIZE_LINE = re.compile(rb"^size ([0-9]{1,19})\r?$", re.MULTILINE)
# What names escape (see checkpoints/naming.py), so that none reads as another one or moves a terminal's cursor.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_CONFLICT = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")
_VIEW = "view of "
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
    count = Counter(name[:_PREFIX] for name in names)

    def shorten(name: str) -> str:
        return name[:_PREFIX] if count[name[:_PREFIX]] == 1 else name

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
        oids = _Prefixes(self.objects, "object")
        values: dict[bytes, Value] = {}
        for words in self.value_words:
            value = self._value(words, oids)
            if value.digest in values:
                raise ManifestError(f"value {words[1][:_PREFIX]!r} is described twice: lines of two versions are mixed")
            values[value.digest] = value
        digests = _Prefixes((digest.hex() for digest in values), "value")
        manifest = Manifest(
            format=self.headers["format"],
            size=_integer(self.headers["size"]),
            layout=digests[self.headers["layout"]],
            skeleton=digests[self.headers["skeleton"]],
            entries={name: self._entry(name, row, digests) for name, row in self.rows.items()},
            values=values,
            objects=self.objects,
            derived=self.derived,
            recipe=self.headers.get("recipe", ""),
        )
        _check_how(manifest, self.rows)
        _check(manifest, self.memo)
        return manifest

    def _value(self, words: list[str], oids: _Prefixes) -> Value:
        if self.memo is None:
            return _value(words, oids, self.objects)
        return self.memo.value(words, oids.name, self.objects, lambda: _value(words, oids, self.objects))

    def _entry(self, name: str, row: list[str], digests: _Prefixes) -> Entry:
        if self.memo is None or row[4].startswith(_VIEW):
            return _entry(name, row, digests)
        try:
            digest = digests.name(row[3])
        except ManifestError:
            return _entry(name, row, digests)  # which names the first of several faults, as it does without a memo
        return self.memo.entry(row, digest, lambda: _entry(name, row, digests))

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
            index = _integer(number)
            if index in self.derived:
                raise ManifestError(f"derived field {index} occurs twice: lines of two versions are mixed")
            self.derived[index] = _unhex(data)
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
            self.objects[words[1]] = _integer(words[2])
        elif words[0] == "value" and len(words) >= 4:
            self.value_words.append(words)
        else:
            raise ManifestError(f"line {line[:60]!r} is not known", hint="Upgrade theta-nb.")


class _Prefixes:
    """Resolves the unique full name that a prefix stands for; full names stand for themselves."""

    def __init__(self, names: Iterable[str], what: str) -> None:
        self._what = what
        self._names: set[str] = set()
        self._by_prefix: dict[str, str] = {}  # empty where several names begin alike
        for name in names:
            self._names.add(name)
            prefix = name[:_PREFIX]
            self._by_prefix[prefix] = "" if prefix in self._by_prefix else name

    def name(self, prefix: str) -> str:
        found = prefix if prefix in self._names else self._by_prefix.get(prefix)
        if not found:
            raise ManifestError(
                f"{self._what} {prefix[:_PREFIX]!r} is {'not described' if found is None else 'ambiguous'} in the "
                "manifest: lines of two versions are mixed",
                hint="Take the whole file from one version.",
            )
        return found

    def __getitem__(self, prefix: str) -> bytes:
        return bytes.fromhex(self.name(prefix))


def _integer(text: str) -> int:
    if not _DECIMAL.fullmatch(text) or int(text) > _MAX_INT:
        raise ManifestError(f"{text[:30]!r} is not a size")
    return int(text)


def _unhex(text: str) -> bytes:
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
    sizes = tuple(_integer(word) for word in inner.split(",")) if inner else ()
    if len(sizes) > _MAX_DIMS:
        raise ManifestError(f"a shape has {len(sizes)} dimensions, more than {_MAX_DIMS}")
    return sizes


def _entry(name: str, row: list[str], digests: _Prefixes) -> Entry:
    _, dtype, shape, digest, how = row
    if (dtype == "bytes") != name.startswith("@"):
        raise ManifestError(f"parameter {name!r} cannot be of dtype {dtype[:40]!r}")
    if dtype != "bytes":
        dtype_named(dtype)
    if how.startswith(_VIEW):
        if not is_oid(digest):
            raise ManifestError(f"parameter {name!r} has a digest of {len(digest)} digits instead of 64")
        return Entry(name, dtype, _shape(shape), bytes.fromhex(digest), owner=how.removeprefix(_VIEW))
    return Entry(name, dtype, _shape(shape), digests[digest])


def _check_how(manifest: Manifest, rows: Mapping[str, list[str]]) -> None:
    """Check the last column, which people read."""
    for name, entry in manifest.entries.items():
        if not entry.owner and rows[name][4] != manifest.values[entry.digest].update:
            raise ManifestError(
                f"parameter {name!r} is said to be stored as {rows[name][4][:40]!r}: lines of two versions are mixed",
                hint="Take the whole file from one version.",
            )


def _value(words: list[str], oids: _Prefixes, objects: Mapping[str, int]) -> Value:
    digest, update, nbytes = words[1:4]
    if not is_oid(digest):
        raise ManifestError(f"{digest[:30]!r} is not a digest")
    crc32 = b""
    rest = words[4:]
    if rest and rest[0].startswith("crc32:"):
        crc32 = _unhex(rest[0].removeprefix("crc32:"))
        rest = rest[1:]
        if len(crc32) != 4:
            raise ManifestError("a CRC-32 has not 4 bytes")
    chunks = tuple(_chunk(word, oids, objects) for word in rest)
    value = Value(bytes.fromhex(digest), _integer(nbytes), chunks, crc32)
    if update != value.update:
        raise ManifestError(
            f"value {digest[:_PREFIX]!r} is stored as {value.update!r} and listed as {update[:40]!r}",
            hint="Upgrade theta-nb, or take the whole file from one version.",
        )
    return value


def _chunk(word: str, oids: _Prefixes, objects: Mapping[str, int]) -> ChunkRef:
    if word.startswith("x"):
        inline = _unhex(word[1:])
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


def _step(text: str, base: ChunkRef | None, oids: _Prefixes, objects: Mapping[str, int]) -> ChunkRef:
    parts = text.split(":")
    update = "dense" if base is None else parts.pop(0)
    if len(parts) != 4 or not is_oid(parts[0]) or not UPDATE_NAME.fullmatch(update) or (base and update == "dense"):
        raise ManifestError(f"{text[:40]!r} does not describe a chunk")
    oid = oids.name(parts[1])
    offset, length = _integer(parts[2]), _integer(parts[3])
    if length == 0 or offset + length > objects[oid]:
        raise ManifestError(f"a chunk leaves its object {oid[:12]}")
    return ChunkRef(bytes.fromhex(parts[0]), oid, offset, length, update=update, base=base)


def _check(manifest: Manifest, memo: Memo | None) -> None:
    """Check what needs no object: owners, lengths, digests against chunk digests, and that nothing is left over."""
    _check_bytes("the layout", manifest.values[manifest.layout])
    _check_bytes("the skeleton", manifest.values[manifest.skeleton])
    for entry in manifest.entries.values():
        if entry.owner:
            owner = manifest.entries.get(entry.owner)
            if owner is None or owner.owner:
                raise ManifestError(f"parameter {entry.name!r} is a view of {entry.owner!r}, which holds no value")
        elif entry.dtype == "bytes":
            _check_bytes(entry.name, manifest.values[entry.digest])
            if entry.shape != (manifest.values[entry.digest].nbytes,):
                raise ManifestError(f"{entry.name} has another length than its value")
        elif memo is None:
            _check_tensor(entry, manifest.values[entry.digest])
        else:
            value = manifest.values[entry.digest]
            memo.fits(entry, value, partial(_check_tensor, entry, value))
    _check_nothing_is_left(manifest)


def _check_nothing_is_left(manifest: Manifest) -> None:
    # Nobody proves the digest of what nothing refers to, and a merge by lines leaves such lines.
    used = {entry.digest for entry in manifest.entries.values() if not entry.owner}
    used |= {manifest.layout, manifest.skeleton}
    for digest in manifest.values.keys() - used:
        raise ManifestError(f"nothing refers to value {digest.hex()[:_PREFIX]!r}: lines of two versions are mixed")
    for oid in manifest.objects.keys() - {oid for value in manifest.values.values() for oid in value.oids}:
        raise ManifestError(f"nothing refers to object {oid[:12]}: lines of two versions are mixed")


def _check_bytes(name: str, value: Value) -> None:
    if storage_digest(value.nbytes, (chunk.digest for chunk in value.chunks)) != value.digest:
        raise ManifestError(f"the value of {name} does not have the digest it is listed under")
    _check_count(name, value, 1, 1)


def _check_tensor(entry: Entry, value: Value) -> None:
    dtype = dtype_named(entry.dtype)
    spec = TensorSpec(entry.name, dtype, entry.shape, contiguous_strides(entry.shape), 0)
    if dtype.nbytes(spec.numel) != value.nbytes:
        raise ManifestError(f"parameter {entry.name!r}: {value.nbytes} bytes do not fill its shape")
    if tensor_digest(spec, (chunk.digest for chunk in value.chunks)) != value.digest:
        raise ManifestError(f"parameter {entry.name!r}: its value does not have the digest it is listed under")
    _check_count(entry.name, value, row_nbytes(dtype, entry.shape), dtype.itemsize)


def _check_count(name: str, value: Value, row: int, itemsize: int) -> None:
    chunks = iter(value.chunks)
    for extent in chunk_extents(value.nbytes, row, itemsize):
        chunk = next(chunks, None)
        if chunk is None or (not chunk.oid and len(chunk.inline) != extent.nbytes):
            raise ManifestError(f"the value of {name!r} does not have the chunks its length asks for")
    if next(chunks, None) is not None:
        raise ManifestError(f"the value of {name!r} has more chunks than its length asks for")
