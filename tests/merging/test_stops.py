"""Merges, rebases and stashes that git stops at, with more in conflict than one checkpoint."""

from __future__ import annotations

import pytest

from tests.commands.running import said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet
from tests.merging.conftest import AVERAGE, NAME, OURS, THEIRS, content, recipe_of, same, weights
from theta_nb.repository import Repository


def test_continue_commits_what_was_resolved_before(repo: GitSandbox) -> None:
    """The driver has merged the checkpoint, and somebody the notes."""
    for branch in ("theirs", "main"):
        repo("switch", "-q", branch)
        repo.write("notes.txt", f"{branch}\n".encode())
        repo("commit", "-qam", "notes")
    repo("config", "theta.merge.method", "linear")
    assert repo.run("merge", "--no-edit", "theirs", check=False).returncode == 1
    assert repo("status", "--porcelain", "notes.txt", NAME) == f"M  {NAME}\nUU notes.txt\n"
    refused = theta(repo.path, "merge", "--continue")
    assert (refused.status, "no checkpoint is in conflict, but notes.txt is" in refused.err) == (1, True)
    repo.write("notes.txt", b"both\n")
    repo("add", "notes.txt")
    shown = said(repo.path, "merge", "--continue")
    assert shown.split(" ", 1)[1] == "Merge branch 'theirs'\n", "nothing is said of checkpoints that is not true"
    assert same(content(repo), AVERAGE)
    assert repo("log", "-1", "--format=%P").split() == repo("rev-parse", "HEAD~1", "theirs").split()
    assert "Theta-Merge: m.safetensors: linear" in repo("log", "-1", "--format=%B")
    assert_quiet(repo)
    said(repo.path, "replay")


@pytest.mark.parametrize("by", ["git theta merge", "git merge"])
def test_an_octopus_with_a_conflict_of_notes_changes_nothing(repo: GitSandbox, by: str) -> None:
    for branch in ("others", "main"):
        repo("switch", "-q", branch)
        repo.write("notes.txt", f"{branch}\n".encode())
        repo("commit", "-qam", "notes")
    before = repo("rev-parse", "HEAD")
    if by == "git merge":
        repo("config", "theta.merge.method", "linear")
        assert repo.run("merge", "--no-edit", "theirs", "others", check=False).returncode == 2
    else:
        refused = theta(repo.path, "merge", "theirs", "others", "--method", "linear")
        assert refused.status == 1
        assert "git cannot merge notes.txt by itself" in refused.err
        assert "merge them one after the other" in refused.err
    assert repo("rev-parse", "HEAD") == before
    assert repo("status", "--porcelain") == ""
    assert same(content(repo), OURS)
    said(repo.path, "merge", "theirs", "--method", "linear")
    assert same(content(repo), AVERAGE), "one after the other, as it was said"


def test_a_rebase_that_stops_twice_at_two_checkpoints(drivers: GitSandbox) -> None:
    names = ("a.safetensors", "dir/b.safetensors")
    versions = {
        "base": weights(),
        "main": weights(0, 2, seed=4),
        "first": weights(1, 2, seed=2),
        "second": weights(1, 2, 3, seed=3),
    }

    def commit(version: str) -> None:
        for name in names:
            drivers.write(name, safetensors(versions[version]))
        drivers.commit_all(version)

    commit("base")
    drivers("switch", "-qc", "topic")
    commit("first")
    commit("second")
    drivers("switch", "-q", "main")
    commit("main")
    drivers("switch", "-q", "topic")
    quiet = {"GIT_EDITOR": "true", "GIT_SEQUENCE_EDITOR": "true"}
    assert drivers.run("rebase", "-i", "main", check=False, env=quiet).returncode == 1
    refused = theta(drivers.path, "merge", "--continue")
    assert (refused.status, "both sides changed layer.2.weight" in refused.err) == (1, True)
    assert drivers("ls-files", "-u").count("\n") == 6, "both wait"
    for method, last in (("linear", False), ("theirs", True)):
        shown = said(drivers.path, "merge", "--continue", "--method", method)
        assert all(f"{name}: {method}(" in shown for name in names)
        assert "'git rebase --continue' goes on" in shown
        assert drivers.run("rebase", "--continue", check=False, env=quiet).returncode == int(not last)
    assert drivers("log", "--format=%s", "-4").split() == ["second", "first", "main", "base"]
    mean = (versions["main"]["layer.2.weight"] + versions["first"]["layer.2.weight"]) / 2
    for name in names:
        first = Repository(drivers.path).checkpoint(name, rev="HEAD~1")["layer.2.weight"].numpy()
        assert first.tobytes() == mean.tobytes()
        assert content(drivers, name)["layer.2.weight"].tobytes() == versions["second"]["layer.2.weight"].tobytes()
        assert content(drivers, name)["layer.0.weight"].tobytes() == versions["main"]["layer.0.weight"].tobytes()
    assert_quiet(drivers)


def test_a_stash_that_conflicts(repo: GitSandbox) -> None:
    repo("switch", "-q", "--detach", "main~1")
    repo.write(NAME, safetensors(THEIRS))
    repo("stash", "push", "-q")
    repo("switch", "-q", "main")
    assert repo.run("stash", "pop", "-q", check=False).returncode == 1
    assert same(content(repo), OURS)
    shown = said(repo.path, "merge", "--continue", "--method", "linear")
    assert "The result is staged; commit it when you like." in shown
    assert same(content(repo), AVERAGE)
    assert repo("status", "--porcelain") == f"M  {NAME}\n"
    assert repo("stash", "list").count("\n") == 1, "git keeps it until it is dropped"
    repo("commit", "-qm", "by hand")
    assert recipe_of(repo)
    assert "Theta-Merge" not in repo("log", "-1", "--format=%B"), "no merge of commits"
    assert_quiet(repo)
