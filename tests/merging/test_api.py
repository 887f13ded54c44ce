"""``Repository.merge``: sessions over commits, and what ``commit`` keeps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet, remove_objects
from tests.merging.conftest import AVERAGE, NAME, OURS, THEIRS, content, same, weights
from theta_nb import Repository, ThetaError
from theta_nb.errors import MergeError


def test_a_session_looks_before_it_leaps(repo: GitSandbox) -> None:
    head = repo("rev-parse", "HEAD")
    session = Repository(repo.path).merge(NAME, "theirs")
    assert session.open == ("layer.2.weight",)
    assert session.preview().counts() == {
        "changed by ours": 2,
        "changed by both": 1,
        "changed by theirs": 1,
        "equal": 2,
    }
    with pytest.raises(MergeError, match="1 parameter waits for a choice"):
        session.commit("too early")
    assert repo("rev-parse", "HEAD") == head
    session.use("average")
    assert same({name: np.asarray(array) for name, array in session.arrays().items()}, AVERAGE)
    commit = session.commit("Average")
    assert commit == repo("rev-parse", "HEAD").strip()
    assert same(content(repo), AVERAGE)
    assert repo("log", "-1", "--format=%s") == "Average\n"
    assert_quiet(repo)


def test_what_has_changed_meanwhile_is_refused(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("linear")
    repo.write("notes.txt", b"more\n")
    repo.commit_all("more")
    with pytest.raises(ThetaError, match="HEAD is another commit"):
        session.commit("late")
    assert repo("log", "-1", "--format=%s") == "more\n"


def test_metrics_that_no_message_can_hold_do_not_stop_it(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("linear")
    session.evaluate(lambda state: {"loss": 0.5, "nothing": float("nan"), "a=b": 1.0, "two\nlines": 2.0})
    session.commit("Measured")
    assert repo("log", "-1", "--format=%(trailers:key=Theta-Metric,valueonly)").split() == ["loss=0.5"]


def test_a_dirty_checkpoint_is_refused_and_kept(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("linear")
    mine = safetensors(weights(5, seed=5))
    repo.write(NAME, mine)
    with pytest.raises(ThetaError, match="has changes that are not committed"):
        session.commit("dirty")
    assert (repo.path / NAME).read_bytes() == mine


def test_names_of_several_inputs(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs", "others")
    assert session.labels == ("ours", "theirs", "others")
    session.use("linear", weight={"ours": 1, "theirs": 0, "others": 0}).commit("ours, really")
    assert content(repo)["layer.2.weight"].tobytes() == OURS["layer.2.weight"].tobytes()
    assert len(repo("log", "-1", "--format=%P").split()) == 3


def test_statistics_of_the_data_are_files(repo: GitSandbox) -> None:
    for name, factor in (("a", 3.0), ("b", 1.0)):
        fisher = {key: np.full_like(value, factor) for key, value in OURS.items()}
        repo.write(f"{name}.safetensors", safetensors(fisher))
    session = Repository(repo.path).merge(NAME, "theirs", statistics=["a.safetensors", "b.safetensors"])
    found = session.use("fisher").arrays()["layer.2.weight"]
    wanted = 0.75 * OURS["layer.2.weight"] + 0.25 * THEIRS["layer.2.weight"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "rev", "said"),
    [
        (NAME, "nowhere", "'nowhere' is no commit here"),
        ("none.pt", "theirs", "none.pt does not exist at HEAD"),
        (NAME, "main", "part of HEAD already"),
        (NAME, "--help", "is no commit here"),
        ("../outside", "theirs", "outside the repository"),
    ],
)
def test_what_cannot_be_merged(repo: GitSandbox, path: str, rev: str, said: str) -> None:
    with pytest.raises(ThetaError, match=said):
        Repository(repo.path).merge(path, rev)


def test_missing_objects_are_fetched_once(repo: GitSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "clone", "-q", "--no-checkout", repo.path, tmp_path / "clone"], check=True)
    clone = GitSandbox(tmp_path / "clone")
    clone("config", "filter.theta.process", "git-theta filter-process")
    clone("config", "filter.theta.required", "true")
    monkeypatch.setenv("GIT_THETA_SKIP_SMUDGE", "1")
    clone("switch", "-q", "main")
    remove_objects(clone)
    from theta_nb.git import download

    fetched = []
    original = download.obtain_objects
    monkeypatch.setattr(
        download, "obtain_objects", lambda *args, **kwargs: (fetched.append(1), original(*args, **kwargs))[1]
    )
    session = Repository(clone.path).merge(NAME, "origin/theirs").use("linear")
    session.preview()
    assert same(
        {name: np.asarray(array) for name, array in session.arrays().items() if "2" in name},
        {name: array for name, array in AVERAGE.items() if "2" in name},
    )
    assert len(fetched) == 1, "the versions were fetched one after the other"


def test_a_failure_half_way_changes_nothing(repo: GitSandbox) -> None:
    session = Repository(repo.path).merge(NAME, "theirs").use("linear")
    head, before = repo("rev-parse", "HEAD"), (repo.path / NAME).read_bytes()
    hook = repo.write(".git/index.lock", b"")  # as if another git were at work
    with pytest.raises(ThetaError):
        session.commit("locked")
    hook.unlink()
    assert (repo("rev-parse", "HEAD"), (repo.path / NAME).read_bytes()) == (head, before)
    assert_quiet(repo)
    session.commit("now")
    assert same(content(repo), AVERAGE)


def test_a_bare_repository_has_nowhere_to_commit(repo: GitSandbox, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", repo.path, tmp_path / "bare"], check=True)
    session = Repository(tmp_path / "bare").merge(NAME, "theirs").use("linear")
    with pytest.raises(ThetaError, match="no work tree"):
        session.commit("bare")


def test_statistics_in_memory_are_refused_since_a_replay_would_lack_them(repo: GitSandbox) -> None:
    with pytest.raises(ThetaError, match="given as files"):
        Repository(repo.path).merge(NAME, "theirs", statistics=[OURS, THEIRS])  # type: ignore[list-item]
