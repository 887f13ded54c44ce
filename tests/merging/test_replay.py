"""``git theta replay``: a recorded merge comes out again, also elsewhere, and what does not is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.commands.running import json_of, said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.merging.conftest import DRIVERS, NAME, OURS, content, recipe_of, same, weights
from theta_nb.manifest.text import dump, parse


@pytest.mark.parametrize(
    "method", ["dare_ties:seed=7,density=0.4", "linear:weight=[0.2, 0.9]", "karcher", "della", "nuslerp:axis=row"]
)
def test_elementwise_methods_come_out_bit_for_bit(repo: GitSandbox, method: str) -> None:
    repo.run("merge", "-q", "--no-edit", "theirs", env={"GIT_THETA_MERGE": method})
    [one] = json_of(repo.path, "replay")["merges"]
    assert (one["same"], one["within"], one["different"]) == (6, [], [])


def test_methods_with_decompositions_come_out_within_their_tolerance(repo: GitSandbox) -> None:
    said(repo.path, "merge", "theirs", "--method", "iso_c")
    _alter(repo, lambda recipe: recipe["choice"]["parameters"].update(scale=1 + 1e-9))
    [one] = json_of(repo.path, "replay")["merges"]
    assert one["different"] == []
    assert one["same"] + len(one["within"]) == 6
    _alter(repo, lambda recipe: recipe["choice"]["parameters"].update(scale=1.1))
    assert theta(repo.path, "replay").status == 1


def _alter(repo: GitSandbox, change: Callable[[dict[str, object]], object]) -> None:
    """Commit the checkpoint with another recipe than it was made by."""
    manifest = parse(repo("cat-file", "blob", f"HEAD:{NAME}").encode())
    recipe = json.loads(manifest.recipe)
    change(recipe)
    text = dump(replace(manifest, recipe=json.dumps(recipe)))
    oid = repo.run("hash-object", "-w", "--stdin", "--no-filters", data=text).stdout.strip()
    repo("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    repo("commit", "-qm", "another recipe")


def test_what_comes_out_otherwise_is_named(repo: GitSandbox) -> None:
    said(repo.path, "merge", "theirs", "--method", "ties", "--density", "0.5")
    _alter(repo, lambda recipe: recipe["choice"]["parameters"].update(density=0.6))
    result = theta(repo.path, "replay", "HEAD", "--", NAME)
    assert result.status == 1
    assert "1 different, 5 parameters the same" in result.out
    assert "layer.2.weight" in result.out
    said(repo.path, "replay", "HEAD~1")


def test_after_a_clone(repo: GitSandbox, tmp_path: Path) -> None:
    said(repo.path, "merge", "theirs", "others", "--method", "ties", "--density", "0.5")
    GitSandbox(tmp_path)("clone", "-q", "--no-checkout", str(repo.path), "clone")
    clone = GitSandbox(tmp_path / "clone")
    for key, value in {**DRIVERS, "filter.theta.process": "git-theta filter-process"}.items():
        clone("config", key, value)
    clone("config", "filter.theta.required", "true")
    clone("switch", "-q", "main")
    assert "6 parameters the same" in said(clone.path, "replay")


@pytest.fixture
def server(repo: GitSandbox, tmp_path: Path) -> GitSandbox:
    """A server that has a merge by TIES, and gives parts of it."""
    said(repo.path, "merge", "theirs", "--method", "ties", "--density", "0.5")
    GitSandbox(tmp_path)("init", "-q", "--bare", "server.git")
    server = GitSandbox(tmp_path / "server.git")
    server("config", "uploadpack.allowFilter", "true")
    repo("remote", "add", "origin", str(server.path))
    repo("push", "-q", "origin", "main", "theirs")
    return server


def _clone(server: GitSandbox, name: str, *options: str) -> GitSandbox:
    keys = {**DRIVERS, "filter.theta.process": "git-theta filter-process", "filter.theta.required": "true"}
    words = [word for key, value in keys.items() for word in ("-c", f"{key}={value}")]
    path = server.path.parent / name
    server("clone", "-q", *words, *options, f"file://{server.path}", str(path))
    return GitSandbox(path)


@pytest.mark.parametrize("depth", [1, 2])
def test_in_a_shallow_clone(server: GitSandbox, depth: int) -> None:
    """It has the result and perhaps its parents, and no ancestor until the history is fetched."""
    clone = _clone(server, "shallow", f"--depth={depth}")
    refused = theta(clone.path, "replay")
    assert (refused.status, refused.out) == (1, "")
    assert "the input 'original' of its recipe" in refused.err
    assert "This clone is shallow: 'git fetch --unshallow'" in refused.err
    clone("fetch", "-q", "--unshallow")
    assert "6 parameters the same" in said(clone.path, "replay")


def test_in_a_partial_clone(server: GitSandbox) -> None:
    """git fetches manifests when they are asked for, and we the objects of all three versions."""
    assert "6 parameters the same" in said(_clone(server, "partial", "--filter=blob:none").path, "replay")


def test_where_objects_have_to_be_fetched_and_may_not_or_cannot_be(server: GitSandbox) -> None:
    clone = _clone(server, "clone")
    shutil.rmtree(clone.path / ".git/theta/objects")
    clone("config", "theta.fetch", "never")
    refused = theta(clone.path, "replay")
    assert refused.status == 1
    assert "theta.fetch is 'never': origin was not asked. Run 'git theta fetch'." in refused.err
    clone("config", "--unset", "theta.fetch")
    gone = server.path.rename(server.path.parent / "gone.git")
    refused = theta(clone.path, "replay")
    assert refused.status == 1
    assert "objects" in refused.err
    assert "Traceback" not in refused.err
    gone.rename(server.path)
    assert "6 parameters the same" in said(clone.path, "replay")


STATISTICS = ["ours fisher.safetensors", "theirs fisher.safetensors"]


def _informed(repo: GitSandbox, *, committed: bool) -> None:
    """A merge by Fisher information, whose files are tracked or only lie there."""
    from theta_nb.repository import Repository

    for name, seed in zip(STATISTICS, (1, 2), strict=True):
        random = np.random.default_rng(seed)
        repo.write(name, safetensors({key: np.abs(x) * random.random(x.shape).astype("f4") for key, x in OURS.items()}))
    if committed:
        repo.commit_all("statistics")
    Repository(repo.path).merge(NAME, "theirs", statistics=STATISTICS).use("fisher").commit("informed")


@pytest.mark.parametrize("committed", [True, False])
def test_statistics_are_part_of_the_recipe_and_found_again(repo: GitSandbox, committed: bool) -> None:
    _informed(repo, committed=committed)
    found = json.loads(recipe_of(repo))["statistics"]
    assert [one["revision"] for one in found] == STATISTICS, "named as in the repository, not where it lies"
    assert all(len(one["digest"]) == 64 for one in found)
    if committed:
        for name in STATISTICS:
            (repo.path / name).unlink()
    [one] = json_of(repo.path, "replay")["merges"]
    assert (one["same"], one["within"], one["different"]) == (6, [], [])


def test_other_statistics_are_refused_and_missing_ones_named(repo: GitSandbox) -> None:
    _informed(repo, committed=False)
    repo.write(STATISTICS[1], safetensors(OURS))
    result = theta(repo.path, "replay")
    assert result.status == 1
    assert "made with statistics of the training data (ours fisher.safetensors, theirs" in result.err
    (repo.path / STATISTICS[1]).unlink()
    result = theta(repo.path, "replay")
    assert result.status == 1
    assert "'theirs fisher.safetensors' that it was merged with are not here" in result.err


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.safetensors", "a\nb", "a\0b", "", ".", "link"])
def test_recipes_name_statistics_in_the_work_tree_or_none(repo: GitSandbox, name: str, tmp_path: Path) -> None:
    (repo.path.parent / "outside.safetensors").write_bytes(safetensors(OURS))
    (repo.path / "link").symlink_to(repo.path.parent / "outside.safetensors")
    _informed(repo, committed=False)
    _alter(repo, lambda recipe: recipe["statistics"][0].update(revision=name))  # type: ignore[index]
    result = theta(repo.path, "replay")
    assert result.status == 1
    assert "are not here" in result.err
    assert "Traceback" not in result.err


def test_an_ancestor_that_git_made_up_is_made_up_again(repo: GitSandbox) -> None:
    """After a criss-cross, where the ancestor is a blob that no commit has."""
    for ours, theirs, method in (("main", "theirs", "linear"), ("theirs", "main~1", "ties:density=0.4")):
        repo("switch", "-q", ours)
        repo.run("merge", "-q", "--no-edit", theirs, env={"GIT_THETA_MERGE": method})
    for branch, changed in (("theirs", (2, 3)), ("main", (2, 0))):
        repo("switch", "-q", branch)
        repo.write(NAME, safetensors(weights(*changed, seed=len(branch))))
        repo.commit_all("more")
    repo.run("merge", "-q", "--no-edit", "theirs", env={"GIT_THETA_MERGE": "ties:density=0.5"})
    by_git = content(repo)
    repo("reset", "-q", "--hard", "HEAD~1")
    said(repo.path, "merge", "theirs", "--method", "ties", "--density", "0.5")
    assert same(content(repo), by_git)
    repo("reflog", "expire", "--expire=now", "--all")
    repo("gc", "-q", "--prune=now")
    ancestor = json.loads(recipe_of(repo))["base"]["revision"]
    assert repo.run("cat-file", "-e", ancestor, check=False).returncode
    assert "6 parameters the same" in said(repo.path, "replay")


def test_a_commit_without_a_recipe(repo: GitSandbox) -> None:
    for words in (("replay",), ("replay", "HEAD", "--", NAME)):
        result = theta(repo.path, *words)
        assert (result.status, "recorded merge" in result.err) == (1, True)


HOSTILE = {
    "no JSON": "{",
    "code": "!!python/object/apply:os.system [x]",
    "options for revisions": {"revision": "--upload-pack=touch pwned"},
    "a search for revisions": {"revision": ":/base"},
    "lost inputs": {"revision": "0" * 40},
    "other inputs": {"digest": "0" * 64},
    "unknown keys": {"also": 1},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_recipes_in_a_manifest_are_one_error(repo: GitSandbox, case: str) -> None:
    said(repo.path, "merge", "theirs", "--method", "linear")
    change = HOSTILE[case]
    manifest = parse(repo("cat-file", "blob", f"HEAD:{NAME}").encode())
    if isinstance(change, dict):
        recipe = json.loads(manifest.recipe)
        recipe["inputs"][1].update(change)
        text = json.dumps(recipe)
    else:
        text = change
    data = dump(replace(manifest, recipe=text))
    oid = repo.run("hash-object", "-w", "--stdin", "--no-filters", data=data).stdout.strip()
    repo("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    repo("commit", "-qm", "hostile")
    result = theta(repo.path, "replay")
    assert result.status == 1
    assert len(result.err.splitlines()) == 1, result.err
    assert not (repo.path / "pwned").exists()
    assert recipe_of(repo) == text
