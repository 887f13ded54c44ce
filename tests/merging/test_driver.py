"""What ``git merge`` and its relatives do where both sides changed a parameter: by configuration, or a conflict."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from safetensors import safe_open

from tests.conftest import ATTRIBUTES, GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet, warnings
from tests.merging.conftest import (
    AVERAGE,
    BASE,
    NAME,
    OURS,
    THEIRS,
    as_pytorch,
    branches,
    content,
    recipe_of,
    same,
    weights,
)
from tests.test_imports import imported, packages


def _merge(repo: GitSandbox, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return repo.run("merge", "-q", "--no-edit", *(words or ("theirs",)), check=False, env=env)


def _assert_averaged(repo: GitSandbox, name: str = NAME) -> None:
    assert same(content(repo, name), AVERAGE)
    assert json.loads(recipe_of(repo, name=name))["choice"]["method"] == "linear"
    assert_quiet(repo)


# --- configured -------------------------------------------------------------------------------------------------------


def test_a_method_from_the_configuration(repo: GitSandbox) -> None:
    repo("config", "theta.merge.method", "average")
    result = _merge(repo)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"Auto-merging {NAME}\n", "")
    _assert_averaged(repo)


def test_a_method_from_the_environment(repo: GitSandbox) -> None:
    assert _merge(repo, GIT_THETA_MERGE="linear:weight={ours: 0.5, theirs: 0.5}").returncode == 0
    _assert_averaged(repo)


def test_a_method_from_an_attribute(repo: GitSandbox) -> None:
    repo.write(".gitattributes", f"*.safetensors {ATTRIBUTES} theta-merge=linear\n".encode())
    repo("commit", "-qam", "attribute")
    assert _merge(repo).returncode == 0
    _assert_averaged(repo)


@pytest.mark.parametrize(
    ("config", "attribute", "environment", "method"),
    [
        ("slerp", "", "", "slerp"),
        ("slerp", "nuslerp", "", "nuslerp"),
        ("slerp", "nuslerp", "ties:density=0.5", "ties"),
        ("", "ties:density=0.5,scale=2", "", "ties"),
    ],
)
def test_environment_before_attribute_before_configuration(
    repo: GitSandbox, config: str, attribute: str, environment: str, method: str
) -> None:
    if config:
        repo("config", "theta.merge.method", config)
    if attribute:
        repo.write(".git/info/attributes", f"*.safetensors theta-merge={attribute}\n".encode())
    assert _merge(repo, GIT_THETA_MERGE=environment).returncode == 0
    assert json.loads(recipe_of(repo))["choice"]["method"] == method


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("tise", "Did you mean 'ties'"),
        ("ties:densty=0.3", "Did you mean 'density'"),
        ("ties:density=3", "density is 3"),
        ("ties:density", "NAME=VALUE"),
        ("ties:density=[0, &a 1, *a]", "aliases"),
        ("ties:density=[0, 1", "cannot be read"),
        ("ties:density=[!!python/object/apply:os.system [x]]", "cannot be read"),
        ("; rm -rf /", "no merge method"),
        ("ties:density=nan", "density"),
        ("ties:weight={nobody: 1}", "nobody"),
        ("x" * 20_000, "no merge method"),
    ],
)
def test_a_wrong_configuration_is_one_error_and_a_conflict(repo: GitSandbox, spec: str, said: str) -> None:
    repo("config", "theta.merge.method", spec)
    before = (repo.path / NAME).read_bytes()
    result = _merge(repo)
    told = warnings(result.stderr)
    assert result.returncode == 1
    assert len(told) == 1, told
    assert said in told[0]
    assert "Traceback" not in result.stderr
    assert (repo.path / NAME).read_bytes() == before
    assert repo("status", "--porcelain", NAME) == f"UU {NAME}\n"


def test_pytorch_files_keep_their_form(drivers: GitSandbox) -> None:
    import io

    import torch

    branches(drivers, name="m.pt", write=as_pytorch)
    assert _merge(drivers, GIT_THETA_MERGE="linear").returncode == 0
    found = torch.load(io.BytesIO((drivers.path / "m.pt").read_bytes()), weights_only=True)
    assert found.pop("epoch") == 3
    assert same({name: tensor.numpy() for name, tensor in found.items()}, AVERAGE)
    assert_quiet(drivers)


def test_metadata_that_both_changed_stays_that_of_ours_and_is_reported(drivers: GitSandbox) -> None:
    steps = iter("123")
    branches(drivers, write=lambda state: safetensors(state, {"step": next(steps, "4")}))
    result = _merge(drivers, GIT_THETA_MERGE="linear")
    assert result.returncode == 0
    assert warnings(result.stderr) == [
        f"theta: {NAME}: both sides changed __metadata__/step, no tensor: ours is kept "
        "('--override NAME theirs' takes theirs)"
    ]
    assert b'"step":"4"' in (drivers.path / NAME).read_bytes()


def test_added_by_both_needs_a_method_without_an_ancestor(drivers: GitSandbox) -> None:
    drivers("switch", "-qc", "theirs")
    drivers.write(NAME, safetensors(THEIRS))
    drivers.commit_all("theirs")
    drivers("switch", "-q", "main")
    drivers.write(NAME, safetensors(OURS))
    drivers.commit_all("ours")
    refused = _merge(drivers, GIT_THETA_MERGE="ties")
    assert refused.returncode == 1
    assert "needs a common ancestor" in refused.stderr
    drivers("merge", "--abort")
    assert _merge(drivers, GIT_THETA_MERGE="linear").returncode == 0
    assert same(content(drivers), {name: (OURS[name] + THEIRS[name]) / 2 for name in OURS})


def test_what_no_method_can_merge_stays_a_conflict(repo: GitSandbox) -> None:
    repo("switch", "-q", "theirs")
    repo.write(NAME, safetensors({name: value for name, value in THEIRS.items() if name != "layer.1.weight"}))
    repo("commit", "-qam", "without layer 1, which ours changed")
    repo("switch", "-q", "main")
    result = _merge(repo, GIT_THETA_MERGE="linear")
    assert result.returncode == 1
    assert "both sides changed layer.1.weight;" in warnings(result.stderr)[0]
    refused = repo.run("theta", "merge", "--continue", "--method", "linear", check=False)
    assert "layer.1.weight, which no method can merge. Choose a side with --override" in refused.stderr
    repo("theta", "merge", "--continue", "--method", "linear", "--override", "layer.1.*", "theirs")
    wanted = {name: value for name, value in AVERAGE.items() if name != "layer.1.weight"}
    assert same(content(repo), wanted)
    assert_quiet(repo)
    repo("theta", "replay")


def test_a_criss_cross_does_not_ask_or_choose_for_the_virtual_ancestor(repo: GitSandbox) -> None:
    repo("branch", "left", "main")
    repo("config", "theta.merge.method", "linear")
    repo("switch", "-q", "theirs")
    assert _merge(repo, "left").returncode == 0
    repo("switch", "-q", "main")
    assert _merge(repo, "theirs~1", GIT_THETA_MERGE="ours").returncode == 0
    assert _merge(repo, "theirs").returncode == 0
    assert_quiet(repo)


# --- every way a merge can happen -------------------------------------------------------------------------------------

WAYS = {
    "merge": ("main", ("merge", "-q", "--no-edit", "theirs")),
    "merge, squashed": ("main", ("merge", "-q", "--squash", "theirs")),
    "rebase": ("theirs", ("rebase", "-q", "main")),
    "rebase --apply": ("theirs", ("rebase", "-q", "--apply", "main")),
    "cherry-pick": ("main", ("cherry-pick", "theirs")),
    "pull": ("main", ("pull", "-q", "--no-rebase", "--no-edit", ".", "theirs")),
}


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_of_merging(repo: GitSandbox, way: str) -> None:
    branch, command = WAYS[way]
    repo("switch", "-q", branch)
    result = repo.run(*command, check=False, env={"GIT_THETA_MERGE": "linear"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert same(content(repo), AVERAGE)
    if "squash" in way:
        repo("commit", "-qm", "squashed")
    # 'git am', by which this rebase works, takes only what the filter makes of the file, and that has no recipe.
    kept = recipe_of(repo)
    assert (json.loads(kept)["choice"]["method"] if kept else "") == ("linear" if "--apply" not in way else "")
    assert_quiet(repo)


def test_revert_of_what_was_changed_again(repo: GitSandbox) -> None:
    repo.write(NAME, safetensors(weights(0, 1, 2, 5, seed=9)))
    repo("commit", "-qam", "again")
    assert repo.run("revert", "--no-edit", "HEAD~1", check=False).returncode == 1
    repo("revert", "--abort")
    repo.run("revert", "--no-edit", "HEAD~1", env={"GIT_THETA_MERGE": "original"})
    found = content(repo)
    assert found["layer.5.weight"].tobytes() == weights(0, 1, 2, 5, seed=9)["layer.5.weight"].tobytes()
    assert_quiet(repo)


def test_stash_pop(repo: GitSandbox) -> None:
    repo("switch", "-q", "--detach", "main~1")
    repo.write(NAME, safetensors(THEIRS))
    repo("stash", "push", "-q")
    repo("switch", "-q", "main")
    repo.run("stash", "pop", "-q", env={"GIT_THETA_MERGE": "linear"})
    assert same(content(repo), AVERAGE)
    assert repo("stash", "list") == ""


def test_merge_tree_in_a_bare_repository_writes_nothing_else(repo: GitSandbox) -> None:
    repo("config", "theta.merge.method", "linear")
    tree = repo.run("merge-tree", "--write-tree", "main", "theirs").stdout
    assert len(tree.splitlines()) == 1, "something of ours is in git's output"
    assert "linear" in repo("cat-file", "blob", f"{tree.strip()}:{NAME}")


def test_one_sided_changes_read_no_value(repo: GitSandbox) -> None:
    repo("switch", "-qc", "apart", "main~1")
    repo.write(NAME, safetensors(weights(5, seed=5)))
    repo("commit", "-qam", "apart")
    repo("switch", "-q", "main")
    objects = repo.path / ".git" / "theta" / "objects"
    objects.rename(objects.with_name("elsewhere"))
    (repo.path / ".git" / "theta" / "encodings.sqlite").unlink()
    modules = imported(["git", "merge", "-q", "--no-edit", "apart"], repo.path, GIT_THETA_SKIP_SMUDGE="1")
    assert "theta_nb.git.merge_driver" in modules
    assert packages(modules) & {"numpy", "torch"} == set(), "a merge of manifests waits for them"
    assert json.loads(recipe_of(repo))["choice"] is None


# --- conflicts --------------------------------------------------------------------------------------------------------


def test_without_a_terminal_it_is_a_conflict_that_says_how_to_go_on(repo: GitSandbox) -> None:
    result = _merge(repo)
    [told] = warnings(result.stderr)
    assert result.returncode == 1
    assert "both sides changed layer.2.weight" in told
    assert "git theta merge --continue --method METHOD" in told
    assert "%theta merge" in told
    assert same(content(repo), OURS)
    assert repo("ls-files", "-u").count(NAME) == 3


def test_review_makes_one_sided_changes_wait(repo: GitSandbox) -> None:
    repo("config", "theta.merge.review", "always")
    repo("config", "theta.merge.method", "linear")
    repo("switch", "-qc", "apart", "main~1")
    repo.write(NAME, safetensors(weights(5, seed=5)))
    repo("commit", "-qam", "apart")
    repo("switch", "-q", "main")
    result = _merge(repo, "apart")
    assert result.returncode == 1
    assert "waits for a choice" in warnings(result.stderr)[0]
    assert repo("status", "--porcelain", NAME) == f"UU {NAME}\n"


def test_review_has_a_known_spelling(repo: GitSandbox) -> None:
    repo("config", "theta.merge.review", "sometimes")
    result = _merge(repo)
    assert result.returncode == 1
    assert "never, always" in result.stderr


def test_manual_merge_writes_the_three_versions(repo: GitSandbox) -> None:
    result = _merge(repo, GIT_THETA_MANUAL_MERGE="1")
    assert result.returncode == 1
    for word, state in (("ancestor", BASE), ("ours", OURS), ("theirs", THEIRS)):
        assert same(content(repo, f"m.{word}.safetensors"), state)
    assert f"git add {NAME}" in warnings(result.stderr)[0]
    repo.write(NAME, safetensors(AVERAGE))
    for word in ("ancestor", "ours", "theirs"):
        (repo.path / f"m.{word}.safetensors").unlink()
    repo("add", NAME)
    repo("commit", "-q", "--no-edit")
    assert_quiet(repo)


def test_manual_merge_overwrites_nothing(repo: GitSandbox) -> None:
    repo.write("m.ours.safetensors", b"mine")
    result = _merge(repo, GIT_THETA_MANUAL_MERGE="1")
    assert result.returncode == 1
    assert "exists already" in result.stderr
    assert (repo.path / "m.ours.safetensors").read_bytes() == b"mine"


def test_metadata_stay_where_the_set_of_tensors_changes(drivers: GitSandbox) -> None:
    """Each side adds a tensor, nobody touches the metadata: nothing is lost, and nothing is said to be."""
    drivers.write(NAME, safetensors(BASE, {"format": "pt"}))
    drivers.commit_all("with metadata")
    drivers("switch", "-qc", "theirs")
    drivers.write(NAME, safetensors({**BASE, "b": np.ones(9, "f4")}, {"format": "pt"}))
    drivers.commit_all("theirs")
    drivers("switch", "-q", "main")
    drivers.write(NAME, safetensors({**BASE, "a": np.zeros(9, "f4")}, {"format": "pt"}))
    drivers.commit_all("ours")
    result = _merge(drivers, GIT_THETA_MERGE="linear")
    assert warnings(result.stderr) == []
    with safe_open(drivers.path / NAME, "np") as merged:
        assert merged.metadata() == {"format": "pt"}
        assert set(merged.keys()) == {*BASE, "a", "b"}


def test_a_conflict_does_not_cover_changes_that_are_not_committed(repo: GitSandbox) -> None:
    """``git merge --abort`` would take them back."""
    head = repo("rev-parse", "HEAD")
    trained = repo.write(NAME, safetensors(weights(5, seed=9))).read_bytes()
    for env in ({}, {"GIT_THETA_MANUAL_MERGE": "1"}, {"GIT_THETA_MERGE": "linear"}):
        result = repo.run("merge", "theirs", env=env, check=False)
        assert result.returncode
        assert "ommit" in result.stderr
        assert (repo.path / NAME).read_bytes() == trained
        assert repo("status", "--porcelain") == f" M {NAME}\n"
        assert (repo("rev-parse", "HEAD"), (repo.path / ".git/MERGE_HEAD").exists()) == (head, False)
    assert "CONFLICT" in repo.run("merge-tree", "--write-tree", "main", "theirs", check=False).stdout
    repo("stash", "-q")
    assert "both sides changed" in repo.run("merge", "theirs", check=False).stderr
    repo("merge", "--abort")
    repo("stash", "pop", "-q")
    assert (repo.path / NAME).read_bytes() == trained
