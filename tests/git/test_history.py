"""Commands that rewrite or walk history: the checkpoint moves with its commits and no value is lost."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model
from tests.git.checks import assert_quiet, digests, manifest_text, objects
from tests.git.conftest import NAME, ONE, THREE, TWO

FOUR = model(layer_0_bias=bias(3.0))


def _content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


@pytest.fixture
def branches(history: GitSandbox) -> GitSandbox:
    """``main`` at ``two`` changed the note once more; ``tune`` has two further versions of the checkpoint."""
    history("switch", "-qc", "tune")
    for tag, data in (("three", THREE), ("four", FOUR)):
        history.write(NAME, data)
        history("commit", "-qam", tag)
        history("tag", tag)
    history("switch", "-q", "main")
    history.write("notes.txt", b"main goes on\n")
    history("commit", "-qam", "notes")
    return history


def test_a_fast_forward_merge_brings_the_checkpoint(history: GitSandbox) -> None:
    history("switch", "-qc", "tune")
    history.write(NAME, THREE)
    history("commit", "-qam", "three")
    history("switch", "-q", "main")
    assert _content(history) == TWO
    history("merge", "-q", "--ff-only", "tune")
    assert _content(history) == THREE
    assert_quiet(history)


def test_a_merge_where_one_side_changed_the_checkpoint(branches: GitSandbox) -> None:
    branches("merge", "-q", "-m", "merge", "tune")
    assert _content(branches) == FOUR
    assert branches("rev-parse", f"HEAD:{NAME}") == branches("rev-parse", f"four:{NAME}")
    assert_quiet(branches)


def test_a_squash_merge_stores_nothing_new(branches: GitSandbox) -> None:
    before = objects(branches)
    branches("merge", "-q", "--squash", "tune")
    branches("commit", "-qm", "squashed")
    assert branches("rev-parse", f"HEAD:{NAME}") == branches("rev-parse", f"four:{NAME}")
    assert objects(branches) == before
    branches("branch", "-qD", "tune")
    assert_quiet(branches)


@pytest.mark.parametrize("backend", ["--merge", "--apply"])
def test_rebase_carries_the_versions_over(branches: GitSandbox, backend: str) -> None:
    branches("switch", "-q", "tune")
    branches("rebase", "-q", backend, "main")
    for rev, old in (("HEAD~1", "three"), ("HEAD", "four")):
        assert branches("rev-parse", f"{rev}:{NAME}") == branches("rev-parse", f"{old}:{NAME}"), rev
    assert _content(branches) == FOUR
    assert _content(branches, "notes.txt") == b"main goes on\n"
    assert_quiet(branches)


def test_an_interactive_rebase_can_stop_at_a_version_and_change_it(branches: GitSandbox) -> None:
    branches("switch", "-q", "tune")
    branches.run("rebase", "-q", "-i", "two", env={"GIT_SEQUENCE_EDITOR": "sed -i 1s/^pick/edit/"})
    assert _content(branches) == THREE
    branches.write("notes.txt", b"while stopped\n")
    branches("commit", "-q", "-a", "--amend", "--no-edit")
    branches("rebase", "--continue")
    assert _content(branches) == FOUR
    assert_quiet(branches)


def test_an_aborted_rebase_leaves_everything_as_it_was(branches: GitSandbox) -> None:
    branches("switch", "-q", "tune")
    before = branches("rev-parse", "HEAD")
    branches.run("rebase", "-q", "-i", "two", env={"GIT_SEQUENCE_EDITOR": "sed -i 1s/^pick/edit/"})
    branches("rebase", "--abort")
    assert branches("rev-parse", "HEAD") == before
    assert _content(branches) == FOUR
    assert_quiet(branches)


def test_cherry_pick_of_a_version(branches: GitSandbox) -> None:
    branches("cherry-pick", "three")
    assert _content(branches) == THREE
    assert_quiet(branches)


def test_revert_brings_the_old_version_without_storing_it_again(history: GitSandbox) -> None:
    before = objects(history)
    history("revert", "--no-edit", "two")
    assert _content(history) == ONE
    assert history("rev-parse", f"HEAD:{NAME}") == history("rev-parse", f"one:{NAME}")
    assert objects(history) == before
    assert_quiet(history)


def test_a_patch_series_of_manifests_applies(branches: GitSandbox) -> None:
    patches = branches("format-patch", "--stdout", "main..tune")
    # The objects lie in the store already, as after 'git theta push'.
    branches.run("am", "-q", "--3way", data=patches.encode("utf-8", "surrogateescape"))
    assert _content(branches) == FOUR
    assert_quiet(branches)


def test_bisect_run_finds_the_version_that_broke(branches: GitSandbox) -> None:
    branches("switch", "-q", "tune")
    branches.write("notes.txt", b"five\n")
    branches("commit", "-qam", "five")
    script = branches.path.parent / "is_good.py"
    good = (ONE, TWO, THREE)
    (branches.path.parent / "good").mkdir()
    for i, data in enumerate(good):
        (branches.path.parent / "good" / str(i)).write_bytes(data)
    script.write_text(
        "import pathlib, sys\n"
        "good = [p.read_bytes() for p in (pathlib.Path(__file__).parent / 'good').iterdir()]\n"
        f"sys.exit(pathlib.Path({NAME!r}).read_bytes() not in good)\n"
    )
    branches("bisect", "start", "HEAD", "one~1")
    found = branches("bisect", "run", "sh", "-c", f"test ! -e {NAME} || python3 {script}")
    assert f"{branches('rev-parse', 'four').strip()} is the first bad commit" in found
    branches("bisect", "reset")
    assert_quiet(branches)


def test_tags_keep_versions_when_branches_go(branches: GitSandbox) -> None:
    branches("tag", "-a", "v1", "-m", "best so far", "three")
    branches("branch", "-qD", "tune")
    branches("checkout", "-q", "v1")
    assert _content(branches) == THREE
    assert_quiet(branches)


def test_git_gc_loses_nothing(branches: GitSandbox) -> None:
    before = objects(branches)
    branches("gc", "-q", "--prune=now")
    assert objects(branches) == before
    for rev, data in (("one", ONE), ("two", TWO), ("three", THREE), ("four", FOUR)):
        branches("checkout", "-q", rev)
        assert _content(branches) == data, rev
    assert_quiet(branches)


def test_git_lfs_prune_loses_nothing_of_ours(history: GitSandbox) -> None:
    history("lfs", "install", "--local", "--skip-repo")
    history.write(".gitattributes", (history.path / ".gitattributes").read_bytes() + b"*.bin filter=lfs -text\n")
    history.write("plain.bin", b"an ordinary large file, first version\n")
    history.commit_all("plain lfs beside ours")
    history.write("plain.bin", b"an ordinary large file, second version\n")
    history.write(NAME, THREE)
    history("commit", "-qam", "both changed")
    assert manifest_text(history, "plain.bin").startswith("version https://git-lfs")
    before = objects(history)
    # Everything counts as pushed and old, so Git LFS deletes all that it thinks is its own.
    history("-c", "lfs.fetchrecentrefsdays=0", "-c", "lfs.pruneoffsetdays=0", "lfs", "prune", "--force")
    assert objects(history) == before
    for rev, data in (("one", ONE), ("two", TWO), ("main", THREE)):
        history("checkout", "-q", rev, "--", NAME)
        assert _content(history) == data, rev


def test_two_filters_serve_one_checkout(history: GitSandbox) -> None:
    history("lfs", "install", "--local", "--skip-repo")
    history.write(".gitattributes", (history.path / ".gitattributes").read_bytes() + b"*.bin filter=lfs -text\n")
    history.write("plain.bin", b"an ordinary large file\n")
    history.commit_all("plain lfs beside ours")
    history("checkout", "-q", "one")
    history("checkout", "-q", "main")
    assert _content(history) == TWO
    assert _content(history, "plain.bin") == b"an ordinary large file\n"
    assert_quiet(history)


def test_history_rewriting_by_commands_keeps_every_version(branches: GitSandbox) -> None:
    env = {"FILTER_BRANCH_SQUELCH_WARNING": "1"}
    branches.run("filter-branch", "-f", "--msg-filter", "sed s/^/x:/", "--", "tune", env=env)
    branches("update-ref", "-d", "refs/original/refs/heads/tune")
    branches("checkout", "-q", "tune~1")
    assert _content(branches) == THREE
    branches("checkout", "-q", "tune")
    assert _content(branches) == FOUR
    assert_quiet(branches)


# --- hooks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["hooks", "core.hooksPath"])
def test_hooks_of_the_user_run_and_see_what_they_would_see(history: GitSandbox, where: str) -> None:
    folder = history.path / ".git" / "hooks"
    if where == "core.hooksPath":
        folder = history.path.parent / "my hooks"
        history("config", "core.hooksPath", str(folder))
    folder.mkdir(exist_ok=True)
    hook = folder / "pre-commit"
    seen = history.path.parent / "seen"
    hook.write_text(f"#!/bin/sh\ngit diff --cached --name-only >'{seen}'\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    history.write(NAME, THREE)
    history("commit", "-qam", "three")
    assert seen.read_text() == f"{NAME}\n"
    assert hook.read_text().startswith("#!/bin/sh\ngit diff"), "the user's hook was rewritten"
    assert_quiet(history)


def test_a_command_under_trace_works_the_same(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history.run("commit", "-qam", "three", env={"GIT_TRACE": "1", "GIT_TRACE_PACKET": "1"})
    assert_quiet(history)
    assert history("rev-parse", f"HEAD:{NAME}") != history("rev-parse", f"two:{NAME}")


def test_a_language_other_than_english_changes_nothing(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    subprocess.run(
        ["git", "commit", "-qam", "three"], cwd=history.path, env={**os.environ, "LANGUAGE": "de"}, check=True
    )
    assert digests(history, NAME, "HEAD") != digests(history, NAME, "two")
    assert_quiet(history)
