"""Remotes on this machine: verified copies from store to store, without git-lfs."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model
from tests.git.checks import objects, remove_objects, theta_dir
from tests.git.objects import assert_sound, damage, flip, largest, object_path
from tests.transfer.conftest import NAME, TWO
from tests.transfer.objects import lfs_objects, named, needed
from theta_nb.errors import ThetaError
from theta_nb.git.download import fetch_objects, obtain_objects
from theta_nb.git.places import Places, find_places
from theta_nb.git.transfer_outcome import TransferError
from theta_nb.git.upload import absent_there, push_objects

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


@pytest.fixture
def filters_everywhere(isolated_home: Path) -> None:
    """The filter in the user's configuration, so that clones have it from the start."""
    for key, value in (("process", "git-theta filter-process"), ("required", "true")):
        subprocess.run(["git", "config", "--global", f"filter.theta.{key}", value], check=True)


def places(repo: GitSandbox) -> Places:
    return find_places(repo.path)


@pytest.mark.parametrize("spelling", ["{0}", "file://{0}", "../server.git", "{0}/", "../server"])
def test_objects_arrive_where_git_lfs_looks(
    two_versions: GitSandbox, bare: Callable[..., GitSandbox], spelling: str
) -> None:
    server = bare()
    two_versions("remote", "add", "origin", spelling.format(server.path))
    two_versions("push", "-q", "origin", "main")
    assert lfs_objects(server) == set(needed(two_versions))


def test_a_report_counts_and_a_second_push_sends_nothing(
    two_versions: GitSandbox, bare: Callable[..., GitSandbox]
) -> None:
    server = bare()
    wanted = needed(two_versions)
    seen: list[tuple[int, int]] = []
    first = push_objects(places(two_versions), str(server.path), wanted, progress=lambda *x: seen.append(x))
    total = sum(wanted.values())
    assert (first.transferred, first.present, first.nbytes) == (len(wanted), 0, total)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen), "progress never goes back"
    before = {path: path.stat().st_ino for path in server.path.rglob("*")}
    second = push_objects(places(two_versions), str(server.path), wanted)
    assert (second.transferred, second.present, second.nbytes) == (0, len(wanted), 0)
    assert {path: path.stat().st_ino for path in server.path.rglob("*")} == before


def test_from_a_subdirectory(two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    server = bare()
    two_versions("remote", "add", "origin", "../server.git")
    two_versions.write("deep/er/file", b"")
    deep = GitSandbox(two_versions.path / "deep" / "er")
    deep("push", "-q", "origin", "main")
    assert lfs_objects(server) == set(needed(two_versions))


def test_from_a_linked_worktree_and_back_with_plain_git_lfs(
    two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path
) -> None:
    server = bare()
    two_versions("remote", "add", "origin", str(server.path))
    two_versions("worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    tree = GitSandbox(tmp_path / "tree")
    tree.write(NAME, model(7))
    tree.commit_all("in the worktree")
    tree("push", "-q", "origin", "side")
    wanted = needed(two_versions, "side")
    assert lfs_objects(server) == set(wanted)
    plain = GitSandbox(tmp_path / "plain")
    plain.path.mkdir()
    plain("init", "-q")
    plain("remote", "add", "origin", f"file://{server.path}")
    for oid, size in wanted.items():
        plain.write(oid, LFS_POINTER.format(oid, size).encode())
    plain("add", "-A")
    plain("commit", "-qm", "pointers")
    plain("lfs", "fetch", "origin", "HEAD")
    assert lfs_objects(plain) == set(wanted)


@pytest.mark.usefixtures("filters_everywhere")
def test_a_clone_has_the_weights(two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path) -> None:
    server = bare()
    two_versions("push", "-q", str(server.path), "main")
    two_versions("clone", "-q", "-b", "main", str(server.path), str(tmp_path / "clone"))
    assert (tmp_path / "clone" / NAME).read_bytes() == TWO
    clone = GitSandbox(tmp_path / "clone")
    assert objects(clone) == named(two_versions, NAME, "HEAD"), "no more than HEAD needs"
    assert_sound(clone)


@pytest.mark.usefixtures("filters_everywhere")
def test_a_clone_of_a_colleagues_work_tree(two_versions: GitSandbox, tmp_path: Path) -> None:
    two_versions("clone", "-q", str(two_versions.path), str(tmp_path / "clone"))
    assert (tmp_path / "clone" / NAME).read_bytes() == TWO


@pytest.mark.usefixtures("filters_everywhere")
def test_what_was_pushed_into_a_work_tree_is_taken_over(two_versions: GitSandbox, tmp_path: Path) -> None:
    two_versions("clone", "-q", str(two_versions.path), str(tmp_path / "clone"))
    clone = GitSandbox(tmp_path / "clone")
    clone.write(NAME, model(8))
    clone.commit_all("a colleague's")
    clone("push", "-q", "origin", "main:theirs")
    assert lfs_objects(two_versions) - objects(two_versions), "new objects lie with Git LFS"
    two_versions("switch", "-q", "theirs")
    assert (two_versions.path / NAME).read_bytes() == model(8)
    assert objects(two_versions) >= named(two_versions, NAME, "theirs"), "'git lfs prune' must not delete them"


def test_two_remotes(two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    one, two = bare("one.git"), bare("two.git")
    two_versions("remote", "add", "one", str(one.path))
    two_versions("remote", "add", "two", str(two.path))
    two_versions("push", "-q", "one", "HEAD~1:refs/heads/main")
    two_versions("push", "-q", "two", "main")
    assert lfs_objects(one) == set(needed(two_versions, "HEAD~1"))
    assert lfs_objects(two) == set(needed(two_versions, "main"))


def test_every_push_url_gets_the_objects(two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    one, two = bare("one.git"), bare("two.git")
    two_versions("remote", "add", "origin", "https://example.invalid/never.git")
    for server in (one, two):
        two_versions("remote", "set-url", "--add", "--push", "origin", str(server.path))
    two_versions("push", "-q", "origin", "main")
    assert lfs_objects(one) == lfs_objects(two) == set(needed(two_versions))


def test_instead_of(two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    server = bare()
    two_versions("config", f"url.{server.path}.insteadOf", "srv:models")
    two_versions("remote", "add", "origin", "srv:models")
    two_versions("push", "-q", "origin", "main")
    assert lfs_objects(server) == set(needed(two_versions))


def test_a_storage_of_the_servers_choice(
    two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path
) -> None:
    server = bare()
    server("config", "lfs.storage", "elsewhere")
    two_versions("push", "-q", str(server.path), "main")
    found = {path.name for path in (server.path / "elsewhere" / "objects").rglob("*") if path.is_file()}
    assert found == set(needed(two_versions))


@pytest.mark.usefixtures("filters_everywhere")
def test_submodules(two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path) -> None:
    server = bare()
    two_versions("push", "-q", str(server.path), "main")
    outer = GitSandbox(tmp_path / "outer")
    outer.path.mkdir()
    outer("init", "-q")
    outer("-c", "protocol.file.allow=always", "submodule", "add", "-q", "-b", "main", str(server.path), "weights")
    inner = GitSandbox(outer.path / "weights")
    assert (inner.path / NAME).read_bytes() == TWO
    inner.write(NAME, model(6))
    inner.commit_all("in the submodule")
    inner("push", "-q", "origin", "HEAD:main")
    assert lfs_objects(server) >= named(inner, NAME, "HEAD")
    assert not (outer.path / ".git" / "theta" / "objects").exists(), "a submodule has a store of its own"


@pytest.mark.usefixtures("filters_everywhere")
def test_from_a_bare_repository_to_the_next(
    two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path
) -> None:
    one, two = bare("one.git"), bare("two.git")
    two_versions("push", "-q", str(one.path), "main")
    wanted = needed(two_versions)
    report = push_objects(places(one), str(two.path), wanted)
    assert report.transferred == len(wanted)
    assert lfs_objects(two) == set(wanted)


@pytest.mark.usefixtures("filters_everywhere")
def test_borrowed_objects_are_pushed_too(
    two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path
) -> None:
    server = bare()
    two_versions("clone", "-q", "--shared", str(two_versions.path), str(tmp_path / "clone"))
    clone = GitSandbox(tmp_path / "clone")
    assert not objects(clone), "it reads from where it was cloned"
    clone("push", "-q", str(server.path), "main")
    assert lfs_objects(server) == set(needed(two_versions))


def test_a_remote_that_is_the_repository_itself(two_versions: GitSandbox) -> None:
    report = push_objects(places(two_versions), ".", needed(two_versions))
    assert report.transferred == 0
    two_versions("push", "-q", ".", "main:copy")


class TestIncompleteClones:
    """A clone that left the weights out pushes on."""

    @pytest.fixture
    def clone(self, two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path) -> GitSandbox:
        server = bare()
        two_versions("push", "-q", str(server.path), "main")
        two_versions.run(
            "clone", "-q", "-b", "main", str(server.path), str(tmp_path / "clone"), env={"GIT_THETA_SKIP_SMUDGE": "1"}
        )
        repo = GitSandbox(tmp_path / "clone")
        assert not objects(repo)
        return repo

    def test_to_where_it_came_from(self, clone: GitSandbox) -> None:
        report = push_objects(places(clone), "origin", needed(clone))
        assert (report.transferred, report.present) == (0, len(needed(clone)))
        assert not objects(clone), "nothing had to be fetched"

    def test_to_a_second_remote(self, clone: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
        second = bare("second.git")
        clone("remote", "add", "second", str(second.path))
        report = push_objects(places(clone), "second", needed(clone))
        assert report.transferred == len(needed(clone))
        assert lfs_objects(second) == set(needed(clone))

    def test_when_nobody_has_them(
        self, clone: GitSandbox, bare: Callable[..., GitSandbox], two_versions: GitSandbox
    ) -> None:
        second = bare("second.git")
        clone("remote", "add", "second", str(second.path))
        shutil.rmtree(clone.path.parent / "server.git" / "lfs")
        with pytest.raises(TransferError, match="neither here nor on origin") as caught:
            push_objects(places(clone), "second", needed(clone))
        assert set(caught.value.oids) == set(needed(clone))
        assert f"{NAME} at " in str(caught.value), "it names the checkpoint"
        assert not lfs_objects(second)

    def test_fetch_from_the_one_remote_that_has_them(self, clone: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
        clone("remote", "add", "empty", str(bare("empty.git").path))
        clone("config", "branch.main.remote", "empty")
        report = obtain_objects(places(clone), needed(clone))
        assert report.transferred == len(needed(clone))
        assert objects(clone) == set(needed(clone))


class TestDamage:
    """Nothing unsound is sent or taken."""

    def test_a_damaged_object_here(self, two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
        server = bare()
        bad = largest(two_versions)
        flip(two_versions, bad, 100)
        result = two_versions.run("push", str(server.path), "main", check=False)
        assert result.returncode != 0, "the push of the commits fails with the upload"
        assert bad[:12] in result.stderr
        assert NAME in result.stderr
        assert bad not in lfs_objects(server)
        assert not server("for-each-ref"), "no commit went without its objects"
        for path in (server.path / "lfs").rglob("*"):
            assert path.is_dir() or path.name in needed(two_versions), f"{path} was left behind"

    def test_a_damaged_object_there(self, two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
        server = bare()
        two_versions("push", "-q", str(server.path), "main")
        wanted = needed(two_versions)
        bad = max(wanted, key=lambda oid: wanted[oid])
        path = server.path / "lfs" / "objects" / bad[:2] / bad[2:4] / bad
        path.chmod(0o644)
        path.write_bytes(bytes(wanted[bad]))
        remove_objects(two_versions)
        with pytest.raises(TransferError, match=r"1 object on .* is damaged") as caught:
            fetch_objects(places(two_versions), str(server.path), wanted)
        assert caught.value.oids == (bad,)
        assert objects(two_versions) == set(wanted) - {bad}, "what was sound has arrived"
        assert_sound(two_versions)
        assert absent_there(places(two_versions), str(server.path), wanted) == set(), "by its length it is there"
        assert absent_there(places(two_versions), str(server.path), wanted, thorough=True) == {bad}

    def test_another_copy_there_helps(self, two_versions: GitSandbox, tmp_path: Path) -> None:
        shutil.copytree(two_versions.path, tmp_path / "other", symlinks=True)
        other = GitSandbox(tmp_path / "other")
        wanted = needed(two_versions)
        push_objects(places(two_versions), str(two_versions.path), wanted)
        shutil.copytree(theta_dir(other) / "objects", other.path / ".git" / "lfs" / "objects")
        bad = largest(other)
        damage(other, bad, bytes(wanted[bad]))
        remove_objects(two_versions)
        assert fetch_objects(places(two_versions), str(other.path), wanted).transferred == len(wanted)
        assert_sound(two_versions)

    def test_one_that_is_cut_short_counts_as_absent(
        self, two_versions: GitSandbox, bare: Callable[..., GitSandbox]
    ) -> None:
        server = bare()
        wanted = needed(two_versions)
        push_objects(places(two_versions), str(server.path), wanted)
        bad = max(wanted, key=lambda oid: wanted[oid])
        path = server.path / "lfs" / "objects" / bad[:2] / bad[2:4] / bad
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1])
        assert push_objects(places(two_versions), str(server.path), wanted).transferred == 1, "it is sent again"
        assert path.stat().st_size == wanted[bad]


class TestRepositoriesThatCannotBeUsed:
    """Errors say what is wrong and what to do."""

    def push(self, repo: GitSandbox, where: Path | str) -> str:
        with pytest.raises(ThetaError) as caught:
            push_objects(places(repo), str(where), needed(repo))
        return str(caught.value)

    def test_none_there(self, two_versions: GitSandbox, tmp_path: Path) -> None:
        assert "there is no repository at" in self.push(two_versions, tmp_path / "nothing")

    def test_a_plain_folder(self, two_versions: GitSandbox, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        assert "is no git repository" in self.push(two_versions, tmp_path / "plain")

    def test_a_folder_inside_a_repository_is_not_that_repository(self, two_versions: GitSandbox) -> None:
        (two_versions.path / "folder").mkdir()
        assert "is no git repository" in self.push(two_versions, two_versions.path / "folder")

    def test_somebody_elses(
        self, two_versions: GitSandbox, bare: Callable[..., GitSandbox], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = bare()
        wanted, here = needed(two_versions), places(two_versions)
        assert here.store
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        two_versions("config", "--global", "--add", "safe.directory", str(two_versions.path))
        two_versions("config", "--global", "--add", "safe.directory", str(two_versions.path / ".git"))
        with pytest.raises(ThetaError, match="belongs to another user") as caught:
            push_objects(here, str(server.path), wanted)
        assert f"git config --global --add safe.directory {server.path}" in str(caught.value)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_read_only(self, two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
        server = bare()
        (server.path / "lfs").mkdir(mode=0o555)
        assert "You need the right to write there" in self.push(two_versions, server.path)

    def test_a_file_in_the_way(self, two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
        server = bare()
        (server.path / "lfs").write_text("a file")
        assert "cannot write object" in self.push(two_versions, server.path)


class TestPermissions:
    """``core.sharedRepository`` of the remote, and the umask."""

    @pytest.mark.parametrize(
        ("shared", "file", "folder"), [("", 0o400, 0o700), ("group", 0o440, 0o2770), ("all", 0o444, 0o2775)]
    )
    def test_of_new_files_and_folders(
        self, two_versions: GitSandbox, bare: Callable[..., GitSandbox], shared: str, file: int, folder: int
    ) -> None:
        server = bare()
        if shared:
            server("config", "core.sharedRepository", shared)
        wanted = needed(two_versions)
        before = os.umask(0o077)
        try:
            push_objects(places(two_versions), str(server.path), wanted)
        finally:
            os.umask(before)
        oid = next(iter(wanted))
        path = server.path / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(file)
        assert oct(stat.S_IMODE(path.parent.stat().st_mode)) == oct(folder)


def test_without_git_lfs_on_the_path(
    two_versions: GitSandbox, bare: Callable[..., GitSandbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.transfer.programs import path_without_git_lfs

    monkeypatch.setenv("PATH", path_without_git_lfs(tmp_path))
    server = bare()
    wanted = needed(two_versions)
    assert push_objects(places(two_versions), str(server.path), wanted).transferred == len(wanted)
    remove_objects(two_versions)
    assert fetch_objects(places(two_versions), str(server.path), wanted).transferred == len(wanted)
    with pytest.raises(ThetaError, match="git-lfs is not installed") as caught:
        push_objects(places(two_versions), "https://example.org/x.git", wanted)
    assert "apt-get install git-lfs" in str(caught.value)
    assert "\n" not in str(caught.value), "one line"


def test_a_fetch_takes_no_more_than_is_asked_for(two_versions: GitSandbox, tmp_path: Path) -> None:
    shutil.copytree(two_versions.path, tmp_path / "other", symlinks=True)
    other = GitSandbox(tmp_path / "other")
    remove_objects(other)
    wanted = needed(two_versions)
    one = next(iter(wanted))
    report = fetch_objects(places(other), str(two_versions.path), {one: wanted[one], "ab" * 32: 5})
    assert (report.transferred, report.missing) == (1, ("ab" * 32,))
    assert objects(other) == {one}
    assert stat.S_IMODE(object_path(other, one).stat().st_mode) == 0o444
