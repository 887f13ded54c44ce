"""Checkpoints stored as chains of updates, under every command that moves, rewrites, copies or prunes history.

The history (``NAME``; tensors ``big``, ``tuned`` and ``fixed``)::

    v0 ── v1 ── v2 ── v3     main: every version fine-tunes ``tuned`` and changes a few numbers of ``big``
           └─── s2 ── s3     side: fine-tunes ``fixed``, which main never touches
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import age, assert_quiet, manifest_of, manifest_text, objects, remove_objects, theta_dir, warnings
from tests.git.killing import filters, group, leader, run_and_kill
from tests.git.objects import assert_sound, flip, object_path
from theta_nb.commands.fsck import fsck
from theta_nb.commands.gc import gc
from theta_nb.git.places import find_places
from theta_nb.git.pointer_names import pointer_names
from theta_nb.manifest.model import ChunkRef
from theta_nb.repository import Repository

NAME = "m.safetensors"
Tensors = dict[str, np.ndarray]


def _tuned(old: np.ndarray, seed: int) -> np.ndarray:
    return (old * (1 + 2e-6 * np.random.default_rng(seed).normal(size=old.shape))).astype(old.dtype)


def _versions() -> dict[str, Tensors]:
    rng = np.random.default_rng(0)
    found = {"v0": {n: rng.normal(size=(400, 200)).astype(np.float32) for n in ("big", "fixed", "tuned")}}
    for number in (1, 2, 3):
        before = found[f"v{number - 1}"]
        found[f"v{number}"] = {**before, "big": before["big"].copy(), "tuned": _tuned(before["tuned"], number)}
        found[f"v{number}"]["big"][number, :3] = number
    found["s2"] = {**found["v1"], "fixed": _tuned(found["v1"]["fixed"], 12)}
    found["s3"] = {**found["s2"], "fixed": _tuned(found["s2"]["fixed"], 13)}
    return found


VERSIONS = _versions()
DATA = {name: safetensors(tensors) for name, tensors in VERSIONS.items()}
MERGED = safetensors({**VERSIONS["v3"], "fixed": VERSIONS["s3"]["fixed"]})
NEXT = safetensors({**VERSIONS["v3"], "fixed": _tuned(VERSIONS["v3"]["fixed"], 40)})


@pytest.fixture
def chains(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> GitSandbox:
    """A copy of the history above, made once; every version is a tag."""
    template = tmp_path_factory.getbasetemp() / "chains-template"
    if not template.exists():
        repo = new_repository("template")
        repo("config", "core.checkStat", "minimal")  # a copy has other inodes
        repo("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
        for tag in ("v0", "v1", "s2", "s3", "v2", "v3"):
            if tag == "s2":
                repo("switch", "-qc", "side")
            if tag == "v2":
                repo("switch", "-q", "main")
            train(repo, tag)
            repo("tag", tag)
        repo("status")
        repo.path.rename(template)
    shutil.copytree(template, tmp_path / "repo", symlinks=True)
    return GitSandbox(tmp_path / "repo")


def train(repo: GitSandbox, tag: str) -> None:
    """Write a version and commit it."""
    repo.write(NAME, DATA[tag])
    age(repo, [NAME, ".gitattributes"])
    repo.commit_all(tag)


def content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


def chain(repo: GitSandbox, parameter: str, rev: str = "HEAD", name: str = NAME) -> tuple[ChunkRef, ...]:
    """The steps that lead to a tensor."""
    (ref,) = manifest_of(repo, name, rev).value_of(parameter).chunks
    return ref.links()


def kinds(repo: GitSandbox, parameter: str, rev: str = "HEAD", name: str = NAME) -> list[str]:
    return [link.update for link in chain(repo, parameter, rev, name)]


def assert_whole(repo: GitSandbox) -> None:
    """Every version of every branch can be rebuilt, nothing under a wrong name, and git sees no change."""
    assert fsck(find_places(repo.path), all_=True).problems == ()
    assert_sound(repo)
    assert_quiet(repo)


# --- history ----------------------------------------------------------------------------------------------------------


def test_the_scene_has_chains_and_every_version_comes_back(chains: GitSandbox) -> None:
    assert kinds(chains, "tuned") == ["dense", "delta", "delta", "delta"]
    assert kinds(chains, "big") == ["dense", "sparse", "sparse", "sparse"]
    assert kinds(chains, "fixed") == ["dense"]
    assert kinds(chains, "fixed", "side") == ["dense", "delta", "delta"]
    for tag, data in DATA.items():
        chains("checkout", "-q", tag)
        assert content(chains) == data, tag
    assert_whole(chains)


@pytest.mark.parametrize("command", [("merge", "-q", "-m", "merge"), ("rebase", "-q")], ids=["merge", "rebase"])
def test_chains_of_two_branches_meet(chains: GitSandbox, command: tuple[str, ...]) -> None:
    chains("switch", "-q", "side")
    before = objects(chains)
    chains(*command, "main")
    assert content(chains) == MERGED
    assert chain(chains, "fixed") == chain(chains, "fixed", "s3"), "a merge encodes nothing again"
    assert chain(chains, "tuned") == chain(chains, "tuned", "v3")
    new = {name for name in objects(chains) - before if object_path(chains, name).stat().st_size > 5000}
    assert not new, "a merge stores no tensor again"
    assert_whole(chains)
    train(chains, "s2")  # and on from there
    assert_whole(chains)


def test_squash_merge_keeps_the_chain_when_the_branch_is_gone(chains: GitSandbox) -> None:
    chains("checkout", "-q", "-b", "release", "v1")
    chains("merge", "-q", "--squash", "side")
    chains("commit", "-qm", "squashed")
    _forget(chains, keep="release")
    assert_whole(chains)
    assert content(chains) == DATA["s3"]
    assert kinds(chains, "fixed") == ["dense", "delta", "delta"]


def test_cherry_pick_and_revert(chains: GitSandbox) -> None:
    chains("cherry-pick", "s2", "s3")
    assert content(chains) == MERGED
    before = objects(chains)
    chains("revert", "--no-edit", "HEAD", "HEAD~1")
    assert content(chains) == DATA["v3"]
    assert chain(chains, "fixed") == chain(chains, "fixed", "v3")
    assert len(objects(chains) - before) <= 1, "going back stores no tensor"
    assert_whole(chains)


def test_amend_again_and_again(chains: GitSandbox) -> None:
    """Each amend starts from the commit that it replaces, and the chain does not outgrow its limit."""
    tensors = dict(VERSIONS["v3"])
    for number in range(7):
        tensors["big"] = tensors["big"].copy()
        tensors["big"][0, number] = 100 + number
        chains.write(NAME, safetensors(tensors))
        chains("commit", "-qa", "--amend", "--no-edit")
        assert len(chain(chains, "big")) <= 9
    assert content(chains) == safetensors(tensors)
    assert_whole(chains)


def test_adding_again_and_again_does_not_chain_through_what_was_staged(chains: GitSandbox) -> None:
    tensors = dict(VERSIONS["v3"])
    for number in range(3):
        tensors["tuned"] = _tuned(tensors["tuned"], 20 + number)
        chains.write(NAME, safetensors(tensors))
        chains("add", NAME)
        committed, staged = chain(chains, "tuned", "HEAD"), chain(chains, "tuned", "")
        assert set(staged[:-1]) <= set(committed)
    chains("commit", "-qm", "the last one")
    assert_whole(chains)


def test_a_renamed_checkpoint_goes_on_with_its_values(chains: GitSandbox) -> None:
    chains("mv", NAME, "renamed.safetensors")
    chains("commit", "-qm", "renamed")
    assert content(chains, "renamed.safetensors") == DATA["v3"]
    assert kinds(chains, "tuned", name="renamed.safetensors") == ["dense", "delta", "delta", "delta"]
    chains.write("renamed.safetensors", NEXT)
    chains.commit_all("trained")
    assert kinds(chains, "fixed", name="renamed.safetensors") == ["dense", "delta"]
    assert_whole(chains)


def test_renamed_and_trained_in_one_commit_is_still_whole(chains: GitSandbox) -> None:
    chains("mv", NAME, "renamed.safetensors")
    chains.write("renamed.safetensors", NEXT)
    chains.commit_all("renamed and trained")
    assert chain(chains, "tuned", name="renamed.safetensors") == chain(chains, "tuned", "v3"), "what is known stays"
    assert kinds(chains, "fixed", name="renamed.safetensors") == ["dense"], "a new path has no version before"
    assert_whole(chains)


def test_stash_and_pop(chains: GitSandbox) -> None:
    chains.write(NAME, NEXT)
    chains("stash", "-q")
    assert content(chains) == DATA["v3"]
    assert_whole(chains)
    chains("stash", "pop", "-q")
    assert content(chains) == NEXT
    assert chains("status", "--porcelain") == f" M {NAME}\n"
    chains.commit_all("from the stash")
    assert kinds(chains, "fixed") == ["dense", "delta"]
    assert_whole(chains)


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(chains: GitSandbox, tmp_path: Path) -> GitSandbox:
    """A bare repository to which the newest commit of main was pushed, with nothing but what it needs."""
    path = tmp_path / "server.git"
    subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    chains("remote", "add", "origin", str(path))
    chains("push", "-q", "origin", "main")
    return GitSandbox(path)


def clone(server: GitSandbox, path: Path, *options: str) -> GitSandbox:
    filters = ("-c", "filter.theta.process=git-theta filter-process", "-c", "filter.theta.required=true")
    server("clone", "-q", *filters, *options, f"file://{server.path}", str(path))
    return GitSandbox(path)


def test_a_push_brings_every_object_of_every_chain(chains: GitSandbox, server: GitSandbox) -> None:
    there = {path.name for path in (server.path / "lfs/objects").rglob("*") if path.is_file()}
    needed = {oid for tag in ("v0", "v1", "v2", "v3") for oid in manifest_of(chains, NAME, tag).objects}
    assert there == needed
    assert {link.oid for name in ("big", "tuned") for link in chain(chains, name)} <= there
    chains("push", "-q", "origin", "side")
    there = {path.name for path in (server.path / "lfs/objects").rglob("*") if path.is_file()}
    assert {link.oid for link in chain(chains, "fixed", "side")} <= there


def test_a_shallow_clone_has_the_whole_chain(server: GitSandbox, tmp_path: Path) -> None:
    shallow = clone(server, tmp_path / "shallow", "--depth", "1")
    assert content(shallow) == DATA["v3"]
    assert shallow("rev-list", "--count", "HEAD").strip() == "1"
    assert objects(shallow) == set(manifest_of(shallow, NAME).objects)
    shallow.write(NAME, NEXT)
    shallow.commit_all("trained in the clone")
    assert kinds(shallow, "fixed") == ["dense", "delta"]
    assert_whole(shallow)
    shallow("push", "-q", "origin", "HEAD:refs/heads/trained")
    other = clone(server, tmp_path / "other", "-b", "trained")
    assert content(other) == NEXT


def test_single_parameters_are_fetched_with_their_whole_chains(server: GitSandbox, tmp_path: Path) -> None:
    partial = clone(server, tmp_path / "partial", "--no-checkout")
    partial("theta", "fetch", "--parameters", "tuned")
    here, links = objects(partial), {link.oid for link in chain(partial, "tuned")}
    assert links <= here
    assert not {link.oid for link in chain(partial, "fixed")} & here
    partial("config", "theta.fetch", "never")
    repo = Repository(partial.path)
    found = repo.checkpoint(NAME, rev="HEAD")["tuned"].numpy()
    assert np.array_equal(found, VERSIONS["v3"]["tuned"])


def test_a_partial_read_fetches_and_rebuilds_one_chain(server: GitSandbox, tmp_path: Path) -> None:
    lazy = clone(server, tmp_path / "lazy", "--no-checkout")
    repo = Repository(lazy.path)
    for tag in ("HEAD", "HEAD~1", "HEAD~3"):
        found = repo.checkpoint(NAME, rev=tag)["big"].numpy()
        assert np.array_equal(found, VERSIONS[{"HEAD": "v3", "HEAD~1": "v2", "HEAD~3": "v0"}[tag]]["big"])
    assert not {link.oid for link in chain(lazy, "fixed")} & objects(lazy)


def test_git_theta_checkout_writes_any_version(chains: GitSandbox) -> None:
    for tag in ("v1", "s3", "v3"):
        chains("theta", "checkout", "--source", tag, NAME)
        assert content(chains) == DATA[tag]


def test_a_checkpoint_saved_without_a_work_tree_is_a_step_too(chains: GitSandbox) -> None:
    import torch

    state = {name: torch.from_numpy(value) for name, value in VERSIONS["v3"].items()}
    state["fixed"] = torch.from_numpy(_tuned(VERSIONS["v3"]["fixed"], 41))
    repo = Repository(chains.path)
    repo.save(state, NAME, message="saved")
    assert kinds(chains, "fixed") == ["dense", "delta"]
    chains("checkout", "-q", "--", NAME)
    assert_whole(chains)


# --- what is deleted, and what is damaged -----------------------------------------------------------------------------


def _forget(repo: GitSandbox, keep: str) -> None:
    """Leave one branch, and nothing that remembers the others."""
    for ref in repo("for-each-ref", "--format=%(refname)").split():
        if ref != f"refs/heads/{keep}":
            repo("update-ref", "-d", ref)
    repo("reflog", "expire", "--expire=now", "--all")
    repo("gc", "-q", "--prune=now")
    gc(find_places(repo.path), grace_days=0)


def test_gc_keeps_the_bases_of_commits_that_are_gone(chains: GitSandbox) -> None:
    """The first versions are in no commit any more; their values are the beginnings of chains."""
    tree = chains("rev-parse", "HEAD^{tree}").strip()
    commit = chains("commit-tree", tree, "-m", "the beginning is forgotten").strip()
    chains("switch", "-q", "--orphan", "fresh")
    chains("reset", "-q", "--hard", commit)
    _forget(chains, keep="fresh")
    assert objects(chains) == set(manifest_of(chains, NAME).objects)
    assert kinds(chains, "tuned") == ["dense", "delta", "delta", "delta"]
    (chains.path / NAME).unlink()
    chains("checkout", "--", NAME)
    assert content(chains) == DATA["v3"]
    assert_whole(chains)


def test_gc_deletes_the_steps_that_nothing_needs(chains: GitSandbox) -> None:
    steps = {link.oid for link in chain(chains, "fixed", "side")[1:]}
    assert steps <= objects(chains)
    _forget(chains, keep="main")
    assert not steps & objects(chains)
    assert_whole(chains)


def test_compacted_chains_let_go_of_their_bases(chains: GitSandbox) -> None:
    bases = {link.oid for name in ("big", "tuned") for link in chain(chains, name)}
    chains("theta", "compact")
    chains("commit", "-qm", "compacted")
    tree = chains("rev-parse", "HEAD^{tree}").strip()
    chains("reset", "-q", "--hard", chains("commit-tree", tree, "-m", "alone").strip())
    _forget(chains, keep="main")
    assert not bases & objects(chains)
    assert content(chains) == DATA["v3"]
    assert_whole(chains)


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_fsck_names_a_link_in_the_middle(chains: GitSandbox, harm: str) -> None:
    victim = chain(chains, "tuned")[1]
    assert victim.oid not in {chain(chains, name)[0].oid for name in VERSIONS["v0"]}
    if harm == "flipped":
        flip(chains, victim.oid, victim.offset + victim.length // 2)
    else:
        object_path(chains, victim.oid).unlink()
    report = fsck(find_places(chains.path))
    told = [problem for problem in report.problems if problem.parameter == "tuned"]
    assert [(problem.kind, problem.oid) for problem in told] == [
        ("corrupt" if harm == "flipped" else "missing", victim.oid)
    ]
    # The version before it is sound, and so is that of a chain beside it.
    assert fsck(find_places(chains.path), revisions=["v0"]).problems == ()


def test_a_damaged_link_fails_the_checkout_and_names_the_object(chains: GitSandbox) -> None:
    victim = chain(chains, "tuned")[2]
    flip(chains, victim.oid, victim.offset + victim.length // 2)
    (chains.path / NAME).unlink()
    result = chains.run("checkout", "--", NAME, check=False)
    assert result.returncode
    assert victim.oid[:12] in result.stderr
    assert "tuned" in result.stderr
    chains("checkout", "-q", "v1", "--", NAME)
    assert content(chains) == DATA["v1"], "versions before it are as good as ever"


def test_a_missing_link_leaves_the_manifest_and_the_next_commit_does_without(chains: GitSandbox) -> None:
    victim = chain(chains, "tuned")[1]
    object_path(chains, victim.oid).unlink()
    (chains.path / NAME).unlink()
    result = chains.run("checkout", "--", NAME)
    assert len(warnings(result.stderr)) == 1
    assert content(chains).decode() == manifest_text(chains, NAME)
    tensors = {**VERSIONS["v3"], "tuned": _tuned(VERSIONS["v3"]["tuned"], 30)}
    chains.write(NAME, safetensors(tensors))
    chains.commit_all("trained although a base is lost")
    assert kinds(chains, "tuned") == ["dense"]
    (chains.path / NAME).unlink()
    # The layout shares its object with the lost step's neighbours, so all that is new has to be here.
    assert {p.parameter for p in fsck(find_places(chains.path), revisions=["HEAD"]).problems} == set()
    chains("checkout", "--", NAME)
    assert content(chains) == safetensors(tensors)


def test_encodings_are_forgotten_with_their_objects(chains: GitSandbox) -> None:
    """The cache remembers steps whose base was deleted; they are no longer taken."""
    steps = [link.oid for link in chain(chains, "fixed", "s3")]
    _forget(chains, keep="main")
    assert steps[0] in objects(chains)
    assert not set(steps[1:]) & objects(chains)
    chains.write(NAME, MERGED)
    chains.commit_all("the same numbers again")
    assert kinds(chains, "fixed") == ["dense", "delta"]
    assert_whole(chains)


def test_a_clone_that_skipped_the_objects_stays_quiet_over_the_same_file(chains: GitSandbox) -> None:
    """Which steps lead to a value must not depend on what happens to lie in the local store."""
    remove_objects(chains)
    chains.write(NAME, DATA["v3"])
    assert_quiet(chains)
    before = manifest_text(chains, NAME)
    age(chains, [NAME])
    chains("add", NAME)
    assert manifest_text(chains, NAME) == before


def test_a_push_without_a_link_fails_and_names_it(chains: GitSandbox, tmp_path: Path) -> None:
    path = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    victim = chain(chains, "tuned")[1]
    object_path(chains, victim.oid).unlink()
    result = chains.run("push", "-q", str(path), "main", check=False)
    assert result.returncode
    assert victim.oid[:12] in result.stderr


# --- settings ---------------------------------------------------------------------------------------------------------


def _added(repo: GitSandbox, parameter: str) -> tuple[list[str], list[str]]:
    """Steps of a parameter after a new version was added, and what was said."""
    repo.write(NAME, NEXT)
    result = repo.run("add", NAME)
    return kinds(repo, parameter, ""), warnings(result.stderr)


@pytest.mark.parametrize("setting", ["dense", "delta", "auto", "DELTA"])
def test_the_setting_says_which_type_is_used(chains: GitSandbox, setting: str) -> None:
    chains("config", "theta.update", setting)
    expected = ["dense"] if setting == "dense" else ["dense", "delta"]
    assert _added(chains, "fixed") == (expected, [])


def test_the_setting_counts_though_a_status_stored_it_otherwise(chains: GitSandbox) -> None:
    chains.write(NAME, NEXT)
    chains("status")
    chains("config", "theta.update", "dense")
    chains("add", NAME)
    assert kinds(chains, "fixed", "") == ["dense"]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [("theta-update=dense", ["dense"]), ("-theta-update", ["dense"]), ("theta-update=auto", ["dense", "delta"])],
)
def test_the_attribute_comes_first(chains: GitSandbox, attribute: str, expected: list[str]) -> None:
    chains("config", "theta.update", "delta" if expected == ["dense"] else "dense")
    with (chains.path / ".gitattributes").open("a") as file:
        file.write(f"m.* {attribute}\n")
    assert _added(chains, "fixed") == (expected, [])


def test_a_type_that_does_not_exist_is_told_once_and_the_cheapest_is_used(chains: GitSandbox) -> None:
    with (chains.path / ".gitattributes").open("a") as file:
        file.write("*.safetensors theta-update=quantum\n")
    found, said = _added(chains, "fixed")
    assert found == ["dense", "delta"]
    (line,) = said
    assert "'quantum'" in line
    assert f"theta-update of {NAME}" in line
    assert "low-rank" in line, "the known ones are listed"
    chains("config", "theta.update", "nonsense")
    chains.write(".gitattributes", b"*.safetensors filter=theta merge=theta diff=theta -text\n")
    chains("reset", "-q")
    found, said = _added(chains, "fixed")
    assert found == ["dense", "delta"]
    assert [line for line in said if "theta.update" in line and "'nonsense'" in line]


# --- a plug-in's type -------------------------------------------------------------------------------------------------

PLUGIN = """
from theta_nb.errors import CorruptObjectError


class _Negated:
    name = "negated"

    def encode(self, old, new, numbers):
        flipped = bytes(byte ^ 0x80 if index % 4 == 3 else byte for index, byte in enumerate(old))
        return b"negated" if flipped == new else None

    def apply(self, payload, dest):
        if payload != b"negated":
            raise CorruptObjectError("not a negation")
        dest[3::4] = bytes(byte ^ 0x80 for byte in dest[3::4])


NEGATED = _Negated()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip would fill it, on the path of every process that the test starts."""
    folder = tmp_path / "site"
    (folder / "negated-1.0.dist-info").mkdir(parents=True)
    (folder / "negated.py").write_text(PLUGIN)
    (folder / "negated-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: negated\nVersion: 1.0\n")
    (folder / "negated-1.0.dist-info" / "entry_points.txt").write_text(
        "[theta_nb.updates]\nnegated = negated:NEGATED\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(":")]))
    return folder


NEGATIVE = safetensors({**VERSIONS["v3"], "fixed": -VERSIONS["v3"]["fixed"]})


@pytest.fixture
def negated(chains: GitSandbox, plugin: Path) -> GitSandbox:
    """A commit whose ``fixed`` is stored by the plug-in."""
    chains("config", "theta.update", "negated")
    chains.write(NAME, NEGATIVE)
    chains.commit_all("negated")
    assert kinds(chains, "fixed") == ["dense", "negated"]
    return chains


def test_a_type_of_a_plug_in_is_used_and_read(negated: GitSandbox) -> None:
    assert "\tnegated\n" in manifest_text(negated, NAME)
    negated("checkout", "-q", "v1")
    negated("checkout", "-q", "main")
    assert content(negated) == NEGATIVE
    assert "everything can be rebuilt" in negated("theta", "fsck", "--all")
    assert_quiet(negated)


def test_without_the_plug_in_the_manifest_is_checked_out_with_one_message(
    negated: GitSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    negated("config", "--unset", "theta.update")
    negated("checkout", "-q", "v1")
    result = negated.run("checkout", "-q", "main")
    (line,) = warnings(result.stderr)
    assert line.startswith(f"theta: {NAME}: ")
    assert "'negated'" in line
    assert "Install the plug-in" in line
    for command in ("checkout", "compact"):
        refused = negated.run("theta", command, NAME, check=False)
        assert refused.returncode
        assert refused.stderr.startswith(f"theta: {NAME}: "), refused.stderr
        assert "'negated'" in refused.stderr
    assert content(negated).decode() == manifest_text(negated, NAME, "HEAD")
    assert_quiet(negated)
    problems = fsck(find_places(negated.path)).problems
    assert [(problem.parameter, problem.kind) for problem in problems] == [("fixed", "update")]
    assert "'negated'" in problems[0].message
    # Nothing is lost: other tensors are read, and training goes on from a file.
    repo = Repository(negated.path)
    assert np.array_equal(repo.checkpoint(NAME, rev="HEAD")["big"].numpy(), VERSIONS["v3"]["big"])
    negated.write(NAME, DATA["s3"])
    negated.commit_all("trained without the plug-in")
    assert kinds(negated, "fixed") in (["dense"], ["dense", "delta", "delta"])
    assert "negated" not in manifest_text(negated, NAME, "HEAD")


# --- pointer files ----------------------------------------------------------------------------------------------------


def test_every_object_of_a_chain_has_a_pointer_of_its_own(chains: GitSandbox) -> None:
    manifest = manifest_of(chains, NAME, "HEAD")
    names = pointer_names(manifest)
    assert sorted(names.values()) == sorted(manifest.objects)
    steps = {name for name, oid in names.items() if oid in {link.oid for link in chain(chains, "tuned")[1:]}}
    assert len(steps) == 3
    assert not [name for name in names if "/" in name or name.startswith(".")]


# --- nothing left over ------------------------------------------------------------------------------------------------


def test_the_store_holds_what_manifests_name_and_nothing_else(chains: GitSandbox) -> None:
    named = {oid for tag in DATA for oid in manifest_of(chains, NAME, tag).objects}
    assert objects(chains) == named
    assert os.listdir(theta_dir(chains) / "tmp") == [] if (theta_dir(chains) / "tmp").exists() else True


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 12))])
def test_a_killed_add_leaves_nothing_broken(chains: GitSandbox, seed: int) -> None:
    """Whatever was stored until then, the next ``git add`` builds on sound values only."""
    rng = random.Random(seed)
    tensors = {f"layer.{n}": np.full((400, 200), n, np.float32) + VERSIONS["v0"]["big"] for n in range(6)}
    chains.write(NAME, safetensors(tensors))
    chains.commit_all("more layers")
    data = safetensors({name: _tuned(value, 50) for name, value in tensors.items()})
    chains.write(NAME, data)
    have, wanted = len(objects(chains)), rng.randrange(1, 7)
    victims = rng.choice((filters, group, leader))

    def moment(elapsed: float) -> bool:
        return len(objects(chains)) >= have + wanted

    ended = run_and_kill(
        ["git", "add", NAME], chains.path, moment, victims, rng.choice((signal.SIGKILL, signal.SIGTERM))
    )
    assert_sound(chains)
    for lock in (chains.path / ".git").glob("*.lock"):
        lock.unlink()
    assert content(chains) == data
    chains("add", NAME)
    chains("commit", "-qm", "after all")
    assert kinds(chains, "layer.0") == ["dense", "delta"], ended
    (chains.path / NAME).unlink()
    chains("checkout", "--", NAME)
    assert content(chains) == data
    assert fsck(find_places(chains.path)).problems == ()
