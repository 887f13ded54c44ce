"""The message of a merge says how checkpoints were merged, however the commit is made, and only once."""

from __future__ import annotations

import stat

import pytest

from tests.commands.running import said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.hooks.conftest import hook_path, write_hook
from tests.merging.conftest import NAME, recipe_of, weights

LINE = f"Theta-Merge: {NAME}: linear(weight=1, normalize=True)"


def trailers(repo: GitSandbox, rev: str = "HEAD") -> list[str]:
    message = repo("log", "-1", "--format=%(trailers:only,unfold)", rev)
    return [line for line in message.splitlines() if line.startswith("Theta-Merge")]


@pytest.fixture
def averaging(repo: GitSandbox) -> GitSandbox:
    """Branches that both changed a tensor, averaged where they meet."""
    repo("config", "theta.merge.method", "linear")
    return repo


def test_git_merge(averaging: GitSandbox) -> None:
    averaging("merge", "-q", "--no-edit", "theirs")
    assert trailers(averaging) == [LINE]
    assert averaging("log", "-1", "--format=%s").strip() == "Merge branch 'theirs'"
    averaging("commit", "-q", "--amend", "--no-edit")
    assert trailers(averaging) == [LINE]
    said(averaging.path, "replay")


def test_a_one_sided_merge(repo: GitSandbox) -> None:
    repo("switch", "-qc", "apart", "main~1")
    repo.write(NAME, safetensors(weights(5, seed=5)))
    repo("commit", "-qam", "apart")
    repo("switch", "-q", "main")
    repo("merge", "-q", "-m", "together", "apart")
    assert trailers(repo) == [f"Theta-Merge: {NAME}: three-way"]
    assert repo("log", "-1", "--format=%s").strip() == "together"
    assert "6 parameters the same" in said(repo.path, "replay")


def test_in_an_editor(averaging: GitSandbox) -> None:
    editor = write_hook(averaging.path / "editor", 'cp "$1" "$PWD/seen"\n')
    averaging.run("merge", "-q", "--edit", "theirs", env={"GIT_EDITOR": str(editor)})
    seen = (averaging.path / "seen").read_text().splitlines()
    assert LINE in seen
    assert seen.index(LINE) < min(index for index, line in enumerate(seen) if line.startswith("#"))
    assert trailers(averaging) == [LINE]


def test_a_merge_that_is_committed_later(averaging: GitSandbox) -> None:
    averaging("merge", "-q", "--no-commit", "theirs")
    averaging("commit", "-q", "-m", "merged by hand")
    assert trailers(averaging) == [LINE]


def test_a_merge_that_is_given_up_stays_so(averaging: GitSandbox) -> None:
    averaging("merge", "-q", "--no-commit", "theirs")
    head = averaging("rev-parse", "HEAD")
    assert averaging.run("commit", "-q", "-m", "", check=False).returncode != 0
    assert averaging("rev-parse", "HEAD") == head


def test_the_end_of_a_conflict_says_it_once(repo: GitSandbox) -> None:
    assert repo.run("merge", "-q", "--no-edit", "theirs", check=False).returncode == 1
    said(repo.path, "merge", "--continue", "--method", "linear")
    assert trailers(repo) == [LINE]


def test_beside_another_conflict(repo: GitSandbox) -> None:
    """Staged by 'git theta merge --continue', committed by 'git commit' later."""
    for branch in ("theirs", "main"):
        repo("switch", "-q", branch)
        repo.write("notes.txt", branch.encode())
        repo("commit", "-qam", "notes")
    assert repo.run("merge", "-q", "--no-edit", "theirs", check=False).returncode == 1
    assert theta(repo.path, "merge", "--continue", "--method", "linear").status == 1, "the notes are left"
    repo.write("notes.txt", b"both")
    repo("add", "notes.txt")
    repo("commit", "-q", "--no-edit")
    assert trailers(repo) == [LINE]


def test_a_squashed_merge(averaging: GitSandbox) -> None:
    averaging("merge", "-q", "--squash", "theirs")
    averaging("commit", "-q", "--no-edit")
    assert trailers(averaging) == [LINE]
    said(averaging.path, "replay")


@pytest.mark.parametrize("command", ["rebase", "cherry-pick"])
def test_what_is_no_merge_has_none(averaging: GitSandbox, command: str) -> None:
    if command == "rebase":
        averaging("switch", "-q", "theirs")
    averaging(command, "main" if command == "rebase" else "theirs")
    assert trailers(averaging) == []
    assert recipe_of(averaging)
    said(averaging.path, "replay")


def test_a_side_that_is_taken_whole_is_no_merge(repo: GitSandbox) -> None:
    repo.run("merge", "-q", "--no-edit", "theirs", check=False)
    repo("checkout", "--theirs", NAME)
    repo("add", NAME)
    repo("commit", "-q", "--no-edit")
    assert trailers(repo) == []


def test_a_commit_after_the_merge_says_nothing_of_it(averaging: GitSandbox) -> None:
    averaging("merge", "-q", "--no-edit", "theirs")
    averaging.write("notes.txt", b"later")
    averaging("commit", "-qam", "later")
    assert trailers(averaging) == []


def test_a_hook_that_was_there_runs_first(averaging: GitSandbox) -> None:
    hook = hook_path(averaging, "prepare-commit-msg")
    ours = hook.read_text()
    hook.unlink()
    write_hook(hook.with_name("prepare-commit-msg.before-theta"), 'echo "Seen-By: me" >> "$1"\n')
    hook.write_text(ours)
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    averaging("merge", "-q", "--no-edit", "theirs")
    assert trailers(averaging) == [LINE]
    assert "Seen-By: me" in averaging("log", "-1", "--format=%B")
