"""Cleaning streams: whatever the work-tree file says, the stream is the truth."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.filters import OneTimeStream, clean, clean_stream, rebuild, temporary
from tests.git.checkpoints import (
    Entry,
    bias,
    every_pytorch,
    every_safetensors,
    model,
    noise,
    pytorch,
    safetensors,
    safetensors_of,
)
from theta_nb.checkpoints.layout import FileSource
from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import KnownChunks
from theta_nb.errors import CheckpointError
from theta_nb.manifest.text import dump
from theta_nb.storage.objects import MemoryStore
from theta_nb.tensors.chunks import CHUNK_NBYTES

_W = torch.arange(400.0).reshape(20, 20)
_LONG = safetensors_of([Entry(f"t{i}", "U8", (70_000,), noise(70_000, i)) for i in range(6)])

FILES = {
    "safetensors": model(),
    "safetensors of objects": _LONG,
    "pytorch": pytorch({"w": _W, "v": _W.t(), "n": 3}),
    "opaque": noise(50_000),
    "text": b"a note\n" * 50,
    "empty": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_a_stream_gives_the_manifest_of_the_file(name: str) -> None:
    data = FILES[name]
    expected = dump(clean(data, MemoryStore()))
    for hint in (data, None):
        store = MemoryStore()
        manifest = clean_stream(data, store, hint=hint)
        assert dump(manifest) == expected
        assert rebuild(manifest, store) == data


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _longer(data: bytes) -> bytes:
    return data + b"more"


def _last_byte(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _middle(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"CHANGED" + data[len(data) // 2 + 7 :]


def _inserted(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"INSERTED" + data[len(data) // 2 :]


def _first_bytes_only(data: bytes) -> bytes:
    return data[:10]


CHANGES: Sequence[Callable[[bytes], bytes]] = (_cut, _longer, _last_byte, _middle, _inserted, _first_bytes_only)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("name", [name for name, data in FILES.items() if data])
def test_a_stream_that_is_another_file_than_the_hint_is_stored_as_it_is(
    name: str, change: Callable[[bytes], bytes]
) -> None:
    hint = FILES[name]
    data = change(hint)
    store = MemoryStore()
    manifest = clean_stream(data, store, hint=hint)
    assert rebuild(manifest, store) == data
    # Also the other way round: the work-tree file is the changed one.
    store = MemoryStore()
    manifest = clean_stream(hint, store, hint=data)
    assert rebuild(manifest, store) == hint


@pytest.mark.parametrize("name", ["safetensors", "pytorch"])
def test_values_that_changed_under_the_same_layout_need_no_spooling(name: str) -> None:
    if name == "safetensors":
        hint, data = model(), model(layer_0_bias=bias(1.0))
    else:
        hint, data = pytorch({"w": _W}), pytorch({"w": _W + 1})

    def spool() -> io.BytesIO:
        raise AssertionError("the stream was spooled")

    store = MemoryStore()
    with ThreadPoolExecutor(1) as executor, temporary(hint) as file:
        manifest, _ = Cleaner(store, executor).stream(
            OneTimeStream(data), "m", KnownChunks(), hint=FileSource(file.fileno()), spool=spool
        )
    assert dump(manifest) == dump(clean(data, MemoryStore()))


def test_a_stream_that_ends_differently_after_several_chunks_is_replayed() -> None:
    rows = CHUNK_NBYTES // 4096
    hint = safetensors_of(
        [Entry("a", "U8", (3 * rows, 4096), bytes(3 * CHUNK_NBYTES)), Entry("b", "U8", (9,), b"unchanged")]
    )
    data = hint[:-9] + b"truncated"[:4]
    store = MemoryStore()
    manifest = clean_stream(data, store, hint=hint)
    assert manifest.format == "opaque", "a safetensors file that is cut short cannot be taken apart"
    assert rebuild(manifest, store) == data


def test_replay_needs_no_written_object_for_what_was_known_before() -> None:
    hint = _LONG
    store = MemoryStore()
    known = KnownChunks([clean(hint, store)])
    data = hint[:-70_000] + b"another end"
    manifest = clean_stream(data, store, hint=hint, known=known)
    assert rebuild(manifest, store) == data


_KINDS = [*every_safetensors().values(), *every_pytorch().values()]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_KINDS), st.sampled_from(_KINDS), st.data())
def test_any_stream_with_any_hint_is_stored_as_it_is(one: bytes, other: bytes, draw: st.DataObject) -> None:
    position = draw.draw(st.integers(0, min(len(one), len(other))))
    data = one[:position] + other[position:] + draw.draw(st.binary(max_size=3))
    store = MemoryStore()
    manifest = clean_stream(data, store, hint=one)
    assert rebuild(manifest, store) == data
    assert dump(manifest) == dump(clean(data, MemoryStore())), "the manifest depends on the hint"


# --- files that change while they are read ----------------------------------------------------------------------------


class _ChangingStore(MemoryStore):
    """A store that, when it is first written to, does something to the file that is being cleaned."""

    def __init__(self, change: Callable[[], object]) -> None:
        super().__init__()
        self._change: Callable[[], object] | None = change

    def write(self, data: bytes | bytearray | memoryview) -> str:
        if self._change is not None:
            self._change()
            self._change = None
        return super().write(data)


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"overwrites")
    os.utime(path, (1, 1))


def _truncate(path: Path) -> None:
    os.truncate(path, 100)


@pytest.mark.parametrize("change", [_append, _overwrite, _truncate], ids=lambda change: change.__name__.strip("_"))
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "m.safetensors"
    # Larger than what is in flight, so that the change comes before the end was read.
    path.write_bytes(
        safetensors_of([Entry(f"t{i}", "U8", (CHUNK_NBYTES,), bytes([i]) * CHUNK_NBYTES) for i in range(8)])
    )
    store = _ChangingStore(lambda: change(path))
    with (
        path.open("rb") as file,
        ThreadPoolExecutor(1) as executor,
        pytest.raises(CheckpointError, match=r"m\.safetensors"),
    ):
        Cleaner(store, executor).file(file.fileno(), "m.safetensors", KnownChunks())


def test_a_file_that_is_replaced_by_a_rename_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    data = _LONG
    path.write_bytes(data)

    def replace() -> None:
        (tmp_path / "new").write_bytes(b"another file")
        os.replace(tmp_path / "new", path)

    store = _ChangingStore(replace)
    with path.open("rb") as file, ThreadPoolExecutor(1) as executor:
        manifest, _ = Cleaner(store, executor).file(file.fileno(), "m.safetensors", KnownChunks())
    assert rebuild(manifest, store) == data


# --- digests without writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_without_writing_the_digests_are_the_same_and_the_store_stays_empty(name: str) -> None:
    store = MemoryStore()
    with temporary(FILES[name]) as file, ThreadPoolExecutor(1) as executor:
        manifest, _ = Cleaner(store, executor, write=False).file(file.fileno(), "m", KnownChunks())
    assert list(store) == []
    assert manifest.same_content(clean(FILES[name], MemoryStore()))


def test_progress_adds_up_to_the_tensors(tmp_path: Path) -> None:
    steps: list[int] = []
    with temporary(FILES["safetensors"]) as file, ThreadPoolExecutor(1) as executor:
        manifest, layout = Cleaner(MemoryStore(), executor).file(file.fileno(), "m", KnownChunks(), steps.append)
    assert sum(steps) == sum(storage.nbytes for storage in layout.storages)
    assert manifest.size > sum(steps)


def test_a_failing_store_fails_the_clean_and_leaves_no_thread_at_work() -> None:
    class FullStore(MemoryStore):
        def write(self, data: bytes | bytearray | memoryview) -> str:
            raise OSError(28, "No space left on device")

    with temporary(_LONG) as file, ThreadPoolExecutor(2) as executor, pytest.raises(OSError, match="No space"):
        Cleaner(FullStore(), executor).file(file.fileno(), "m", KnownChunks())


def test_a_stream_that_fails_midway_fails_the_clean() -> None:
    class Broken:
        def __init__(self) -> None:
            self._left = io.BytesIO(_LONG[: len(_LONG) // 2])

        def readinto(self, dest: memoryview) -> int:
            count = self._left.readinto(dest)
            if count < len(dest):
                raise OSError(5, "Input/output error")
            return count

    with (
        temporary(_LONG) as file,
        ThreadPoolExecutor(1) as executor,
        pytest.raises(OSError, match="Input/output error"),
    ):
        Cleaner(MemoryStore(), executor).stream(
            Broken(), "m", KnownChunks(), hint=FileSource(file.fileno()), spool=tempfile.TemporaryFile
        )


def test_tied_values_of_two_files_are_the_same_value() -> None:
    one = clean(safetensors({"a": bias(1.0), "b": bias(1.0)}), MemoryStore())
    assert one.entries["a"].digest == one.entries["b"].digest
    assert len({entry.digest for entry in one.entries.values()}) == 1
