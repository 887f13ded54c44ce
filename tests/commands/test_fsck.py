"""``git theta fsck``: what it looks at, and what it finds where git itself sees nothing wrong."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch, safetensors
from tests.git.checks import age, manifest_of, manifest_text, objects
from tests.git.conftest import NAME
from tests.git.objects import flip, object_path
from theta_nb.commands.fsck import Problem, fsck
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places


def checkpoint(seed: int) -> bytes:
    """A tensor that is an object of its own, and a small one."""
    rng = np.random.default_rng(seed)
    return safetensors({"large": rng.normal(size=(150, 150)), "small": rng.normal(size=30)})


@pytest.fixture
def repo(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> GitSandbox:
    """Three versions: two committed, the third only staged."""
    template = tmp_path_factory.getbasetemp() / "fsck-template"
    if not template.exists():
        made = new_repository("template")
        made("config", "core.checkStat", "minimal")
        for seed in range(3):
            made.write(NAME, checkpoint(seed))
            age(made, [NAME, ".gitattributes"])
            made("add", "-A")
            if seed < 2:
                made("commit", "-qm", f"version {seed}")
        made("status")
        made.path.rename(template)
    shutil.copytree(template, tmp_path / "repo")
    return GitSandbox(tmp_path / "repo")


def large(repo: GitSandbox, rev: str) -> str:
    """Object of the large tensor in a version; the empty revision is the index."""
    manifest = manifest_of(repo, NAME, rev)
    return manifest.values[manifest.entries["large"].digest].chunks[0].oid


def found(repo: GitSandbox, *revisions: str, all_: bool = False) -> set[str]:
    return {problem.oid for problem in fsck(find_places(repo.path), revisions=revisions, all_=all_).problems}


def test_by_default_head_and_index_are_checked(repo: GitSandbox) -> None:
    oids = [large(repo, rev) for rev in ("HEAD~1", "HEAD", "")]
    for oid in oids:
        flip(repo, oid, -1)
    assert found(repo) == set(oids[1:])
    assert found(repo, "HEAD") == {oids[1]}
    assert found(repo, "HEAD~1") == {oids[0]}
    assert found(repo, "HEAD", "HEAD~1") == set(oids[:2])
    assert found(repo, all_=True) == set(oids)


def test_what_only_the_index_needs_has_no_commit(repo: GitSandbox) -> None:
    object_path(repo, large(repo, "")).unlink()
    (problem,) = fsck(find_places(repo.path)).problems
    assert problem == Problem("missing", large(repo, ""), "", NAME, "large", f"object {large(repo, '')} is missing")


@pytest.mark.parametrize("where", ["stash", "reflog", "tag", "linked"])
def test_all_means_all_that_git_keeps(repo: GitSandbox, tmp_path: Path, where: str) -> None:
    oid = large(repo, "")
    if where == "stash":
        repo("stash", "-q")
    else:
        repo("commit", "-qm", "third")
    if where == "tag":
        repo("tag", "v3")
    if where == "linked":
        repo("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    if where != "stash":
        repo("reset", "-q", "--hard", "HEAD~1")
    flip(repo, oid, -1)
    # git lists the indexes of all work trees at once.
    assert found(repo) == ({oid} if where == "linked" else set())
    assert found(repo, all_=True) == {oid}


def test_a_tensor_that_two_checkpoints_share_is_told_once_with_all_its_names(repo: GitSandbox) -> None:
    value = np.random.default_rng(7).normal(size=(150, 150))
    repo.write("a.safetensors", safetensors({"x": value, "y": value}))
    repo.write("b.safetensors", safetensors({"z": value}))
    repo.commit_all("shared")
    manifest = manifest_of(repo, "a.safetensors")
    flip(repo, manifest.values[manifest.entries["x"].digest].chunks[0].oid, -1)
    (problem,) = fsck(find_places(repo.path)).problems
    assert (problem.path, problem.parameter) == ("a.safetensors", "x, y")


def test_a_manifest_of_mixed_versions_is_found_although_each_line_is_sound(repo: GitSandbox) -> None:
    """The layout belongs to another file: git's merge by lines can do that."""
    repo.write("other.safetensors", safetensors({"large": np.ones((150, 150)), "another": np.ones(30)}))
    repo("add", "other.safetensors")
    ours, theirs = manifest_text(repo, NAME), manifest_text(repo, "other.safetensors")
    layout = next(line for line in theirs.splitlines() if line.startswith("layout "))
    mixed = [layout if line.startswith("layout ") else line for line in ours.splitlines()]
    digest = layout.split()[1]
    value = next(line for line in theirs.splitlines() if line.startswith(f"value {digest}"))
    old = next(line for line in ours.splitlines() if line.startswith("layout ")).split()[1]
    mixed = [value if line.startswith(f"value {old}") else line for line in mixed]
    needed = [line for line in theirs.splitlines() if line.startswith("object ") and line not in mixed]
    at = next(i for i, line in enumerate(mixed) if line.startswith("object "))
    mixed[at:at] = needed
    oid = repo.run("hash-object", "-w", "--stdin", data=("\n".join(mixed) + "\n").encode()).stdout.strip()
    repo("update-index", "--add", "--cacheinfo", f"100644,{oid},{NAME}")
    problems = [problem for problem in fsck(find_places(repo.path)).problems if problem.path == NAME]
    assert [problem.kind for problem in problems] == ["manifest"]


def test_tied_views_and_optimizer_states_are_checked_like_any_tensor(repo: GitSandbox) -> None:
    import torch

    w = torch.randn(200, 200)
    repo.write("m.pt", pytorch({"w": w, "tied": w, "t": w.t(), "part": w[3:], "opt": {"step": 3, "m": w + 1}}))
    repo("add", "m.pt")
    report = fsck(find_places(repo.path))
    assert report.problems == ()
    assert report.checked_objects == len(
        set().union(*(manifest_of(repo, n, r).objects for n, r in (("m.pt", ""), (NAME, ""), (NAME, "HEAD"))))
    )
    for oid in objects(repo):
        flip(repo, oid, -1)
    assert {problem.path for problem in fsck(find_places(repo.path)).problems} == {"m.pt", NAME}


def test_a_bare_repository_is_checked_too(repo: GitSandbox, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", repo.path, tmp_path / "bare.git"], check=True)
    report = fsck(find_places(tmp_path / "bare.git"), all_=True)
    assert {problem.kind for problem in report.problems} == {"missing"}, "its store is empty"
    (tmp_path / "bare.git" / "theta").symlink_to(repo.path / ".git/theta")
    assert fsck(find_places(tmp_path / "bare.git"), all_=True).problems == ()


def test_a_repository_without_commits_and_one_without_checkpoints_are_sound(tmp_path: Path) -> None:
    repo = GitSandbox(tmp_path)
    repo("init", "-q")
    for all_ in (False, True):
        report = fsck(find_places(tmp_path), all_=all_)
        assert (report.checked_objects, report.problems) == (0, ())


def test_an_unknown_revision_is_an_error(repo: GitSandbox) -> None:
    for revision in ("nowhere", "--all", ""):
        with pytest.raises(ThetaError):
            fsck(find_places(repo.path), revisions=[revision])


def test_checking_changes_nothing(repo: GitSandbox) -> None:
    def picture() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in repo.path.rglob("*"))

    before = picture()
    fsck(find_places(repo.path), all_=True)
    assert picture() == before
