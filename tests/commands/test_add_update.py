"""``git theta add --update-type``: updates of the committed version, from a file or found, in real git."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands.running import json_of, said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch, safetensors
from tests.git.checks import age, assert_quiet, manifest_of, manifest_text, objects, theta_dir
from tests.git.killing import group, run_and_kill
from tests.git.objects import assert_sound
from theta_nb import Repository
from theta_nb.errors import ThetaError

NAMES = ("m.safetensors", "m.pt")
SHAPE = (256, 192)


def weights(seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    named = {f"layer.{n}.weight": rng.normal(size=SHAPE).astype(dtype) for n in range(3)}
    return {**named, "layer.0.bias": rng.normal(size=SHAPE[0]).astype(dtype)}


def content(name: str, state: dict[str, np.ndarray[Any, Any]]) -> bytes:
    if name.endswith(".safetensors"):
        return safetensors(state)
    return pytorch({key: torch.from_numpy(value.copy()) for key, value in state.items()})


def factors(seed: int = 1, layer: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    name = f"layer.{layer}.weight"
    return {
        f"{name}/R": rng.normal(size=(SHAPE[0], 2)).astype(np.float32),
        f"{name}/C": 0.01 * rng.normal(size=(2, SHAPE[1])).astype(np.float32),
    }


@pytest.fixture
def committed(repository: GitSandbox) -> GitSandbox:
    """A repository with both kinds of checkpoint, and the file of an update outside of it."""
    for name in NAMES:
        repository.write(name, content(name, weights()))
    age(repository, [*NAMES, ".gitattributes"])
    repository.commit_all("first")
    repository("status")
    (repository.path.parent / "lora.safetensors").write_bytes(safetensors(factors()))
    (repository.path.parent / "lora.pt").write_bytes(content("lora.pt", factors()))
    return repository


def snapshot(repo: GitSandbox) -> tuple[Any, ...]:
    """Everything that a failed command may not change."""
    files = {name: (repo.path / name).read_bytes() for name in os.listdir(repo.path) if name != ".git"}
    return files, repo("ls-files", "-s"), repo("rev-parse", "HEAD")


# --- from a file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option", "file"),
    [("m.safetensors", "--update-data", "lora.pt"), ("m.pt", "--update-path", "lora.safetensors")],
)
def test_an_update_is_applied_staged_and_committed(committed: GitSandbox, name: str, option: str, file: str) -> None:
    first = (committed.path / name).read_bytes()
    before = objects(committed)
    out = said(committed.path, "add", name, "--update-type", "low-rank", option, f"../{file}")
    assert out.startswith(f"added {name}\nstored as low-rank (")
    assert "% of dense" in out
    assert len(objects(committed) - before) == 1
    second = (committed.path / name).read_bytes()
    assert second != first
    assert committed("status", "--porcelain") == f"M  {name}\n"
    staged = committed("ls-files", "-s", name)
    age(committed, [name])
    committed("add", name)
    assert committed("ls-files", "-s", name) == staged, "the next add changes something"
    said(committed.path, "add", "--renormalize", name)
    assert committed("ls-files", "-s", name) == staged
    committed("commit", "-qm", "lora")
    assert_quiet(committed)
    assert manifest_of(committed, name).value_of("layer.0.weight").update == "low-rank"
    for revision, data in (("HEAD~1", first), ("HEAD", second)):
        committed("checkout", "-q", revision, "--", name)
        assert (committed.path / name).read_bytes() == data
    said(committed.path, "fsck", "--all")
    said(committed.path, "gc", "--grace", "0")
    (committed.path / name).unlink()
    committed("checkout", "-q", "--", name)
    assert (committed.path / name).read_bytes() == second


def test_the_values_are_those_of_the_formula(committed: GitSandbox) -> None:
    said(committed.path, "add", "m.pt", "--update-type", "low-rank", "--update-data", "../lora.pt")
    found = torch.load(committed.path / "m.pt", weights_only=True)
    data = {key: value.astype(np.float64) for key, value in factors().items()}
    exact = weights()["layer.0.weight"] + data["layer.0.weight/R"] @ data["layer.0.weight/C"]
    assert np.allclose(found["layer.0.weight"].numpy(), exact, rtol=1e-6, atol=1e-7)
    assert np.array_equal(found["layer.1.weight"].numpy(), weights()["layer.1.weight"])


@pytest.mark.slow
def test_chains_grow_and_end(committed: GitSandbox) -> None:
    """Update after update on the same tensor: behind the longest chain something shorter begins anew."""
    repo = Repository(committed.path)
    lengths = []
    for seed in range(12):
        repo.add("m.safetensors", update_type="low-rank", update_data=factors(seed))
        committed("commit", "-qm", f"lora {seed}")
        value = manifest_of(committed, "m.safetensors").value_of("layer.0.weight")
        lengths.append(max(len(chunk.links()) for chunk in value.chunks))
    assert max(lengths) <= 9
    assert lengths[:8] == list(range(2, 10))
    assert lengths[8] < 9
    assert_quiet(committed)
    said(committed.path, "fsck", "--all")


def test_the_mode_of_the_file_is_kept(committed: GitSandbox) -> None:
    path = committed.path / "m.pt"
    path.chmod(0o750)
    committed("add", "m.pt")
    committed("commit", "-qm", "executable")
    said(committed.path, "add", "m.pt", "--update-type", "low-rank", "--update-data", "../lora.pt")
    assert path.stat().st_mode & 0o777 == 0o750
    assert committed("ls-files", "-s", "m.pt").startswith("100755")
    assert committed("status", "--porcelain") == "M  m.pt\n"


def test_from_a_folder_below_and_with_a_manifest_in_the_work_tree(committed: GitSandbox) -> None:
    (committed.path / "sub").mkdir()
    committed("mv", "m.pt", "sub/m.pt")
    committed("commit", "-qm", "move")
    (committed.path / "sub/m.pt").unlink()
    committed.run("checkout", "--", "sub/m.pt", env={"GIT_THETA_SKIP_SMUDGE": "1"})
    assert (committed.path / "sub/m.pt").read_bytes().startswith(b"theta-manifest")
    said(committed.path / "sub", "add", "m.pt", "--update-type", "low-rank", "--update-data", "../../lora.pt")
    assert committed("status", "--porcelain") == "M  sub/m.pt\n"
    assert "layer.0.weight" in torch.load(committed.path / "sub/m.pt", weights_only=True)


def test_a_merge_recipe_is_dropped_and_other_parameters_keep_their_encoding(committed: GitSandbox) -> None:
    before = manifest_of(committed, "m.safetensors")
    text = manifest_text(committed, "m.safetensors").replace("\n\n", '\nrecipe {"a":1}\n\n', 1)
    blob = committed.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
    committed("update-index", "--cacheinfo", f"100644,{blob},m.safetensors")
    committed("commit", "-qm", "merged")
    Repository(committed.path).add("m.safetensors", update_type="low-rank", update_data=factors())
    after = manifest_of(committed, "m.safetensors")
    assert after.recipe == ""
    assert after.value_of("layer.1.weight") == before.value_of("layer.1.weight")


def test_an_update_that_changes_nothing_says_so(committed: GitSandbox) -> None:
    before = snapshot(committed)
    result = Repository(committed.path).add(
        "m.pt", update_type="ia3", update_data={"layer.0.weight/ia3": np.float32(1)}
    )
    assert result.notes == ("the update changes nothing",)
    assert snapshot(committed) == before
    assert_quiet(committed)


def test_what_shares_its_values_is_named(repository: GitSandbox) -> None:
    w = torch.ones(64, 64)
    repository.write("m.pt", pytorch({"embed.weight": w, "head.weight": w}))
    repository.commit_all("tied")
    result = Repository(repository.path).add(
        "m.pt", update_type="ia3", update_data={"head.weight/ia3": torch.tensor(2.0)}
    )
    assert result.notes == ("embed.weight shares its values and changes with what the update names",)
    found = torch.load(repository.path / "m.pt", weights_only=True)
    assert found["embed.weight"].data_ptr() == found["head.weight"].data_ptr()
    assert found["embed.weight"][0, 0] == 2
    assert repository("status", "--porcelain") == "M  m.pt\n"


# --- refused, and nothing changed -------------------------------------------------------------------------------------

ADD = ("add", "m.pt", "--update-type", "low-rank", "--update-data", "../lora.pt")


def modify(repo: GitSandbox) -> None:
    repo.write("m.pt", content("m.pt", weights(5)))


def stage(repo: GitSandbox) -> None:
    modify(repo)
    repo("add", "m.pt")


def stage_and_restore(repo: GitSandbox) -> None:
    first = (repo.path / "m.pt").read_bytes()
    stage(repo)
    repo.write("m.pt", first)


def start_anew(repo: GitSandbox) -> None:
    repo("checkout", "-q", "--orphan", "new")


def remove(repo: GitSandbox) -> None:
    (repo.path / "m.pt").unlink()


def conflict(repo: GitSandbox) -> None:
    repo("checkout", "-qb", "side")
    repo.write("m.pt", content("m.pt", weights(6)))
    repo("commit", "-qam", "theirs")
    repo("checkout", "-q", "main")
    repo.write("m.pt", content("m.pt", weights(7)))
    repo("commit", "-qam", "ours")
    repo.run("merge", "side", check=False)


def store_whole(repo: GitSandbox) -> None:
    data = (repo.path / "m.pt").read_bytes()
    blob = repo.run("hash-object", "-w", "--no-filters", "m.pt").stdout.strip()
    repo("update-index", "--cacheinfo", f"100644,{blob},m.pt")
    repo("commit", "-qm", "whole")
    repo.write("m.pt", data)


def untrack(repo: GitSandbox) -> None:
    repo.write(".gitattributes", b"")
    repo("add", ".gitattributes")
    repo("commit", "-qm", "untracked")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (modify, "has changes that are not committed"),
        (stage, "other content of m.pt is staged than committed"),
        (stage_and_restore, "git restore --staged m.pt"),
        (start_anew, "Commit the checkpoint first"),
        (remove, "git checkout -- m.pt"),
        (conflict, "in conflict"),
        (store_whole, "git add --renormalize m.pt"),
        (untrack, "not tracked"),
    ],
)
def test_work_tree_index_and_head_must_agree(
    committed: GitSandbox, prepare: Callable[[GitSandbox], None], message: str
) -> None:
    prepare(committed)
    before = snapshot(committed) if prepare is not start_anew else None
    result = theta(committed.path, *ADD)
    assert result.status == 1
    assert message in result.err
    if before is not None:
        assert snapshot(committed) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.pt", "--update-type", "low-rank", "--update-data", "../none.pt"], "No such file"),
        (["m.pt", "--update-data", "../lora.pt"], "--update-type low-rank|sparse|ia3"),
        (["m.pt", "--update-type", "ia3", "--update-data", "../lora.pt"], "no part of the update type ia3"),
        (["*.pt", "m.safetensors", "--update-type", "low-rank", "--update-data", "../lora.pt"], "one checkpoint"),
        (
            ["m.pt", "--update-type", "low-rank", "--update-data", "../lora.pt", "--rank", "3"],
            "not for those of a file",
        ),
        (["m.pt", "--rank", "3"], "need an update type"),
        (["m.pt", "--update-type", "magic"], "no update type 'magic'"),
        (["m.pt", "--update-type", "delta", "--rank", "3"], "mean nothing to 'delta'"),
        (["m.pt", "--update-type", "low-rank", "--rank", "0"], "not a positive number"),
        (["m.pt", "--update-type", "low-rank", "--tolerance", "2"], "not a share"),
    ],
)
def test_arguments_that_make_no_sense(committed: GitSandbox, arguments: list[str], message: str) -> None:
    before = snapshot(committed)
    result = theta(committed.path, "add", *arguments)
    assert result.status != 0
    assert any(part in result.err for part in ([message] if message.startswith("--") else message.split("|"))), (
        result.err
    )
    assert snapshot(committed) == before


def test_an_update_that_does_not_fit_changes_nothing(committed: GitSandbox) -> None:
    (committed.path.parent / "lora.pt").write_bytes(content("x.pt", factors(layer=7)))
    before = snapshot(committed)
    result = theta(committed.path, *ADD)
    assert "has no parameter for its only name of the update: layer.7.weight" in result.err
    assert snapshot(committed) == before


def test_a_damaged_object_is_named_and_nothing_changed(committed: GitSandbox) -> None:
    from tests.git.objects import flip

    oid = next(manifest_of(committed, "m.pt").value_of("layer.0.weight").oids)
    flip(committed, oid, -100)
    before = snapshot(committed)
    result = theta(committed.path, *ADD)
    assert result.status == 1
    assert "layer.0.weight" in result.err
    assert snapshot(committed) == before


def test_an_index_that_is_locked_leaves_what_add_completes(committed: GitSandbox) -> None:
    lock = committed.path / ".git/index.lock"
    lock.touch()
    result = theta(committed.path, *ADD)
    assert result.status == 1
    assert "The work tree is complete: run 'git add m.pt'" in result.err
    lock.unlink()
    committed("add", "m.pt")
    assert manifest_of(committed, "m.pt").value_of("layer.0.weight").update == "low-rank"


def test_pathspecs_may_be_literal(committed: GitSandbox) -> None:
    committed("--literal-pathspecs", "theta", *ADD)
    assert committed("status", "--porcelain") == "M  m.pt\n"


# --- found in what changed --------------------------------------------------------------------------------------------


def step(repo: GitSandbox, name: str, update: str, dtype: Any = np.float32) -> bytes:
    """Write a file whose first layer differs from HEAD as an update of a type would make it."""
    state = weights(dtype=dtype)
    w = state["layer.0.weight"].astype(np.float64)
    if update == "low-rank":
        r, c = (factors()[f"layer.0.weight/{part}"].astype(np.float64) for part in "RC")
        w += r @ c
    elif update == "ia3":
        w *= 1 + 0.1 * np.random.default_rng(4).normal(size=(1, SHAPE[1])).astype(np.float32).astype(np.float64)
    elif update == "sparse":
        w.reshape(-1)[::997] += 1
    else:
        w *= 1 + 1e-4 * np.random.default_rng(4).normal(size=SHAPE)
    data = content(name, {**state, "layer.0.weight": w.astype(dtype)})
    repo.write(name, data)
    return data


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("update", ["low-rank", "ia3", "sparse", "delta", "dense"])
def test_what_changed_is_stored_as_asked_for_and_exactly(committed: GitSandbox, name: str, update: str) -> None:
    data = step(committed, name, update)
    out = said(committed.path, "add", name, "--update-type", update)
    assert f"stored as {update} (" in out
    assert (committed.path / name).read_bytes() == data
    assert committed("status", "--porcelain") == f"M  {name}\n"
    staged = committed("ls-files", "-s", name)
    age(committed, [name])
    committed("add", name)
    assert committed("ls-files", "-s", name) == staged
    committed("commit", "-qm", update)
    assert manifest_of(committed, name).value_of("layer.0.weight").update == update
    (committed.path / name).unlink()
    committed("checkout", "--", name)
    assert (committed.path / name).read_bytes() == data
    assert_quiet(committed)
    said(committed.path, "fsck", "--all")


def test_a_choice_takes_the_place_of_what_was_staged(committed: GitSandbox) -> None:
    step(committed, "m.pt", "low-rank")
    committed("add", "m.pt")
    assert manifest_of(committed, "m.pt").value_of("layer.0.weight").update == "delta"
    said(committed.path, "add", "m.pt", "--update-type", "low-rank", "--rank", "2")
    assert manifest_of(committed, "m.pt").value_of("layer.0.weight").update == "low-rank"


@pytest.mark.parametrize("update", ["low-rank", "ia3", "sparse"])
def test_what_does_not_pay_is_refused_with_sizes(committed: GitSandbox, update: str) -> None:
    step(committed, "m.pt", "delta")
    before, stored = snapshot(committed), objects(committed)
    result = theta(committed.path, "add", "m.pt", "--update-type", update)
    assert result.status == 1
    assert update in result.err
    assert "dense takes 1" in result.err
    assert "the automatic choice" in result.err
    assert "Run 'git add m.pt'" in result.err
    assert snapshot(committed) == before
    assert objects(committed) == stored
    assert not list((theta_dir(committed) / "tmp").glob("add-*"))


def test_nothing_changed_is_no_update(committed: GitSandbox) -> None:
    before = snapshot(committed)
    assert "nothing differs from the last commit" in said(committed.path, "add", "m.pt", "--update-type", "low-rank")
    assert snapshot(committed) == before


def test_without_a_commit_there_is_nothing_to_be_an_update_of(repository: GitSandbox) -> None:
    repository.write("m.pt", content("m.pt", weights()))
    for arguments in (["--update-type", "delta"], ["--update-type", "ia3", "--update-data", "x.pt"]):
        (repository.path / "x.pt").write_bytes(content("x.pt", {"layer.0.bias/ia3": np.ones(1, np.float32)}))
        result = theta(repository.path, "add", "m.pt", *arguments)
        assert "no committed version" in result.err
        assert "Commit the checkpoint first" in result.err


# --- the Python API ---------------------------------------------------------------------------------------------------


def test_the_api_takes_tensors_paths_and_names(committed: GitSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = Repository(committed.path)
    monkeypatch.chdir(committed.path.parent)
    tensors = {key: torch.from_numpy(value).bfloat16() for key, value in factors().items()}
    result = repo.add("m.pt", update_type="low-rank", update_data=tensors)
    assert result.stored is not None
    assert set(result.stored.nbytes) == {"low-rank"}
    repo.add("m.safetensors", update_type="low-rank", update_data="lora.safetensors")
    assert committed("status", "--porcelain") == "M  m.pt\nM  m.safetensors\n"
    with pytest.raises(ThetaError, match="is staged than committed"):
        repo.add("m.pt", update_type="low-rank", update_data=Path("lora.pt"))
    committed("commit", "-qm", "both")
    step(committed, "m.pt", "dense")
    assert repo.add("m.pt", update_type="dense").stored is not None


# --- killed in the middle ---------------------------------------------------------------------------------------------


@pytest.fixture
def big(repository: GitSandbox) -> GitSandbox:
    """A checkpoint that takes a moment."""
    rng = np.random.default_rng(0)
    state = {f"layer.{n}.weight": rng.normal(size=(512, 1024)).astype(np.float32) for n in range(8)}
    repository("config", "core.checkStat", "minimal")
    repository.write("m.pt", content("m.pt", state))
    age(repository, ["m.pt", ".gitattributes"])
    repository.commit_all("first")
    repository("status")
    data = {f"layer.{n}.weight/R": rng.normal(size=(512, 4)).astype(np.float32) for n in range(8)}
    data |= {f"layer.{n}.weight/C": rng.normal(size=(4, 1024)).astype(np.float32) for n in range(8)}
    (repository.path.parent / "lora.pt").write_bytes(content("lora.pt", data))
    return repository


def copied(repo: GitSandbox, path: Path) -> GitSandbox:
    shutil.copytree(repo.path, path / "repo", symlinks=True)
    shutil.copy(repo.path.parent / "lora.pt", path / "lora.pt")
    return GitSandbox(path / "repo")


@pytest.mark.parametrize("moments", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_update_leaves_the_old_or_the_new_state(big: GitSandbox, tmp_path: Path, moments: int) -> None:
    (tmp_path / "done").mkdir()
    done = copied(big, tmp_path / "done")
    start = time.monotonic()
    done("theta", *ADD)
    seconds = time.monotonic() - start
    old, new = (big.path / "m.pt").read_bytes(), (done.path / "m.pt").read_bytes()
    staged = {repo("ls-files", "-s", "m.pt") for repo in (big, done)}
    for n in range(moments):
        folder = tmp_path / f"killed-{n}"
        folder.mkdir()
        repo = copied(big, folder)
        moment = seconds * (0.3 + 0.8 * n / moments)
        run_and_kill(["git", "theta", *ADD], repo.path, lambda elapsed, at=moment: elapsed >= at, group, signal.SIGKILL)
        for lock in (repo.path / ".git").glob("*.lock"):  # as its user would
            lock.unlink()
        assert_sound(repo)
        assert sorted(path.name for path in repo.path.iterdir()) == [".git", ".gitattributes", "m.pt"]
        found, index = (repo.path / "m.pt").read_bytes(), repo("ls-files", "-s", "m.pt")
        assert found in (old, new)
        assert index in staged
        assert found == new or index == big("ls-files", "-s", "m.pt"), "staged before it was written"
        # What is missing of the new state is what 'git add' does.
        if found == old:
            repo("theta", *ADD)
        repo("add", "m.pt")
        assert repo("ls-files", "-s", "m.pt") == done("ls-files", "-s", "m.pt")
        assert (repo.path / "m.pt").read_bytes() == new
        shutil.rmtree(folder)


def test_json_is_not_offered_where_there_is_none(committed: GitSandbox) -> None:
    """The result of add has no JSON yet; status shows what it staged."""
    said(committed.path, *ADD)
    (item,) = (item for item in json_of(committed.path, "status")["checkpoints"] if item["path"] == "m.pt")
    assert item["changed"] == ["layer.0.weight"]
    assert item["staged"]


@pytest.mark.parametrize("data", [5, [1, 2], b"bytes"])
def test_what_is_no_update_is_told_what_one_is(committed: GitSandbox, data: object) -> None:
    with pytest.raises(ThetaError, match=r"has to be a path, or arrays by name"):
        Repository(committed.path).add("m.safetensors", update_type="low-rank", update_data=data)  # type: ignore[arg-type]
