"""What every object store keeps to: subclass :class:`StoreContract` to try one of your own.

::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from theta_nb.errors import CorruptObjectError, MissingObjectError
from theta_nb.storage.objects import ObjectStore, is_oid

ABSENT = "ab" * 32


def read(store: ObjectStore, oid: str, offset: int = 0, nbytes: int | None = None) -> bytes:
    """A stretch of an object; to its end by default."""
    if nbytes is None:
        size = store.size(oid)
        assert size is not None
        nbytes = size - offset
    out = bytearray(nbytes)
    store.read_into(oid, offset, memoryview(out))
    return bytes(out)


class StoreContract:
    """Tests that need a fixture ``store``: an empty, writable store."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """An empty store."""
        raise NotImplementedError("the subclass gives the store")

    @pytest.mark.parametrize(
        "data", [b"", b"x", b"weights", bytes(70_000), bytes(range(256)) * 9000], ids=lambda data: str(len(data))
    )
    def test_an_object_is_named_by_its_sha256_and_read_back(self, store: ObjectStore, data: bytes) -> None:
        oid = store.write(data)
        assert oid == hashlib.sha256(data).hexdigest()
        assert store.size(oid) == len(data)
        assert read(store, oid) == data
        assert list(store) == [oid]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer_can_be_written_and_changed_afterwards(self, store: ObjectStore, kind: type) -> None:
        buffer = bytearray(b"weights")
        oid = store.write(kind(buffer))
        buffer[:] = b"changed"
        assert read(store, oid) == b"weights"

    def test_a_part_of_an_object_is_read(self, store: ObjectStore) -> None:
        oid = store.write(b"0123456789")
        assert read(store, oid, 3, 4) == b"3456"
        assert read(store, oid, 10, 0) == b""

    @pytest.mark.parametrize(("offset", "nbytes"), [(0, 11), (5, 6), (10, 1), (2**40, 1)])
    def test_reading_behind_the_end_is_a_corrupt_object(self, store: ObjectStore, offset: int, nbytes: int) -> None:
        oid = store.write(b"0123456789")
        with pytest.raises(CorruptObjectError) as caught:
            read(store, oid, offset, nbytes)
        assert caught.value.oid == oid

    def test_an_absent_object_has_no_size_and_cannot_be_read(self, store: ObjectStore) -> None:
        assert store.size(ABSENT) is None
        with pytest.raises(MissingObjectError) as caught:
            read(store, ABSENT, 0, 1)
        assert caught.value.oids == (ABSENT,)

    def test_writing_again_is_the_same_object(self, store: ObjectStore) -> None:
        assert store.write(b"weights") == store.write(bytearray(b"weights"))
        assert len(list(store)) == 1

    def test_a_deleted_object_is_absent_and_can_be_written_again(self, store: ObjectStore) -> None:
        oid = store.write(b"weights")
        other = store.write(b"others")
        store.delete(oid)
        assert store.size(oid) is None
        assert list(store) == [other]
        assert store.write(b"weights") == oid
        assert read(store, oid) == b"weights"

    def test_deleting_what_is_absent_is_no_error(self, store: ObjectStore) -> None:
        store.delete(ABSENT)

    def test_objects_are_listed_while_they_are_deleted(self, store: ObjectStore) -> None:
        oids = {store.write(bytes([i])) for i in range(20)}
        seen = set()
        for oid in store:
            seen.add(oid)
            store.delete(oid)
        assert seen == oids
        assert list(store) == []

    def test_freshening_changes_nothing_that_is_read(self, store: ObjectStore) -> None:
        oid = store.write(b"weights")
        store.freshen(oid)
        store.freshen(ABSENT)
        assert read(store, oid) == b"weights"
        assert list(store) == [oid]

    def test_threads_may_write_and_read_at_once(self, store: ObjectStore) -> None:
        # Every object is written by several threads: equal content is no conflict.
        contents = [bytes([i % 10]) * 5000 for i in range(80)]
        with ThreadPoolExecutor(8) as executor:
            oids = list(executor.map(store.write, contents))
            assert list(executor.map(lambda oid: read(store, oid), oids)) == contents
        assert len(list(store)) == 10
        assert all(is_oid(oid) for oid in store)
