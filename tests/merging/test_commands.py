"""``git theta merge``: one and several commits, parameters, recipes, conflicts of git, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands.running import json_of, said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet, objects
from tests.merging.conftest import AVERAGE, BASE, NAME, OTHERS, OURS, THEIRS, content, recipe_of, same, weights
from theta_nb.commands.grammar.merging import PARAMETERS
from theta_nb.merges.table import METHODS, method_named


def _state(repo: GitSandbox) -> tuple[str, ...]:
    """Everything that a merge may not change when it fails."""
    files = {str(path): path.read_bytes() for path in repo.path.iterdir() if path.is_file()}
    return (
        repo("rev-parse", "HEAD"),
        repo("status", "--porcelain"),
        repo("ls-files", "-s"),
        repr(sorted(files.items())),
    )


def test_the_grammar_knows_every_parameter() -> None:
    known = {spec.name for name in METHODS.names() for spec in METHODS[name].parameters}
    known |= {spec.name for spec in method_named("lines:ties").parameters}
    assert {name.replace("-", "_") for name in PARAMETERS} == known


def test_one_commit(repo: GitSandbox) -> None:
    shown = said(repo.path, "merge", "theirs", "--method", "linear")
    assert "Merge branch 'theirs'" in shown
    assert "2 ours, 1 linear, 1 theirs" in shown
    assert same(content(repo), AVERAGE)
    assert repo("log", "-1", "--format=%P").split() == repo("rev-parse", "HEAD~1", "theirs").split()
    assert repo("log", "-1", "--format=%(trailers:key=Theta-Merge,valueonly)").strip() == (
        f"{NAME}: linear(weight=1, normalize=True)"
    )
    recipe = json.loads(recipe_of(repo))
    assert [one["revision"] for one in recipe["inputs"]] == repo("rev-parse", "HEAD~1", "theirs").split()
    assert recipe["base"]["revision"] == repo("merge-base", "HEAD~1", "theirs").strip()
    assert (repo.path / "theirs.txt").exists()
    assert_quiet(repo)


def test_several_commits_make_one_merge(repo: GitSandbox) -> None:
    shown = said(repo.path, "merge", "theirs", "others", "--method", "task_arithmetic", "--scale", "0.5")
    assert "Merge branches 'theirs' and 'others'" in shown
    assert repo("log", "-1", "--format=%P").split() == repo("rev-parse", "HEAD~1", "theirs", "others").split()
    name = "layer.2.weight"
    wanted = BASE[name] + 0.5 * sum(state[name] - BASE[name] for state in (OURS, THEIRS, OTHERS))
    np.testing.assert_allclose(content(repo)[name], wanted, rtol=1e-5, atol=1e-6)
    assert content(repo)["layer.4.weight"].tobytes() == OTHERS["layer.4.weight"].tobytes()
    assert all((repo.path / f"{branch}.txt").exists() for branch in ("ours", "theirs", "others"))
    assert_quiet(repo)


def test_changed_tensors_are_stored_as_updates_of_head(repo: GitSandbox) -> None:
    before = objects(repo)
    said(repo.path, "merge", "theirs", "--method", "linear")
    manifest = repo("cat-file", "blob", f"HEAD:{NAME}")
    assert len(objects(repo) - before) <= 1, "what one side has was stored again"
    assert "layer.3.weight" in manifest


def test_a_dry_run_changes_nothing(repo: GitSandbox) -> None:
    before, stored = _state(repo), objects(repo)
    shown = said(repo.path, "merge", "theirs", "--method", "ties", "--set", "density=0.3", "-n")
    assert "layer.2.weight  changed by both    ties " in shown
    assert "density=0.3" in shown
    assert "Nothing was changed." in shown
    [one] = json_of(repo.path, "merge", "theirs", "--method", "ties", "--dry-run")["checkpoints"]
    assert one["preview"]["labels"] == ["ours", "theirs"]
    [row] = [row for row in one["preview"]["rows"] if row["name"] == "layer.2.weight"]
    assert row["distances"][0] > 0
    assert not row["estimated"], "so few numbers are taken whole"
    assert (_state(repo), objects(repo)) == (before, stored)


def test_overrides_and_gradients(repo: GitSandbox) -> None:
    words = ("--override", "layer.0.*", "original", "--override", "layer.3.*", "linear:weight={theirs: [0, 1]}")
    said(repo.path, "merge", "theirs", "--method", "slerp", "--t", "[0, 1]", "-m", "My merge", *words)
    found = content(repo)
    assert found["layer.0.weight"].tobytes() == BASE["layer.0.weight"].tobytes()
    assert json.loads(recipe_of(repo))["choice"]["parameters"]["t"] == [0, 1]
    assert repo("log", "-1", "--format=%s").strip() == "My merge"


def test_a_configured_method_counts_where_none_is_given(repo: GitSandbox) -> None:
    repo("config", "theta.merge.method", "linear")
    said(repo.path, "merge", "theirs")
    assert same(content(repo), AVERAGE)
    repo("reset", "-q", "--hard", "HEAD~1")
    before = objects(repo)
    said(repo.path, "merge", "theirs", "--method", "ours")
    assert content(repo)["layer.2.weight"].tobytes() == OURS["layer.2.weight"].tobytes()
    assert objects(repo) == before, "the driver computed what was not asked for"


def test_fast_forward_and_nothing_to_do(repo: GitSandbox) -> None:
    repo("switch", "-qc", "behind", "theirs~1")
    assert "fast-forward" in said(repo.path, "merge", "theirs")
    assert repo("rev-parse", "HEAD") == repo("rev-parse", "theirs")
    assert "nothing to merge" in said(repo.path, "merge", "main~1")


def test_unrelated_histories_take_methods_without_an_ancestor(repo: GitSandbox) -> None:
    repo("switch", "-q", "--orphan", "alone")
    repo("checkout", "main", "--", ".gitattributes")
    repo.write(NAME, safetensors(THEIRS))
    repo.commit_all("alone")
    repo("switch", "-q", "main")
    refused = theta(repo.path, "merge", "alone", "--method", "ties")
    assert (refused.status, "needs a common ancestor" in refused.err) == (1, True)
    said(repo.path, "merge", "alone", "--method", "linear")
    assert same(content(repo), {name: (OURS[name] + THEIRS[name]) / 2 for name in OURS})
    assert json.loads(recipe_of(repo))["base"] is None
    said(repo.path, "replay")


def test_a_renamed_checkpoint_is_followed(repo: GitSandbox) -> None:
    repo("switch", "-q", "theirs")
    repo("mv", NAME, "renamed.safetensors")
    repo("commit", "-qm", "renamed")
    repo("switch", "-q", "main")
    said(repo.path, "merge", "theirs", "--method", "linear")
    assert not (repo.path / NAME).exists()
    assert same(content(repo, "renamed.safetensors"), AVERAGE)
    assert_quiet(repo)
    said(repo.path, "replay")


def test_two_checkpoints(repo: GitSandbox) -> None:
    for branch, state in (("main", OURS), ("theirs", THEIRS)):
        repo("switch", "-q", branch)
        repo.write("second.safetensors", safetensors(state))
        repo.commit_all("second")
    repo("switch", "-q", "main")
    result = json_of(repo.path, "merge", "theirs", "--method", "linear")
    assert [one["path"] for one in result["checkpoints"]] == [NAME, "second.safetensors"]
    assert repo("log", "-1", "--format=%(trailers:key=Theta-Merge)").count("Theta-Merge") == 2
    assert_quiet(repo)


def test_from_a_folder_of_a_linked_work_tree(repo: GitSandbox, tmp_path: Path) -> None:
    repo("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))
    linked = GitSandbox(tmp_path / "linked")
    (linked.path / "folder").mkdir()
    shown = said(linked.path / "folder", "merge", "theirs", f"../{NAME}", "--method", "linear")
    assert f"../{NAME}: linear" in shown
    assert same(content(linked), AVERAGE)
    assert_quiet(linked)
    linked("reset", "-q", "--hard", "HEAD~1")
    linked.run("merge", "theirs", check=False)
    said(linked.path / "folder", "merge", "--continue", "--method", "linear")
    assert same(content(linked), AVERAGE)


# --- conflicts of git -------------------------------------------------------------------------------------------------


def test_continue_ends_a_conflict_of_git_merge(repo: GitSandbox) -> None:
    assert repo.run("merge", "theirs", check=False).returncode == 1
    shown = said(repo.path, "merge", "--continue", "--method", "linear")
    assert "Merge branch 'theirs'" in shown
    assert same(content(repo), AVERAGE)
    assert repo("log", "-1", "--format=%P").split() == repo("rev-parse", "HEAD~1", "theirs").split()
    assert "Theta-Merge" in repo("log", "-1", "--format=%B")
    assert recipe_of(repo)
    assert_quiet(repo)
    said(repo.path, "replay")


def test_continue_leaves_other_conflicts_to_the_user(repo: GitSandbox) -> None:
    for branch in ("theirs", "main"):
        repo("switch", "-q", branch)
        repo.write("notes.txt", f"{branch}\n".encode())
        repo("commit", "-qam", "notes")
    refused = theta(repo.path, "merge", "theirs", "--method", "linear")
    assert (refused.status, "git cannot merge notes.txt by itself" in refused.err) == (1, True)
    assert repo("status", "--porcelain") == ""
    repo.run("merge", "theirs", check=False)
    result = theta(repo.path, "merge", "--continue", "--method", "linear")
    assert result.status == 1, "something is left to do"
    assert "Still in conflict: notes.txt" in result.out
    assert repo("status", "--porcelain", "notes.txt", NAME) == f"M  {NAME}\nUU notes.txt\n"
    repo.write("notes.txt", b"both\n")
    repo("add", "notes.txt")
    repo("commit", "-q", "--no-edit")
    assert "Theta-Merge" in repo("log", "-1", "--format=%B")
    assert recipe_of(repo)
    assert_quiet(repo)


@pytest.mark.parametrize("command", ["rebase", "cherry-pick"])
def test_continue_within_a_sequence(repo: GitSandbox, command: str) -> None:
    if command == "rebase":
        repo("switch", "-q", "theirs")
    assert repo.run(command, "main" if command == "rebase" else "theirs", check=False).returncode == 1
    shown = said(repo.path, "merge", "--continue", "--method", "linear")
    assert f"'git {command} --continue' goes on" in shown
    repo.run(command, "--continue", env={"GIT_EDITOR": "true"})
    assert same(content(repo), AVERAGE)
    assert recipe_of(repo)
    assert_quiet(repo)


def test_continue_keeps_what_somebody_began_to_resolve(repo: GitSandbox) -> None:
    repo.run("merge", "theirs", check=False)
    mine = safetensors(weights(5, seed=5))
    repo.write(NAME, mine)
    result = theta(repo.path, "merge", "--continue", "--method", "linear")
    assert (result.status, f"git add {NAME}" in result.err) == (1, True)
    assert (repo.path / NAME).read_bytes() == mine
    assert repo("status", "--porcelain", NAME) == f"UU {NAME}\n"


def test_abort(repo: GitSandbox) -> None:
    before = _state(repo)
    repo.run("merge", "theirs", check=False)
    assert "given up" in said(repo.path, "merge", "--abort")
    assert _state(repo)[:2] == before[:2]
    assert_quiet(repo)
    assert "no merge is under way" in theta(repo.path, "merge", "--abort").err


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "no method": (("theirs",), "both sides changed layer.2.weight"),
    "no such method": (("theirs", "-M", "tise"), "Did you mean 'ties'"),
    "no such parameter": (("theirs", "-M", "slerp", "--density", "1"), "no parameter 'density'"),
    "a value out of range": (("theirs", "-M", "ties", "--density", "-1"), "density is -1"),
    "a value that is none": (("theirs", "-M", "ties", "--density", "much"), "density is 'much'"),
    "a parameter twice": (("theirs", "-M", "ties", "--density", "1", "--set", "density=1"), "density is given twice"),
    "parameters without a method": (("theirs", "--density", "1"), "without a method"),
    "no such commit": (("nowhere", "-M", "ties"), "neither a commit nor a file"),
    "a commit twice": (("theirs", "theirs", "-M", "ties"), "named twice"),
    "too many inputs": (("theirs", "others", "-M", "slerp"), "takes 2 inputs"),
    "a pattern that matches nothing": (("theirs", "-M", "ties", "--override", "x*", "ours"), "no parameter matches"),
    "a recipe that does not exist": (("theirs", "--recipe", "none.json"), "none.json"),
    "a recipe and a method": (("theirs", "-M", "ties", "--recipe", "notes.txt"), "a recipe says everything"),
    "a recipe that is none": (("theirs", "--recipe", "notes.txt"), "recipe"),
    "a recipe of bytes": (("theirs", "--recipe", NAME), "it is not a text"),
    "continue with commits": (("--continue", "theirs"), "takes no commits"),
    "nothing to continue": (("--continue",), "no checkpoint is in conflict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_one_error_and_changes_nothing(repo: GitSandbox, case: str) -> None:
    words, expected = REFUSED[case]
    before = _state(repo)
    result = theta(repo.path, "merge", *words)
    assert result.status in (1, 2)
    assert result.out == ""
    assert len(result.err.splitlines()) == 1, result.err
    assert expected in result.err
    assert _state(repo) == before


@pytest.mark.parametrize("change", ["staged", "modified", "under way"])
def test_a_state_that_is_not_committed_is_refused(repo: GitSandbox, change: str) -> None:
    if change == "staged":
        repo.write("notes.txt", b"staged\n")
        repo("add", "notes.txt")
    elif change == "modified":
        repo.write(NAME, safetensors(weights(5, seed=5)))
    else:
        repo.run("merge", "theirs", check=False)
    before = _state(repo)
    result = theta(repo.path, "merge", "others", "--method", "linear")
    assert result.status == 1
    assert _state(repo) == before


def test_files_in_the_way_are_kept(repo: GitSandbox) -> None:
    repo.write("theirs.txt", b"mine, and not in git\n")
    before = _state(repo)
    result = theta(repo.path, "merge", "theirs", "--method", "linear")
    assert result.status == 1
    assert "theirs.txt" in result.err
    assert "merge --ff-only" in result.err
    assert _state(repo) == before


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_a_recipe_is_used_for_another_merge(repo: GitSandbox, tmp_path: Path) -> None:
    said(repo.path, "merge", "theirs", "--method", "ties", "--density", "0.5")
    (tmp_path / "recipe.json").write_text(recipe_of(repo))
    first = content(repo)
    repo("reset", "-q", "--hard", "HEAD~1")
    said(repo.path, "merge", "theirs", "--recipe", str(tmp_path / "recipe.json"))
    assert same(content(repo), first), "the same recipe and inputs"
    said(repo.path, "merge", "others", "--recipe", str(tmp_path / "recipe.json"))
    assert json.loads(recipe_of(repo))["choice"]["parameters"]["density"] == 0.5


def test_a_configuration_of_mergekit(repo: GitSandbox, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1}\n- model: b\n  parameters: {weight: 1}\n"
    )
    said(repo.path, "merge", "theirs", "--recipe", str(tmp_path / "config.yaml"))
    assert same(content(repo), AVERAGE)


HOSTILE = {
    "unknown key": '{"theta-merge": 1, "run": "rm"}',
    "newer form": '{"theta-merge": 2}',
    "a key twice": '{"theta-merge": 1, "theta-merge": 1}',
    "a bomb of aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "code": "!!python/object/apply:os.system ['touch pwned']",
    "deep": "[" * 100_000,
    "not a number": '{"theta-merge": NaN}',
    "empty": "",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_recipes_are_one_error(repo: GitSandbox, tmp_path: Path, case: str) -> None:
    (tmp_path / "recipe").write_text(HOSTILE[case])
    before = _state(repo)
    result = theta(repo.path, "merge", "theirs", "--recipe", str(tmp_path / "recipe"))
    assert result.status == 1
    assert len(result.err.splitlines()) == 1, result.err
    assert _state(repo) == before
    assert not (repo.path / "pwned").exists()


def test_a_method_may_be_spelled_with_its_parameters(repo: GitSandbox) -> None:
    said(repo.path, "merge", "theirs", "--method", "ties:density=0.5,scale=2", "--scale", "0.5")
    parameters = json.loads(recipe_of(repo))["choice"]["parameters"]
    assert (parameters["density"], parameters["scale"]) == (0.5, 0.5)


def test_methods_that_need_statistics_of_the_data(repo: GitSandbox) -> None:
    before = repo("rev-parse", "HEAD")
    result = theta(repo.path, "merge", "theirs", "--method", "fisher")
    assert result.status == 1
    assert "'fisher' needs statistics of the training data" in result.err
    assert "--statistics FILE" in result.err
    for name, factor in (("a", 3.0), ("b", 1.0)):
        repo.write(f"sub/{name}.safetensors", safetensors({k: np.full_like(v, factor) for k, v in OURS.items()}))
    words = ("--method", "fisher", "--statistics", "a.safetensors", "--statistics")
    result = theta(repo.path / "sub", "merge", "theirs", *words, "none.safetensors")
    assert result.status == 1
    assert "sub/none.safetensors cannot be read: No such file" in result.err
    assert repo("rev-parse", "HEAD") == before
    said(repo.path / "sub", "merge", "theirs", *words, "b.safetensors")
    wanted = 0.75 * OURS["layer.2.weight"] + 0.25 * THEIRS["layer.2.weight"]
    np.testing.assert_allclose(content(repo)["layer.2.weight"], wanted, rtol=1e-5, atol=1e-6)
    assert "6 parameters the same" in said(repo.path, "replay")
    repo("reset", "-q", "--hard", before.strip())
    repo.run("merge", "-q", "theirs", check=False, env={"GIT_THETA_MERGE": "fisher"})
    assert theta(repo.path, "merge", "--continue", "--method", "fisher").status == 1
    said(repo.path / "sub", "merge", "--continue", *words, "b.safetensors")
    np.testing.assert_allclose(content(repo)["layer.2.weight"], wanted, rtol=1e-5, atol=1e-6)
