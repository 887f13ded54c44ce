"""``git theta checkout``: what it writes, what it refuses, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ATTRIBUTES, GitSandbox
from tests.git.checkpoints import bias, model
from tests.git.checks import assert_quiet, manifest_text, objects
from tests.git.conftest import NAME, ONE, THREE, TWO
from theta_nb.commands.checkout import CheckedOut, checkout
from theta_nb.errors import CorruptObjectError, ThetaError
from theta_nb.git.places import find_places
from theta_nb.git.process import GitError


def actions(done: list[CheckedOut]) -> dict[str, str]:
    return {item.path: item.action for item in done}


def content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


def files(repo: GitSandbox) -> list[str]:
    """Everything in the work tree but git's own folder."""
    return sorted(
        str(path.relative_to(repo.path))
        for path in repo.path.rglob("*")
        if ".git" not in path.relative_to(repo.path).parts and not path.is_dir()
    )


def leave_manifest(repo: GitSandbox, name: str = NAME) -> None:
    """Have the manifest in the work tree, as after a clone without the objects."""
    (repo.path / name).unlink()
    repo.run("checkout", "--", name, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    assert content(repo, name).startswith(b"theta-manifest 1\n")


@contextmanager
def nothing_changes(repo: GitSandbox) -> Iterator[None]:
    """The block leaves no trace in the work tree and in the index."""

    def picture() -> tuple[list[tuple[str, bytes]], str]:
        return [(name, (repo.path / name).read_bytes()) for name in files(repo)], repo("ls-files", "-s")

    before = picture()
    yield
    assert picture() == before, "the work tree or the index changed"


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_manifest_is_replaced_by_its_checkpoint_and_status_is_quiet(history: GitSandbox) -> None:
    leave_manifest(history)
    done = checkout(find_places(history.path))
    assert done == [CheckedOut(NAME, len(TWO), "written")]
    assert content(history) == TWO
    assert_quiet(history)


def test_a_deleted_file_comes_back(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    assert actions(checkout(find_places(history.path))) == {NAME: "written"}
    assert content(history) == TWO
    assert_quiet(history)


def test_a_folder_that_is_gone_is_made_again(history: GitSandbox) -> None:
    history.write("a/b/m.pt", ONE)
    history.commit_all("deeper")
    (history.path / "a/b/m.pt").unlink()
    (history.path / "a/b").rmdir()
    (history.path / "a").rmdir()
    checkout(find_places(history.path))
    assert content(history, "a/b/m.pt") == ONE
    assert_quiet(history)


def test_what_is_there_already_is_not_written_again(history: GitSandbox) -> None:
    inode = (history.path / NAME).stat().st_ino
    assert actions(checkout(find_places(history.path), [NAME])) == {NAME: "already there"}
    assert (history.path / NAME).stat().st_ino == inode


def test_without_paths_changed_files_are_left_alone(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    assert actions(checkout(find_places(history.path))) == {NAME: "skipped: has changes that are not committed"}
    assert content(history) == THREE


def test_a_manifest_of_another_version_in_the_work_tree_is_no_change_to_keep(history: GitSandbox) -> None:
    history.write(NAME, manifest_text(history, NAME, "one").encode())
    checkout(find_places(history.path), [NAME])
    assert content(history) == TWO
    assert_quiet(history)


def test_a_source_changes_work_tree_and_index_as_git_checkout_does(history: GitSandbox) -> None:
    checkout(find_places(history.path), [NAME], source="one")
    assert content(history) == ONE
    assert history("status", "--porcelain") == f"M  {NAME}\n"
    history("commit", "-qm", "back to one")
    assert_quiet(history)


def test_a_source_brings_a_file_back_that_was_removed(history: GitSandbox) -> None:
    history("rm", "-q", NAME)
    history("commit", "-qm", "gone")
    checkout(find_places(history.path), source="HEAD~1")
    assert content(history) == TWO
    assert history("status", "--porcelain") == f"A  {NAME}\n"


def test_an_unknown_source_is_an_error_and_never_an_option(history: GitSandbox) -> None:
    for source in ("nowhere", "--all", "HEAD:notes.txt"):
        with nothing_changes(history), pytest.raises(GitError, match="is no commit here"):
            checkout(find_places(history.path), [NAME], source=source)


def test_pathspecs_are_relative_to_the_folder_they_are_typed_in(history: GitSandbox) -> None:
    for folder in ("a", "b"):
        history.write(f"{folder}/m.pt", model(7))
    history.commit_all("two more")
    for folder in ("a", "b"):
        (history.path / folder / "m.pt").unlink()
    done = checkout(find_places(history.path / "a"), ["m.pt"])
    assert actions(done) == {"a/m.pt": "written"}
    done = checkout(find_places(history.path / "a"), ["../b"])
    assert actions(done) == {"b/m.pt": "written"}
    (history.path / "b/m.pt").unlink()
    done = checkout(find_places(history.path / "a"))
    assert actions(done)["b/m.pt"] == "written", "without paths the whole repository is meant"


def test_a_source_takes_every_kind_of_pathspec(history: GitSandbox) -> None:
    for name in ("a/m.pt", "a/n.pt", "b/m.pt"):
        history.write(name, model(7))
    history.commit_all("more")
    history("rm", "-qr", "a", "b")
    places = find_places(history.path)
    assert set(actions(checkout(places, ["*/m.pt"], source="HEAD"))) == {"a/m.pt", "b/m.pt"}
    assert set(actions(checkout(places, ["a", ":(exclude)a/m.pt"], source="HEAD"))) == {"a/n.pt"}


def test_a_path_that_names_nothing_tracked_is_an_error(history: GitSandbox) -> None:
    for path in ("nothing.pt", "notes.txt"):
        with pytest.raises(ThetaError, match=f"no tracked checkpoint matches {path}"):
            checkout(find_places(history.path), [path])


def test_odd_names_are_only_names(history: GitSandbox) -> None:
    names = ["with blank.pt", "größe.pt", "-rf.pt", "*.pt", "q'uo\"te.pt", "new\nline.pt", ":(top)m.pt"]
    for name in names:
        history.write(name, model(len(name)))
    history.commit_all("odd names")
    for name in names:
        (history.path / name).unlink()
    assert set(actions(checkout(find_places(history.path)))) == {NAME, *names}
    for name in names:
        assert content(history, name) == model(len(name))
    assert_quiet(history)


@pytest.mark.parametrize("executable", [True, False])
def test_the_executable_bit_is_gits(history: GitSandbox, executable: bool) -> None:
    history("update-index", f"--chmod={'+' if executable else '-'}x", NAME)
    history("commit", "-q", "--allow-empty", "-m", "mode")
    (history.path / NAME).unlink()
    checkout(find_places(history.path))
    assert bool((history.path / NAME).stat().st_mode & 0o111) == executable
    assert_quiet(history)


def test_the_umask_holds(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    old = os.umask(0o027)
    try:
        checkout(find_places(history.path))
    finally:
        os.umask(old)
    assert (history.path / NAME).stat().st_mode & 0o777 == 0o640


def test_a_file_committed_raw_is_skipped_with_a_word(history: GitSandbox) -> None:
    oid = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=history.path, input=ONE, capture_output=True, check=True
    ).stdout.decode()
    history("update-index", "--add", "--cacheinfo", f"100644,{oid.strip()},raw.pt")
    assert actions(checkout(find_places(history.path)))["raw.pt"] == "skipped: not stored by theta-nb"
    assert not (history.path / "raw.pt").exists()


def test_progress_ends_with_everything(history: GitSandbox) -> None:
    seen: list[tuple[int, int]] = []
    (history.path / NAME).unlink()
    checkout(find_places(history.path), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(TWO), len(TWO))


# --- refusing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [None, "one"])
def test_local_changes_are_not_overwritten(history: GitSandbox, source: str | None) -> None:
    history.write(NAME, THREE)
    with nothing_changes(history), pytest.raises(ThetaError, match=r"not committed.*--force"):
        checkout(find_places(history.path), [NAME], source=source)
    checkout(find_places(history.path), [NAME], source=source, force=True)
    assert content(history) == (TWO if source is None else ONE)
    assert history("status", "--porcelain") == ("" if source is None else f"M  {NAME}\n")


def test_an_untracked_file_in_the_way_of_a_source_is_not_overwritten(history: GitSandbox) -> None:
    history("rm", "-q", NAME)
    history("commit", "-qm", "gone")
    history.write(NAME, THREE)
    with nothing_changes(history), pytest.raises(ThetaError, match=r"not committed.*--force"):
        checkout(find_places(history.path), [NAME], source="HEAD~1")


def test_nothing_is_written_if_one_of_several_is_refused(history: GitSandbox) -> None:
    history.write("a.pt", ONE)
    history.commit_all("another")
    (history.path / "a.pt").unlink()
    history.write(NAME, THREE)
    with nothing_changes(history), pytest.raises(ThetaError, match=NAME):
        checkout(find_places(history.path), ["."])


def test_a_conflict_is_left_to_its_person(history: GitSandbox) -> None:
    history("checkout", "-qb", "side", "one")
    history.write(NAME, THREE)
    history("commit", "-qam", "three")
    history.run("merge", "main", check=False)
    assert history("ls-files", "-u").count(NAME) == 3
    (history.path / NAME).unlink()
    with nothing_changes(history):
        assert "conflict" in actions(checkout(find_places(history.path)))[NAME]
    with nothing_changes(history):
        assert "conflict" in actions(checkout(find_places(history.path), [NAME], force=True))[NAME]


def test_a_folder_in_the_way_is_refused(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    (history.path / NAME).mkdir()
    (history.path / NAME / "inside").write_text("mine")
    for force in (False, True):
        with nothing_changes(history), pytest.raises(ThetaError, match=NAME):
            checkout(find_places(history.path), [NAME], force=force)


def test_a_file_in_the_way_of_a_folder_is_refused(history: GitSandbox) -> None:
    history.write("a/m.pt", ONE)
    history.commit_all("deeper")
    (history.path / "a/m.pt").unlink()
    (history.path / "a").rmdir()
    (history.path / "a").write_text("mine")
    with nothing_changes(history), pytest.raises(ThetaError, match=r"a/m.pt"):
        checkout(find_places(history.path), ["a/m.pt"], force=True)


def test_a_symbolic_link_in_place_of_the_file_is_not_followed(history: GitSandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"not yours")
    (history.path / NAME).unlink()
    (history.path / NAME).symlink_to(victim)
    with pytest.raises(ThetaError, match=NAME):
        checkout(find_places(history.path), [NAME])
    checkout(find_places(history.path), [NAME], force=True)
    assert victim.read_bytes() == b"not yours"
    assert not (history.path / NAME).is_symlink()
    assert content(history) == TWO


@pytest.mark.parametrize("target", ["outside", "history-neighbour", "history/elsewhere", "history/.git/hooks"])
def test_a_path_behind_a_symbolic_link_is_refused(history: GitSandbox, tmp_path: Path, target: str) -> None:
    history.write("a/b/m.pt", ONE)
    history.commit_all("deeper")
    (history.path / "a/b/m.pt").unlink()
    (history.path / "a/b").rmdir()
    (history.path / "a").rmdir()
    folder = tmp_path / target
    folder.mkdir(parents=True, exist_ok=True)
    before = sorted(os.listdir(folder))
    (history.path / "a").symlink_to(folder)
    with pytest.raises(ThetaError, match=r"a/b/m.pt.*symbolic link"):
        checkout(find_places(history.path), ["a/b/m.pt"], force=True)
    assert sorted(os.listdir(folder)) == before, "something was made behind the link"


@pytest.mark.parametrize("name", [".git/hooks/post-checkout", "../outside.pt", "a/../../outside.pt", ".GIT/config"])
def test_a_tree_whose_paths_leave_the_work_tree_is_refused(history: GitSandbox, tmp_path: Path, name: str) -> None:
    """git itself refuses such trees, but stores and fetches them."""
    (history.path / ".git/info/attributes").write_text(f"* {ATTRIBUTES}\n")
    tree = history("rev-parse", f"HEAD:{NAME}").strip()
    mode = "100755"
    for part in reversed(name.split("/")):
        entry = f"{mode.lstrip('0')} {part}".encode() + b"\0" + bytes.fromhex(tree)
        tree = history.run("hash-object", "-t", "tree", "--literally", "-w", "--stdin", data=entry).stdout.strip()
        mode = "40000"
    commit = history("commit-tree", tree, "-m", "evil").strip()
    hooks = sorted(os.listdir(history.path / ".git/hooks"))
    config = (history.path / ".git/config").read_bytes()
    with nothing_changes(history), pytest.raises(ThetaError, match=r"no path that git allows|outside repository"):
        checkout(find_places(history.path), source=commit, force=True)
    assert sorted(os.listdir(history.path / ".git/hooks")) == hooks
    assert (history.path / ".git/config").read_bytes() == config
    assert not (tmp_path / "outside.pt").exists()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write to, root included."""
    if os.getuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_folder_is_a_clear_error(history: GitSandbox) -> None:
    history.write("a/m.pt", ONE)
    history.commit_all("deeper")
    try:
        with read_only(history.path / "a"):
            pass
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("root without the right to mount: nothing is read-only here")
    refused = pytest.raises(ThetaError, match=r"cannot write a/m\.pt: (Read-only|Permission)")
    with read_only(history.path / "a"), nothing_changes(history), refused:
        checkout(find_places(history.path), ["a/m.pt"], source="HEAD", force=True)


def test_a_bare_repository_has_nothing_to_check_out_into(new_repository, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    new_repository("origin")
    subprocess.run(["git", "clone", "-q", "--bare", "origin", "bare.git"], cwd=tmp_path, check=True)
    with pytest.raises(ThetaError, match="no work tree"):
        checkout(find_places(tmp_path / "bare.git"))


# --- failing half way -------------------------------------------------------------------------------------------------


def test_a_corrupt_object_leaves_the_old_file(history: GitSandbox) -> None:
    before = objects(history)
    history.write(NAME, model(layer_0_weight=np.ones((16, 16), np.float32)))
    history.commit_all("three")
    store = find_places(history.path).store
    for oid in objects(history) - before:
        path = Path(store.path(oid))
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    history("checkout", "-q", "HEAD~1")
    with nothing_changes(history), pytest.raises(CorruptObjectError, match=r"layer\.0\.weight"):
        checkout(find_places(history.path), [NAME], source="main")


def test_an_interrupted_run_that_wrote_the_file_is_completed_by_the_next(history: GitSandbox) -> None:
    """A run that was killed between the file and the index: git would call the file modified for ever."""
    leave_manifest(history)
    history.write(NAME, TWO)
    assert history("status", "--porcelain") == f" M {NAME}\n"
    assert actions(checkout(find_places(history.path), [NAME])) == {NAME: "already there"}
    assert_quiet(history)


def test_files_that_were_changed_bias_only(history: GitSandbox) -> None:
    """The neighbour of the case above: same length, other content, and not taken for the same."""
    leave_manifest(history)
    history.write(NAME, model(layer_0_bias=bias(9.0)))
    with nothing_changes(history), pytest.raises(ThetaError, match="not committed"):
        checkout(find_places(history.path), [NAME])
