"""The Python API: names, staging, commits, status, checkouts, and where it may be called from."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import git
import numpy as np
import pytest
import torch
from safetensors.numpy import save as safetensors_bytes

import theta_nb
from theta_nb import Repository, ThetaError
from theta_nb.errors import MissingObjectError, NotTrackedError
from theta_nb.git.commits import metrics_in
from theta_nb.git.process import GitError, child_environment

FILE = "model.safetensors"


def weights(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {
        "encoder.weight": rng.normal(size=(40, 16)).astype("f4"),
        "encoder.bias": rng.normal(size=16).astype("f4"),
        "head.weight": rng.normal(size=(16, 16)).astype("f4"),
    }


def model(seed: int = 0, **changed: np.ndarray[Any, Any]) -> bytes:
    return safetensors_bytes(weights(seed) | {name.replace("_", "."): value for name, value in changed.items()})


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Repositories that tests copy instead of making them anew."""
    return {"folder": tmp_path_factory.mktemp("made-once")}


@pytest.fixture
def two_versions(repository: Any, made_once: dict[str, Path]) -> Any:
    """A repository with two commits of ``model.safetensors``; only the head differs."""
    original = made_once["folder"] / "two-versions"
    if original.exists():
        shutil.rmtree(repository.path)
        shutil.copytree(original, repository.path)
        return repository
    repository.write(FILE, model())
    repository.commit_all("one")
    repository.write(FILE, model(head_weight=np.full((16, 16), 7, "f4")))
    repository.commit_all("two")
    shutil.copytree(repository.path, original)
    return repository


def _names(checkpoint: Mapping[str, object]) -> list[str]:
    return sorted(checkpoint)


# --- finding the repository -------------------------------------------------------------------------------------------


def test_a_fresh_repository_from_the_first_line_to_the_way_back(tmp_path: Path, isolated_home: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    repo = theta_nb.Repository(tmp_path)
    tracked = repo.track("*.safetensors")
    assert [change.action for change in tracked.patterns] == ["added"]
    first, second = model(0), model(1)
    (tmp_path / FILE).write_bytes(first)
    assert repo.add(FILE).added == (FILE,)
    one = repo.commit("First weights", metrics={"val_loss": 0.31})
    (tmp_path / FILE).write_bytes(second)
    repo.add(FILE)
    two = repo.commit("Second weights")
    assert two.parents == (one,)
    assert one.message == "First weights\n\nTheta-Metric: val_loss=0.31"
    assert [item.action for item in repo.checkout(FILE, rev=one.hexsha)] == ["written"]
    assert (tmp_path / FILE).read_bytes() == first, "the first version comes back bit for bit"
    assert repo.git.git.diff("--cached", "--name-only") == FILE, "a checkout from a commit is staged, as git's own is"
    np.testing.assert_array_equal(repo.checkpoint(FILE, rev="HEAD")["head.weight"].numpy(), weights(1)["head.weight"])
    assert repo.fsck().problems == ()


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(lambda top: str(top / "sub" / "deep"), id="text of a subdirectory"),
        pytest.param(lambda top: top / FILE, id="path of a file"),
        pytest.param(lambda top: top, id="path of the top"),
    ],
)
def test_any_path_inside_the_work_tree_finds_it(two_versions: Any, start: Callable[[Path], Any]) -> None:
    (two_versions.path / "sub" / "deep").mkdir(parents=True)
    assert Repository(start(two_versions.path)).path == two_versions.path


@pytest.mark.parametrize("where", ["elsewhere", "missing/folder"])
def test_no_repository_says_so(tmp_path: Path, isolated_home: Path, where: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ThetaError, match=r"is not inside a git repository|is not a folder"):
        Repository(tmp_path / where)


@pytest.mark.parametrize("name", ["a\nb", "a\nGIT_DIR", "a\nGIT_DIR\n"])
def test_a_line_break_in_the_path_is_refused(tmp_path: Path, isolated_home: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    with pytest.raises(ThetaError, match="has a line break in it"):
        Repository(folder)


def test_text_names_from_the_top_and_a_path_points_from_here(
    two_versions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sub = two_versions.path / "sub"
    two_versions.write("sub/model.safetensors", model(5))
    monkeypatch.chdir(sub)
    repo = Repository(".")
    assert repo.add("sub/model.safetensors").added == ("sub/model.safetensors",)
    repo.commit("sub")
    top, below = weights(0)["encoder.bias"], weights(5)["encoder.bias"]
    np.testing.assert_array_equal(repo.checkpoint(FILE, "HEAD")["encoder.bias"].numpy(), top)
    np.testing.assert_array_equal(repo.checkpoint(Path(FILE), "HEAD")["encoder.bias"].numpy(), below)
    np.testing.assert_array_equal(repo.checkpoint(Path("..") / FILE)["encoder.bias"].numpy(), top)
    np.testing.assert_array_equal(repo.checkpoint(sub / FILE)["encoder.bias"].numpy(), below)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../outside.safetensors", id="text that leaves"),
        pytest.param("sub/../../outside.safetensors", id="text that leaves later"),
        pytest.param("/etc/model.safetensors", id="absolute text"),
        pytest.param(Path("/etc/model.safetensors"), id="path elsewhere"),
    ],
)
def test_files_outside_the_repository_are_refused(two_versions: Any, name: str | Path) -> None:
    repo = Repository(two_versions.path)
    calls: list[Callable[[], object]] = [
        lambda: repo.add(name),
        lambda: repo.checkout(name),
        lambda: repo.checkpoint(name),
        lambda: repo.checkpoint(name, "HEAD"),
        lambda: repo.save(weights(), name, message="no"),
    ]
    for call in calls:
        with pytest.raises(ThetaError, match="outside the repository"):
            call()


def test_a_path_through_a_symbolic_link_to_the_work_tree(two_versions: Any, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(two_versions.path)
    assert _names(Repository(link).checkpoint(link / FILE, "HEAD")) == sorted(weights())


@pytest.mark.parametrize(
    "name", ["mit leerzeichen.safetensors", "größe 权重.safetensors", "*.safetensors", "-rf.pt.safetensors"]
)
def test_names_are_literal(repository: Any, name: str) -> None:
    repository.write(name, model(3))
    repository.write("bystander.safetensors", model(4))
    repo = Repository(repository.path)
    assert repo.add(name).added == (name,), "only the file of that name"
    repo.commit("odd name")
    assert [item.path for item in repo.status(name)] == [name]
    (repository.path / name).unlink()
    repo.checkout(name)
    assert (repository.path / name).read_bytes() == model(3)


# --- tracking and staging ---------------------------------------------------------------------------------------------


def test_track_takes_patterns_and_paths(repository: Any) -> None:
    (repository.path / "runs").mkdir()
    repo = Repository(repository.path)
    repo.track("*.gguf", "/best.bin", "runs/", repository.path / "last.ckpt")
    lines = (repository.path / ".gitattributes").read_text().splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["*.gguf", "/best.bin", "runs/**", "last.ckpt"]
    assert repository("diff", "--cached", "--name-only").split() == [".gitattributes"], "the line is staged"


def test_track_refuses_what_another_filter_handles(repository: Any) -> None:
    repository.write(".gitattributes", b"*.bin filter=lfs diff=lfs merge=lfs -text\n")
    with pytest.raises(ThetaError, match="Git LFS"):
        Repository(repository.path).track("model.bin")


def test_add_refuses_what_is_not_tracked_and_stages_nothing(repository: Any) -> None:
    repository.write(FILE, model())
    repository.write("notes.txt", b"hello")
    repo = Repository(repository.path)
    with pytest.raises(NotTrackedError, match=r"notes\.txt is not tracked by theta"):
        repo.add(FILE, "notes.txt")
    assert repository("diff", "--cached", "--name-only") == ""


def test_add_of_nothing_and_of_a_missing_file(repository: Any) -> None:
    repo = Repository(repository.path)
    with pytest.raises(ThetaError, match="nothing is named"):
        repo.add()
    with pytest.raises(ThetaError, match="no file matches"):
        repo.add(FILE)


def test_commit_of_nothing_is_an_error_with_the_words_of_git(two_versions: Any) -> None:
    before = two_versions("rev-parse", "HEAD")
    with pytest.raises(GitError, match=r"nothing to commit|no changes added|git commit"):
        Repository(two_versions.path).commit("nothing")
    assert two_versions("rev-parse", "HEAD") == before


def test_hooks_run_on_commit(repository: Any) -> None:
    hook = repository.path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no commits on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    repository.write(FILE, model())
    repo = Repository(repository.path)
    repo.add(FILE)
    with pytest.raises(GitError, match="no commits on Fridays"):
        repo.commit("try")


def test_nothing_prints(repository: Any, capfd: pytest.CaptureFixture[str]) -> None:
    repository.write(FILE, model())
    repo = Repository(repository.path)
    repo.track("*.gguf")
    repo.add(FILE)
    repo.commit("one", metrics={"loss": 1})
    repo.status()
    repo.checkout(FILE, rev="HEAD")
    repo.load(FILE)
    repo.save(weights(2), FILE, message="two")
    repo.fsck()
    assert capfd.readouterr() == ("", ""), "a library does not print"


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(0.31, "0.31", id="float"),
        pytest.param(3, "3", id="int"),
        pytest.param(-1e-300, "-1e-300", id="tiny"),
        pytest.param(float("inf"), "inf", id="infinity"),
        pytest.param(np.float32(0.5), "0.5", id="numpy float"),
        pytest.param(np.float64(0.1), "0.1", id="numpy double"),
        pytest.param(np.array(0.25), "0.25", id="0-d array"),
        pytest.param(torch.tensor(0.75), "0.75", id="0-d tensor"),
        pytest.param(torch.tensor([2]), "2", id="tensor of one"),
        pytest.param(torch.tensor(1.5, dtype=torch.bfloat16, requires_grad=True), "1.5", id="loss with gradient"),
    ],
)
def test_metrics_become_trailers(repository: Any, value: float, text: str) -> None:
    repository.write("log.txt", b"epoch 1")
    repository("add", "log.txt")
    commit = Repository(repository.path).commit("Train", metrics={"val loss/größe": value})
    trailers = repository("log", "-1", "--format=%(trailers:key=Theta-Metric,valueonly)").strip()
    assert trailers == f"val loss/größe={text}", "git itself reads the metric as a trailer"
    assert metrics_in(str(commit.message)) == {"val loss/größe": float(text)}


@pytest.mark.parametrize(
    ("metrics", "complaint"),
    [
        pytest.param({"loss": float("nan")}, "not a number", id="nan"),
        pytest.param({"loss": torch.tensor(float("nan"))}, "not a number", id="nan tensor"),
        pytest.param({"loss": "0.3"}, "not a number", id="text"),
        pytest.param({"loss": None}, "not a number", id="none"),
        pytest.param({"ok": True}, "not a number", id="bool"),
        pytest.param({"ok": np.True_}, "not a number", id="numpy bool"),
        pytest.param({"loss": 1 + 2j}, "not a number", id="complex"),
        pytest.param({"loss": np.array([1.0, 2.0])}, "not a number", id="several numbers"),
        pytest.param({"loss": torch.tensor([1.0, 2.0])}, "not a number", id="tensor of two"),
        pytest.param({"a=b": 1.0}, "not the name of a metric", id="equals sign"),
        pytest.param({"a\nSigned-off-by: me": 1.0}, "not the name of a metric", id="line break"),
        pytest.param({"": 1.0}, "not the name of a metric", id="empty name"),
        pytest.param({" a": 1.0}, "not the name of a metric", id="leading blank"),
        pytest.param({"a ": 1.0}, "not the name of a metric", id="trailing blank"),
        pytest.param({3: 1.0}, "not the name of a metric", id="number as name"),
    ],
)
def test_what_is_no_metric_is_refused_before_anything_is_committed(
    repository: Any, metrics: dict[str, float], complaint: str
) -> None:
    repository.write("log.txt", b"epoch 1")
    repository("add", "log.txt")
    repo = Repository(repository.path)
    head = repository("rev-parse", "HEAD")
    with pytest.raises(ThetaError, match=complaint):
        repo.commit("Train", metrics=metrics)
    with pytest.raises(ThetaError, match=complaint):
        repo.save(weights(1), FILE, message="Train", metrics=metrics)
    assert repository("rev-parse", "HEAD") == head


# --- status and checkout ----------------------------------------------------------------------------------------------


def test_status_names_what_changed(two_versions: Any) -> None:
    repo = Repository(two_versions.path)
    assert [(item.path, item.state) for item in repo.status()] == [(FILE, "unchanged")]
    two_versions.write(FILE, model(encoder_bias=np.zeros(16, "f4")))
    two_versions.write("new.pt", b"not yet stored")
    seen: list[tuple[int, int]] = []
    found = {item.path: item for item in repo.status(progress=lambda done, total: seen.append((done, total)))}
    assert found[FILE].state == "modified"
    assert not found[FILE].staged
    assert sorted(found[FILE].changed) == ["encoder.bias", "head.weight"]
    assert found["new.pt"].state == "not stored yet"
    assert seen
    assert all(done <= total for done, total in seen), f"progress went beyond its end: {seen}"


def test_checkout_keeps_changes_unless_forced(two_versions: Any) -> None:
    mine = model(9)
    two_versions.write(FILE, mine)
    repo = Repository(two_versions.path)
    with pytest.raises(ThetaError, match="has changes that are not committed"):
        repo.checkout(FILE, rev="HEAD~1")
    assert (two_versions.path / FILE).read_bytes() == mine
    seen: list[tuple[int, int]] = []
    repo.checkout(FILE, rev="HEAD~1", force=True, progress=lambda done, total: seen.append((done, total)))
    assert (two_versions.path / FILE).read_bytes() == model()
    assert seen[-1] == (len(mine), len(mine)), "progress ends with all bytes done"


def test_checkout_completes_what_a_clone_left_as_manifests(two_versions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (two_versions.path / FILE).read_bytes()
    (two_versions.path / FILE).unlink()
    monkeypatch.setenv("GIT_THETA_SKIP_SMUDGE", "1")
    two_versions("checkout", "--", FILE)
    monkeypatch.delenv("GIT_THETA_SKIP_SMUDGE")
    repo = Repository(two_versions.path)
    assert [item.state for item in repo.status()] == ["manifest only"]
    expected = np.full((16, 16), 7, "f4")
    np.testing.assert_array_equal(repo.checkpoint(FILE)["head.weight"].numpy(), expected)  # read without the file
    repo.checkout()
    assert (two_versions.path / FILE).read_bytes() == whole
    assert [item.state for item in repo.status()] == ["unchanged"]


# --- kinds of repositories and callers --------------------------------------------------------------------------------


def test_everything_works_inside_a_running_event_loop(repository: Any) -> None:
    async def session() -> torch.Tensor:
        repo = Repository(repository.path)
        repository.write(FILE, model())
        repo.add(FILE)
        repo.commit("one")
        repo.save(weights(1), FILE, message="two")
        repo.checkout(FILE, force=True)
        assert [item.state for item in repo.status()] == ["unchanged"]
        return repo.load(FILE, "HEAD~1", pattern="head.*")["head.weight"]

    # In a thread of its own: Playwright, which other tests use, leaves a running loop in this one.
    with ThreadPoolExecutor(1) as executor:
        found = executor.submit(asyncio.run, session()).result()
    np.testing.assert_array_equal(found.numpy(), weights()["head.weight"])


def test_a_linked_work_tree_has_its_own_head_and_the_same_objects(two_versions: Any, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    two_versions("worktree", "add", "-q", "-b", "feature", str(linked), "HEAD~1")
    repo = Repository(linked)
    assert repo.path == linked
    assert (linked / FILE).read_bytes() == model()
    (linked / FILE).write_bytes(model(6))
    repo.add(FILE)
    commit = repo.commit("six")
    saved = repo.save(weights(7), FILE, message="seven")
    assert saved.parents == (commit,)
    assert two_versions("rev-parse", "feature").strip() == saved.hexsha
    assert two_versions("log", "-1", "--format=%s", "main").strip() == "two", "the other work tree's branch stays"
    np.testing.assert_array_equal(
        Repository(two_versions.path).load(FILE, "feature")["encoder.bias"].numpy(), weights(7)["encoder.bias"]
    )


def test_a_bare_repository_can_be_read_and_saved_to(two_versions: Any, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(two_versions.path), str(bare)], check=True)
    subprocess.run(["cp", "-r", str(two_versions.path / ".git" / "theta"), str(bare / "theta")], check=True)
    repo = Repository(bare)
    np.testing.assert_array_equal(repo.load(FILE, "main~1")["head.weight"].numpy(), weights()["head.weight"])
    on_main = repo.save(weights(3), FILE, message="three", metrics={"loss": 0.5})
    on_new = repo.save(weights(4), "other/best.safetensors", message="four", branch="run-7")
    assert on_new.parents == (on_main,), "a new branch starts from HEAD"
    np.testing.assert_array_equal(repo.load(FILE, "main")["head.weight"].numpy(), weights(3)["head.weight"])
    assert _names(repo.checkpoint("other/best.safetensors", "run-7")) == sorted(weights())
    with pytest.raises(NotTrackedError, match=r"model\.bin is not tracked"):
        repo.save(weights(), "model.bin", message="no")
    with pytest.raises(ThetaError, match="not in the work tree"):
        repo.checkpoint(FILE)
    with pytest.raises(ThetaError, match="no work tree"):
        repo.add(FILE)
    assert repo.fsck(all_=True).problems == ()


def test_a_sha256_repository_is_read_and_commits_are_refused_before_they_are_made(new_repository: Any) -> None:
    sandbox = new_repository("sha256", "--object-format=sha256")
    sandbox.write(FILE, model())
    repo = Repository(sandbox.path)
    repo.add(FILE)
    head = sandbox("rev-parse", "HEAD")
    for call in (lambda: repo.commit("one"), lambda: repo.save(weights(), FILE, message="one")):
        with pytest.raises(ThetaError, match="SHA256"):
            call()
    assert sandbox("rev-parse", "HEAD") == head
    sandbox("commit", "-qm", "one")
    np.testing.assert_array_equal(repo.load(FILE, "HEAD")["head.weight"].numpy(), weights()["head.weight"])


def test_the_gitpython_object_is_the_same_repository(two_versions: Any) -> None:
    repo = Repository(two_versions.path)
    assert isinstance(repo.git, git.Repo)
    assert [commit.message.strip() for commit in repo.git.iter_commits("HEAD", max_count=2)] == ["two", "one"]


def test_an_executor_of_the_caller_is_used(two_versions: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    threads: set[str] = set()
    with ThreadPoolExecutor(
        1, thread_name_prefix="mine", initializer=lambda: threads.add(threading.current_thread().name)
    ) as pool:
        repo = Repository(two_versions.path, executor=pool)
        repo.load(FILE, "HEAD")
    assert {name.split("_")[0] for name in threads} == {"mine"}


def test_the_programs_of_this_environment_are_found_after_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.which("git-theta")
    assert own
    linked = tmp_path / "bin"
    linked.mkdir()
    (linked / "git-theta").symlink_to(own)
    monkeypatch.setenv("PATH", str(linked))
    assert child_environment()["PATH"].split(os.pathsep) == [str(linked), sysconfig.get_path("scripts")]


def test_git_theta_need_not_be_on_the_path(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook kernel is often started without its environment being activated."""
    folders = os.environ["PATH"].split(os.pathsep)
    others = [folder for folder in folders if not (Path(folder) / "git-theta").exists()]
    assert len(others) < len(folders), "there is a git-theta to hide"
    monkeypatch.setenv("PATH", os.pathsep.join(others))
    repository.write(FILE, model())
    repo = Repository(repository.path)
    repo.add(FILE)
    repo.commit("one")
    assert [item.state for item in repo.status()] == ["unchanged"]


def test_errors_of_a_missing_object_carry_its_name(two_versions: Any) -> None:
    objects = two_versions.path / ".git" / "theta" / "objects"
    gone = sorted(path for path in objects.rglob("*") if path.is_file())
    for path in gone:
        path.unlink()
    with pytest.raises(MissingObjectError, match=r"model\.safetensors at HEAD") as caught:
        Repository(two_versions.path).load(FILE, "HEAD")
    assert set(caught.value.oids) <= {path.name for path in gone}
    assert caught.value.oids
