"""A disk that is full, and two commands at once."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import noise
from tests.git.checks import age, assert_quiet, theta_dir, warnings
from tests.git.objects import assert_sound
from theta_nb.commands.checkout import checkout
from theta_nb.commands.fsck import fsck
from theta_nb.commands.gc import gc
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places
from theta_nb.storage.objects import DirectoryStore

NAME = "m.pt"
MIB = 2**20


@contextmanager
def small_disk(folder: Path, nbytes: int) -> Iterator[None]:
    """A file system of its own, of ``nbytes``, on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mounting_is_possible() -> bool:
    """Whether this user may mount; containers often forbid it even to root."""
    probe = Path("/tmp") / f"theta-probe-{os.getpid()}"
    try:
        with small_disk(probe, MIB):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        if probe.exists():
            probe.rmdir()


needs_mount = pytest.mark.skipif(
    not mounting_is_possible(), reason="no right to mount: see the tests by file size limit"
)


def fill(folder: Path, leave: int) -> Path:
    """Take all room of a disk but ``leave`` bytes."""
    ballast = folder / ".git" / "ballast"
    free = os.statvfs(folder)
    ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))
    return ballast


@pytest.fixture
def on_small_disk(new_repository: Callable[..., GitSandbox], tmp_path: Path) -> Iterator[GitSandbox]:
    """A repository, store and work tree, on a disk of 24 MiB."""
    path = tmp_path / "disk"
    with small_disk(path, 24 * MIB):
        repo = new_repository("disk/repo")
        yield repo


@needs_mount
def test_add_on_a_full_disk_names_the_cause_and_works_once_there_is_room(on_small_disk: GitSandbox) -> None:
    repo = on_small_disk
    data = noise(6 * MIB)
    repo.write(NAME, data)
    index = repo("ls-files", "-s")
    ballast = fill(repo.path, 2 * MIB)
    result = repo.run("add", NAME, check=False)
    assert result.returncode != 0
    (said,) = warnings(result.stderr)
    assert NAME in said
    assert "No space left on device" in said
    assert "Free some" in said
    assert repo("ls-files", "-s") == index
    assert_sound(repo)
    assert list((theta_dir(repo) / "tmp").iterdir()) == [], "temporary files take what room is left"
    ballast.unlink()
    repo("add", NAME)
    repo("commit", "-qm", "there was room")
    assert fsck(find_places(repo.path), all_=True).problems == ()
    assert_quiet(repo)


@needs_mount
def test_content_without_a_file_on_a_full_disk_names_the_cause(on_small_disk: GitSandbox, tmp_path: Path) -> None:
    """What has to be spooled first runs out of room while it is spooled."""
    repo = on_small_disk
    other = tmp_path / "elsewhere.pt"
    other.write_bytes(noise(6 * MIB))
    ballast = fill(repo.path, 2 * MIB)
    command = ["git", "hash-object", "-w", "--stdin", "--path", NAME]
    with other.open("rb") as file:
        result = subprocess.run(command, cwd=repo.path, stdin=file, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    (said,) = warnings(result.stderr)
    assert NAME in said
    assert "No space left on device" in said
    ballast.unlink()
    with other.open("rb") as file:
        subprocess.run(command, cwd=repo.path, stdin=file, capture_output=True, text=True, check=True)


@needs_mount
@pytest.mark.parametrize("leave", [2 * MIB, 6 * MIB + 4096 * 3], ids=["known before", "found out while writing"])
def test_git_theta_checkout_on_a_full_disk_leaves_the_old_file(on_small_disk: GitSandbox, leave: int) -> None:
    repo = on_small_disk
    old, new = noise(MIB, 1), noise(6 * MIB, 2)
    repo.write(NAME, new)
    repo.commit_all("new")
    repo.write(NAME, old)
    repo.commit_all("old")
    ballast = fill(repo.path, leave)
    if leave > 6 * MIB:
        # Somebody else takes the room between the look at the disk and the writing.
        code = """
import os, sys
from theta_nb.commands import work_tree as module
from theta_nb.commands.checkout import checkout
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places
reserve = module._reserve
def late(fd, path, nbytes):
    with open(".git/more", "wb") as file:
        file.write(bytes(3 << 20))
    os.posix_fallocate = lambda *_: None
    module.check_room = lambda *_: None
    reserve(fd, path, nbytes)
module._reserve = late
try:
    checkout(find_places("."), ["m.pt"], source="HEAD~1")
except ThetaError as error:
    sys.exit(str(error))
"""
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=repo.path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 1, result.stderr
        assert f"cannot write {NAME}: No space left on device" in result.stderr
        (repo.path / ".git/more").unlink()
    else:
        with pytest.raises(ThetaError, match=f"{NAME} needs {len(new)} bytes, more than the disk has"):
            checkout(find_places(repo.path), [NAME], source="HEAD~1")
    assert (repo.path / NAME).read_bytes() == old
    assert sorted(path.name for path in repo.path.iterdir()) == [".git", ".gitattributes", NAME]
    assert_quiet(repo)
    ballast.unlink()
    checkout(find_places(repo.path), [NAME], source="HEAD~1")
    assert (repo.path / NAME).read_bytes() == new


@needs_mount
def test_gc_works_on_a_full_disk_and_makes_room(on_small_disk: GitSandbox) -> None:
    repo = on_small_disk
    repo.write(NAME, noise(6 * MIB))
    repo("add", NAME)
    repo("rm", "-q", "-f", NAME)
    fill(repo.path, 0)
    gone = gc(find_places(repo.path), grace_days=0.0)
    assert gone.deleted_bytes > 6 * MIB
    free = os.statvfs(repo.path)
    assert free.f_bavail * free.f_frsize > 5 * MIB


# --- without the right to mount: no file may grow beyond a limit ------------------------------------------------------


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))


def test_an_object_that_may_not_grow_so_large_is_named_and_leaves_nothing_half(repository: GitSandbox) -> None:
    repository.write(NAME, noise(6 * MIB))
    age(repository, [NAME])
    result = subprocess.run(
        ["git", "add", NAME], cwd=repository.path, preexec_fn=limited, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    (said,) = warnings(result.stderr)
    assert "File too large" in said
    assert NAME in said
    assert repository("ls-files", NAME) == ""
    assert_sound(repository)
    assert list((theta_dir(repository) / "tmp").iterdir()) == []
    repository("add", NAME)
    assert fsck(find_places(repository.path)).problems == ()


def test_a_checkpoint_that_may_not_grow_so_large_leaves_the_old_file(repository: GitSandbox) -> None:
    repository.write(NAME, noise(6 * MIB))
    repository.commit_all("large")
    repository.write(NAME, b"small")
    repository.commit_all("small")
    code = "from theta_nb.commands.checkout import checkout; from theta_nb.git.places import find_places\n"
    code += f"checkout(find_places('.'), ['{NAME}'], source='HEAD~1')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository.path,
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"cannot write {NAME}: File too large" in result.stderr
    assert (repository.path / NAME).read_bytes() == b"small"
    assert_quiet(repository)


# --- two at once ------------------------------------------------------------------------------------------------------


def test_two_adds_in_two_work_trees_share_one_store(repository: GitSandbox, tmp_path: Path) -> None:
    repository("worktree", "add", "-q", str(tmp_path / "second"), "-b", "second")
    second = GitSandbox(tmp_path / "second")
    common = noise(5 * MIB, 0)
    contents = {repository: common + noise(MIB, 1), second: common + noise(MIB, 2)}
    for repo, data in contents.items():
        for name in ("a.pt", "b.pt"):
            repo.write(name, data if name == "a.pt" else common)
    processes = [
        subprocess.Popen(["git", "add", "a.pt", "b.pt"], cwd=repo.path, stderr=subprocess.PIPE, text=True)
        for repo in contents
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert_sound(repository)
    for repo, data in contents.items():
        repo("commit", "-qm", "added")
        (repo.path / "a.pt").unlink()
        (repo.path / "b.pt").unlink()
        repo("checkout", "--", ".")
        assert (repo.path / "a.pt").read_bytes() == data
        assert (repo.path / "b.pt").read_bytes() == common
        assert_quiet(repo)
    assert fsck(find_places(repository.path), all_=True).problems == ()
    assert list((theta_dir(repository) / "tmp").iterdir()) == []


def test_a_second_git_command_meets_gits_own_lock_and_nothing_else(repository: GitSandbox) -> None:
    """While another command holds the index, ``git theta checkout`` writes the file and says what is left to do."""
    repository.write(NAME, noise(100_000))
    age(repository, [NAME])  # else the new file may get the inode of the old one in the same second, and be known
    repository.commit_all("one")
    (repository.path / NAME).unlink()
    lock = repository.path / ".git/index.lock"
    lock.touch()
    with pytest.raises(ThetaError, match=r"index\.lock"):
        checkout(find_places(repository.path))
    assert (repository.path / NAME).read_bytes() == noise(100_000)
    lock.unlink()
    checkout(find_places(repository.path))
    assert_quiet(repository)


def test_a_store_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "theta").write_text("a file where the store should be")
    with pytest.raises(ThetaError, match="cannot write object"):
        DirectoryStore(tmp_path / "theta").write(b"weights")
