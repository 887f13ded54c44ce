"""The stores that come with theta-nb."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from tests.contracts.store_contract import ABSENT, StoreContract, read
from theta_nb.errors import CorruptObjectError, MissingObjectError, ThetaError
from theta_nb.storage.objects import DirectoryStore, MemoryStore, ObjectStore, is_oid


class TestMemoryStore(StoreContract):
    """In memory."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


class TestDirectoryStore(StoreContract):
    """In a folder that does not exist yet."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return DirectoryStore(tmp_path / "a" / "theta")


class TestDirectoryStoreThatBorrows(StoreContract):
    """With alternates that are empty, absent and no folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_bytes(b"")
        alternates = [str(tmp_path / name) for name in ("empty", "absent", "file")]
        return DirectoryStore(tmp_path / "theta", alternates=alternates, fsync=False)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "theta")


# --- names ------------------------------------------------------------------------------------------------------------

NO_NAMES = [
    "",
    "a" * 63,
    "a" * 65,
    "A" * 64,
    "g" * 64,
    "../" * 21 + "a",
    "/" + "a" * 63,
    "a" * 63 + "\n",
    "a" * 64 + "\n",
    "é" * 64,
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_never_becomes_a_path(store: DirectoryStore, name: str) -> None:
    assert not is_oid(name)
    for use in (store.path, store.find, store.size, store.delete, lambda oid: read(store, oid, 0, 1)):
        with pytest.raises(ThetaError):
            use(name)


def test_objects_lie_where_git_lfs_has_them(store: DirectoryStore) -> None:
    oid = store.write(b"weights")
    assert store.path(oid) == str(store.root / "objects" / oid[:2] / oid[2:4] / oid)
    assert Path(store.path(oid)).read_bytes() == b"weights"


# --- the folder -------------------------------------------------------------------------------------------------------


def test_objects_are_read_only_files(store: DirectoryStore) -> None:
    mode = os.stat(store.path(store.write(b"weights"))).st_mode
    assert stat.S_IMODE(mode) == 0o444


def test_no_temporary_file_stays(store: DirectoryStore) -> None:
    for i in range(5):
        store.write(bytes([i]))
    assert list((store.root / "tmp").iterdir()) == []


def test_strangers_in_the_folder_are_not_listed(store: DirectoryStore) -> None:
    oid = store.write(b"weights")
    folder = Path(store.path(oid)).parent
    (folder / "notes.txt").write_bytes(b"")
    (folder / ABSENT).write_bytes(b"in the wrong folder")
    (folder / f"{oid}.tmp").write_bytes(b"")
    (store.root / "objects" / "README").write_bytes(b"")
    (store.root / "objects" / "zz").mkdir()
    assert list(store) == [oid]


def test_an_empty_store_lists_nothing_and_makes_no_folder(store: DirectoryStore) -> None:
    assert list(store) == []
    assert store.size(ABSENT) is None
    assert not store.root.exists()


@pytest.mark.parametrize("length", [0, 3])
def test_a_half_written_object_is_written_anew(store: DirectoryStore, length: int) -> None:
    oid = hashlib.sha256(b"weights").hexdigest()
    path = Path(store.path(oid))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights"[:length])
    with pytest.raises(CorruptObjectError):
        read(store, oid, 0, 7)
    assert store.write(b"weights") == oid
    assert read(store, oid) == b"weights"


def test_a_full_disk_is_named_and_leaves_nothing(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    # There is no full disk at hand; everything around the failing call is real.
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ThetaError, match="No space left on device") as caught:
            store.write(b"weights")
    assert "Free some disk space" in str(caught.value)
    assert list(store) == []
    assert list((store.root / "tmp").iterdir()) == []


def test_a_write_in_pieces_is_completed(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
        oid = store.write(b"0123456789")
    assert read(store, oid) == b"0123456789"


@pytest.mark.parametrize("place", ["objects", "tmp"])
def test_a_folder_that_cannot_be_made_is_a_clear_error(store: DirectoryStore, place: str) -> None:
    store.root.mkdir(parents=True)
    (store.root / place).write_bytes(b"a file in the way")
    with pytest.raises(ThetaError, match="cannot write object"):
        store.write(b"weights")


# --- alternates -------------------------------------------------------------------------------------------------------


@pytest.fixture
def lender(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "lender")


@pytest.fixture
def borrower(tmp_path: Path, lender: DirectoryStore) -> DirectoryStore:
    return DirectoryStore(tmp_path / "borrower", alternates=[str(lender.root / "objects")])


def test_borrowed_objects_are_read_and_not_copied(lender: DirectoryStore, borrower: DirectoryStore) -> None:
    oid = lender.write(b"weights")
    assert borrower.size(oid) == 7
    assert borrower.find(oid) == lender.path(oid)
    assert read(borrower, oid, 2, 3) == b"igh"
    assert borrower.write(b"weights") == oid
    assert list(borrower) == [], "the borrower lists, and so would collect, what is not its own"
    assert not (borrower.root / "objects").exists()


def test_borrowed_objects_are_never_deleted(lender: DirectoryStore, borrower: DirectoryStore) -> None:
    oid = lender.write(b"weights")
    borrower.delete(oid)
    assert lender.size(oid) == 7


def test_nothing_is_written_to_the_lender(lender: DirectoryStore, borrower: DirectoryStore) -> None:
    oid = borrower.write(b"mine")
    assert lender.size(oid) is None
    assert read(borrower, oid) == b"mine"


def test_an_object_cut_short_in_the_lender_is_written_here(lender: DirectoryStore, borrower: DirectoryStore) -> None:
    oid = lender.write(b"weights")
    path = Path(lender.path(oid))
    path.chmod(0o644)
    path.write_bytes(b"wei")
    assert borrower.write(b"weights") == oid
    assert read(borrower, oid) == b"weights"


def test_what_no_store_has_is_missing(borrower: DirectoryStore) -> None:
    with pytest.raises(MissingObjectError):
        read(borrower, ABSENT, 0, 1)
