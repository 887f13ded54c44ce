"""Keeping a session: what would happen, what is in the way, and commits on branches of their own."""

from __future__ import annotations

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet
from tests.merging.conftest import AVERAGE, NAME, content, same, weights
from theta_nb import Repository, ThetaError
from theta_nb.commands.merge import open_conflicts
from theta_nb.commands.merge_wishes import Wishes
from theta_nb.errors import MergeError
from theta_nb.git.merge_rehearsal import rehearse, surroundings
from theta_nb.git.places import find_places


def state_of(repo: GitSandbox) -> tuple[str, str, int]:
    """Everything that a rehearsal must not change."""
    objects = sum(1 for path in (repo.path / ".git" / "theta" / "objects").rglob("*") if path.is_file())
    return repo("for-each-ref"), repo("status", "--porcelain"), objects


def test_a_rehearsal_says_what_would_come_and_keeps_nothing(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs")
    with pytest.raises(MergeError, match="waits for a choice"):
        rehearse(session)
    session.use("linear")
    before = state_of(repo)
    seen: list[tuple[int, int]] = []
    found = rehearse(session, progress=lambda done, total: seen.append((done, total)))
    assert (found.tensors, found.changed, found.files) == (6, 2, ("theirs.txt",))
    assert found.nbytes == (repo.path / NAME).stat().st_size
    assert seen[-1][0] == seen[-1][1]
    assert state_of(repo) == before
    around = surroundings(session)
    assert (around.path, around.branch, around.problem, around.message) == (NAME, "main", "", "Merge branch 'theirs'")
    assert set(around.branches) == {"main", "theirs", "others"}


def test_a_branch_of_its_own_leaves_everything_else_alone(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("linear")
    mine = safetensors(weights(5, seed=5))
    repo.write(NAME, mine)
    repo.write("notes.txt", b"being written\n")
    repo("add", "notes.txt")
    head, status = repo("rev-parse", "HEAD"), repo("status", "--porcelain")
    assert "something is staged" in surroundings(session).problem
    assert rehearse(session, branch="merged").changed == 2
    seen: list[tuple[int, int]] = []
    commit = session.commit("Average", branch="merged", progress=lambda *numbers: seen.append(numbers))
    assert repo("rev-parse", "merged").strip() == commit
    assert repo("log", "-1", "--format=%P", "merged").split() == repo("rev-parse", "main", "theirs").split()
    assert (repo("rev-parse", "HEAD"), repo("status", "--porcelain")) == (head, status)
    assert (repo.path / NAME).read_bytes() == mine
    assert seen
    repo("stash", "-q")
    repo("switch", "-q", "merged")
    assert same(content(repo), AVERAGE)
    assert_quiet(repo)


@pytest.mark.parametrize(
    ("branch", "said"),
    [("theirs", "a branch 'theirs' already"), ("a..b", "cannot be the name"), ("-D", "cannot be the name")],
)
def test_names_that_no_new_branch_can_have(repo: GitSandbox, branch: str, said: str) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("linear")
    before = repo("for-each-ref")
    with pytest.raises(ThetaError, match=said):
        session.commit("no", branch=branch)
    with pytest.raises(ThetaError, match=said):
        rehearse(session, branch=branch)
    assert repo("for-each-ref") == before


def test_a_head_that_moved_is_said(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("linear")
    repo.write("notes.txt", b"more\n")
    repo.commit_all("more")
    assert "HEAD is no longer" in surroundings(session).problem
    with pytest.raises(ThetaError, match="Commit to a new branch"):
        rehearse(session)
    session.commit("still", branch="late")
    repo("switch", "-q", "late")
    assert same(content(repo), AVERAGE)


def test_a_conflict_of_git_has_its_branch(repo: GitSandbox) -> None:
    repo.run("merge", "theirs", check=False)
    [session] = open_conflicts(find_places(repo.path), Wishes()).values()
    around = surroundings(session)
    assert (around.in_conflict, around.problem) == (True, "")
    assert around.message.startswith("Merge branch 'theirs'")
    session.use("linear")
    assert rehearse(session).changed == 2
    with pytest.raises(ThetaError, match="ends on the current branch"):
        session.commit("no", branch="other")
    session.commit("yes")
    assert "is in conflict no more" in surroundings(session).problem
    assert same(content(repo), AVERAGE)
    assert_quiet(repo)


def test_a_session_of_files_has_nowhere_to_go() -> None:
    import numpy as np

    from theta_nb.engine.merging.inputs import StateInput
    from theta_nb.engine.merging.session import MergeSession

    one = {"w": np.ones(2, np.float32)}
    with pytest.raises(MergeError, match="nowhere to commit"):
        surroundings(MergeSession(None, [StateInput("ours", one), StateInput("theirs", one)]))


def test_a_saved_session_is_reopened(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("ties", density=0.5).use("linear")
    session.evaluate(lambda state: 0.5)
    session.save(str(repo.path / "merge.json"))
    again = Repository(repo.path).merge(NAME, "theirs", reopen="merge.json")
    assert (again.settings, len(again.tries)) == (session.settings, 1)
    assert again.undo().settings.default.method == "ties"  # type: ignore[union-attr]
    with pytest.raises(MergeError, match=r"session of other checkpoints \(ours [0-9a-f]{40}, theirs"):
        Repository(repo.path).merge(NAME, "others", reopen=repo.path / "merge.json")
    repo("commit", "--amend", "-qm", "another name for the same weights")
    assert Repository(repo.path).merge(NAME, "theirs", reopen="merge.json").settings == session.settings
