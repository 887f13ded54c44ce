"""Merging checkpoints by the tensors each side changed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, pytorch, safetensors, tensors
from tests.git.checks import assert_quiet, digests, objects, warnings

NAME = "m.safetensors"
Arrays = dict[str, np.ndarray[Any, Any]]
BASE = tensors()
WIDE = np.ones((4, 40), np.float32)


@pytest.fixture
def repo(repository: GitSandbox) -> GitSandbox:
    """A repository with the merge drivers."""
    repository("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    repository("config", "merge.theta.recursive", "theta-base")
    repository("config", "merge.theta-base.driver", "git-theta merge-driver --base %O %A %B %P %L")
    return repository


def _changed(base: Arrays, **changed: np.ndarray[Any, Any]) -> Arrays:
    return {**base, **{name.replace("_", "."): value for name, value in changed.items()}}


def _branches(repo: GitSandbox, base: bytes | None, ours: bytes, theirs: bytes, name: str = NAME) -> None:
    """``main`` and ``theirs``, each with its version over the common one."""
    if base is not None:
        repo.write(name, base)
        repo.commit_all("base")
    repo("switch", "-qc", "theirs")
    repo.write(name, theirs)
    repo.write("theirs.txt", b"theirs\n")
    repo.commit_all("theirs")
    repo("switch", "-q", "main")
    repo.write(name, ours)
    repo.write("ours.txt", b"ours\n")
    repo.commit_all("ours")


def _merge(repo: GitSandbox, *options: str) -> tuple[int, str]:
    """Status, and what was said."""
    result = repo.run("merge", "-q", "--no-edit", *options, "theirs", check=False)
    return result.returncode, result.stderr


def _content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


OURS = _changed(BASE, layer_0_bias=bias(1.0))
THEIRS = _changed(BASE, layer_0_weight=BASE["layer.0.weight"] + 1)


# --- what resolves itself ---------------------------------------------------------------------------------------------

AUTOMATIC: dict[str, tuple[Arrays, Arrays, Arrays]] = {
    "each changed another tensor": (OURS, THEIRS, {**THEIRS, "layer.0.bias": bias(1.0)}),
    "both changed one tensor alike": (
        OURS,
        _changed(OURS, layer_0_weight=WIDE[:, :16].repeat(4, 0)),
        _changed(OURS, layer_0_weight=WIDE[:, :16].repeat(4, 0)),
    ),
    "theirs added a tensor": (OURS, {**BASE, "new": WIDE}, {**OURS, "new": WIDE}),
    "ours added a tensor": ({**BASE, "new": WIDE}, THEIRS, {**THEIRS, "new": WIDE}),
    "theirs removed a tensor": (
        OURS,
        {name: value for name, value in BASE.items() if name != "steps"},
        {name: value for name, value in OURS.items() if name != "steps"},
    ),
    "theirs changed a shape": (
        OURS,
        _changed(BASE, layer_0_weight=WIDE),
        _changed(OURS, layer_0_weight=WIDE),
    ),
    "theirs changed a dtype": (
        OURS,
        _changed(BASE, layer_0_weight=BASE["layer.0.weight"].astype(np.float64)),
        _changed(OURS, layer_0_weight=BASE["layer.0.weight"].astype(np.float64)),
    ),
}


@pytest.mark.parametrize("case", AUTOMATIC)
def test_what_one_side_changed_is_taken_from_it(repo: GitSandbox, case: str) -> None:
    ours, theirs, merged = AUTOMATIC[case]
    _branches(repo, safetensors(BASE), safetensors(ours), safetensors(theirs))
    before = objects(repo)
    status, said = _merge(repo)
    assert (status, said) == (0, "")
    assert _content(repo) == safetensors(merged)
    assert objects(repo) == before, "a merge of manifests wrote values"
    assert_quiet(repo)


def test_metadata_of_theirs_and_a_tensor_of_ours(repo: GitSandbox) -> None:
    _branches(
        repo, safetensors(BASE, {"epoch": "1"}), safetensors(OURS, {"epoch": "1"}), safetensors(BASE, {"epoch": "2"})
    )
    assert _merge(repo) == (0, "")
    assert _content(repo) == safetensors(OURS, {"epoch": "2"})
    assert_quiet(repo)


def _saved(**changed: torch.Tensor) -> bytes:
    w = torch.arange(400.0).reshape(20, 20)
    tied = changed.pop("tied", w + 3)
    return pytorch({"a": w, "b": w + 1, "model": {"embed": tied, "head": tied}, "epoch": 3, **changed})


def test_pytorch_files_are_merged_and_stay_sound_archives(repo: GitSandbox) -> None:
    w = torch.arange(400.0).reshape(20, 20)
    _branches(repo, _saved(), _saved(a=w * 2), _saved(tied=w * 3), "m.pt")
    assert _merge(repo) == (0, "")
    with zipfile.ZipFile(io.BytesIO(_content(repo, "m.pt"))) as archive:
        assert archive.testzip() is None, "a checksum is that of another value"
    loaded = torch.load(repo.path / "m.pt", weights_only=True)
    assert torch.equal(loaded["a"], w * 2)
    assert torch.equal(loaded["b"], w + 1)
    assert torch.equal(loaded["model"]["embed"], w * 3)
    assert loaded["model"]["embed"].data_ptr() == loaded["model"]["head"].data_ptr(), "tied weights were untied"
    assert_quiet(repo)


@pytest.mark.parametrize("command", ["cherry-pick", "rebase", "revert", "stash"])
def test_other_commands_merge_the_same_way(repo: GitSandbox, command: str) -> None:
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(THEIRS))
    merged = safetensors({**THEIRS, "layer.0.bias": bias(1.0)})
    if command == "cherry-pick":
        repo("cherry-pick", "theirs")
    elif command == "rebase":
        repo("rebase", "-q", "theirs")
    elif command == "revert":
        repo.write(NAME, merged)
        repo("commit", "-qam", "both")
        repo("revert", "--no-edit", "HEAD~1")
        merged = safetensors(THEIRS)
    else:
        repo.write(NAME, merged)
        repo("stash", "push", "-q")
        repo.write(NAME, safetensors(_changed(OURS, steps=np.array([5, 5]))))
        repo("commit", "-qam", "steps")
        repo("stash", "pop", "-q")
        repo("commit", "-qam", "popped")
        merged = safetensors({**THEIRS, "layer.0.bias": bias(1.0), "steps": np.array([5, 5])})
    assert _content(repo) == merged
    assert_quiet(repo)


def test_a_file_renamed_by_theirs_keeps_the_change_of_ours(repo: GitSandbox) -> None:
    repo.write(NAME, safetensors(BASE))
    repo.commit_all("base")
    repo("switch", "-qc", "theirs")
    repo("mv", NAME, "renamed.safetensors")
    repo.write("renamed.safetensors", safetensors(THEIRS))
    repo.commit_all("theirs")
    repo("switch", "-q", "main")
    repo.write(NAME, safetensors(OURS))
    repo.commit_all("ours")
    assert _merge(repo) == (0, "")
    assert not (repo.path / NAME).exists()
    assert _content(repo, "renamed.safetensors") == safetensors({**THEIRS, "layer.0.bias": bias(1.0)})
    assert_quiet(repo)


def test_a_merge_needs_no_object(repo: GitSandbox) -> None:
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(THEIRS))
    (repo.path / ".git" / "theta").rename(repo.path.parent / "elsewhere")
    status, said = _merge(repo)
    assert status == 0
    assert [NAME in line for line in warnings(said)] == [True]
    merged = digests(repo, NAME)
    assert merged["layer.0.bias"] == digests(repo, NAME, "HEAD^1")["layer.0.bias"]
    assert merged["layer.0.weight"] == digests(repo, NAME, "HEAD^2")["layer.0.weight"]
    assert_quiet(repo)


def test_merge_tree_gives_the_merged_tree_and_nothing_else_on_its_output(repo: GitSandbox) -> None:
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(THEIRS))
    shown = repo("merge-tree", "--write-tree", "main", "theirs").splitlines()
    assert len(shown) == 1
    _merge(repo)
    assert repo("rev-parse", "HEAD^{tree}").strip() == shown[0]


def test_a_merge_while_another_checkpoint_is_dirty(repo: GitSandbox) -> None:
    repo.write("other.safetensors", safetensors(BASE))
    repo.commit_all("other")
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(THEIRS))
    repo.write("other.safetensors", safetensors(OURS))
    assert _merge(repo) == (0, "")
    assert _content(repo, "other.safetensors") == safetensors(OURS)
    assert repo("status", "--porcelain") == " M other.safetensors\n"


def test_remerging_shows_no_difference(repo: GitSandbox) -> None:
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(THEIRS))
    _merge(repo)
    assert repo("show", "--remerge-diff", "--format=", "HEAD") == ""


# --- what does not ----------------------------------------------------------------------------------------------------

Case = tuple[Mapping[str, Any] | None, Mapping[str, Any], Mapping[str, Any], str]

CONFLICTS: dict[str, Case] = {
    "both changed one tensor": (BASE, OURS, _changed(THEIRS, layer_0_bias=bias(2.0)), "layer.0.bias"),
    "both added a tensor": (BASE, {**BASE, "new": WIDE}, {**BASE, "new": WIDE + 1}, ""),
    "one removed what the other changed": (
        BASE,
        OURS,
        {name: value for name, value in BASE.items() if name != "layer.0.bias"},
        "layer.0.bias",
    ),
    "both added the file": (None, OURS, THEIRS, ""),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_a_conflict_names_what_both_changed_and_keeps_ours(repo: GitSandbox, case: str) -> None:
    base, ours, theirs, named = CONFLICTS[case]
    _branches(
        repo, None if base is None else safetensors(base), safetensors(ours), safetensors(theirs)
    )  # fmt: skip
    status, stderr = _merge(repo)
    assert status == 1
    said = warnings(stderr)
    assert len(said) == 1
    assert NAME in said[0]
    assert named in said[0]
    assert "layer.0.weight" not in said[0], "what only one side changed is called a conflict"
    assert _content(repo) == safetensors(ours)
    stages = [line.split()[2] for line in repo("ls-files", "-u").splitlines()]
    assert stages == (["2", "3"] if base is None else ["1", "2", "3"])
    repo("merge", "--abort")
    assert_quiet(repo)


def test_the_same_file_added_alike_on_both_sides_is_no_conflict(repo: GitSandbox) -> None:
    _branches(repo, None, safetensors(OURS), safetensors(OURS))
    assert _merge(repo) == (0, "")
    assert_quiet(repo)


def test_a_file_deleted_by_one_and_changed_by_the_other_stays(repo: GitSandbox) -> None:
    repo.write(NAME, safetensors(BASE))
    repo.commit_all("base")
    repo("switch", "-qc", "theirs")
    repo("rm", "-q", NAME)
    repo("commit", "-qm", "gone")
    repo("switch", "-q", "main")
    repo.write(NAME, safetensors(OURS))
    repo("commit", "-qam", "ours")
    assert _merge(repo)[0] == 1
    assert _content(repo) == safetensors(OURS)
    repo("add", NAME)
    repo("commit", "-qm", "kept")
    assert_quiet(repo)


def test_tied_weights_are_one_unit(repo: GitSandbox) -> None:
    # Ours changes the tied pair; theirs unties it, which is a change of the same storage.
    w = torch.arange(400.0).reshape(20, 20)
    base = pytorch({"embed": w, "head": w, "other": w + 1})
    ours = pytorch({"embed": w * 2, "head": (w * 2).clone(), "other": w + 1})
    tied = w * 2
    ours = pytorch({"embed": tied, "head": tied, "other": w + 1})
    theirs = pytorch({"embed": w, "head": w + 5, "other": w + 1})
    _branches(repo, base, ours, theirs, "m.pt")
    status, said = _merge(repo)
    assert status == 1, said
    assert _content(repo, "m.pt") == ours


def test_pickled_values_of_both_sides_are_reported(repo: GitSandbox) -> None:
    _branches(repo, _saved(epoch=1), _saved(epoch=2), _saved(epoch=3), "m.pt")
    status, stderr = _merge(repo)
    assert status == 1
    assert "both sides changed epoch;" in stderr
    assert _content(repo, "m.pt") == _saved(epoch=2)


def test_another_format_on_each_side_is_a_conflict(repo: GitSandbox) -> None:
    w = torch.arange(400.0).reshape(20, 20)
    _branches(repo, pytorch({"w": w}), pytorch({"w": w + 1}), safetensors({"w": (w + 2).numpy()}), "m.pt")
    status, stderr = _merge(repo)
    assert status == 1
    assert "format" in stderr
    assert _content(repo, "m.pt") == pytorch({"w": w + 1})


def test_opaque_files_changed_on_both_sides_are_a_conflict(repo: GitSandbox) -> None:
    _branches(repo, b"one " * 100, b"two " * 100, b"three " * 100, "m.pt")
    assert _merge(repo)[0] == 1
    assert _content(repo, "m.pt") == b"two " * 100


def test_option_ours_does_not_hide_a_conflict_of_weights(repo: GitSandbox) -> None:
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(_changed(BASE, layer_0_bias=bias(2.0))))
    assert _merge(repo, "-X", "ours")[0] == 1
    assert _content(repo) == safetensors(OURS)


def test_a_manual_merge_is_committed_and_merged_again_without_a_question(repo: GitSandbox) -> None:
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(_changed(THEIRS, layer_0_bias=bias(2.0))))
    assert _merge(repo)[0] == 1
    averaged = safetensors(_changed(THEIRS, layer_0_bias=bias(1.5)))
    repo.write(NAME, averaged)
    repo("commit", "-qam", "averaged")
    assert _content(repo) == averaged
    assert_quiet(repo)
    assert _merge(repo) == (0, "")
    assert repo("rev-list", "--count", "HEAD").strip() == "5"


# --- criss-cross ------------------------------------------------------------------------------------------------------


def test_a_criss_cross_merge_does_not_take_a_side_silently(repo: GitSandbox) -> None:
    """Both sides merged each other and resolved one tensor differently: the virtual base keeps the ancestor's."""
    base = safetensors(BASE)
    versions = [safetensors(_changed(BASE, layer_0_bias=bias(value))) for value in (1.0, 2.0)]
    repo.write(NAME, base)
    repo.commit_all("base")
    for branch, data in zip(("left", "right"), versions, strict=True):
        repo("switch", "-qc", branch, "main")
        repo.write(NAME, data)
        repo("commit", "-qam", branch)
        repo("tag", f"{branch}-1")
    for branch, other, data in (("left", "right-1", versions[0]), ("right", "left-1", versions[1])):
        repo("switch", "-q", branch)
        assert repo.run("merge", other, check=False).returncode == 1
        repo.write(NAME, data)
        repo("commit", "-qam", f"{branch} resolved to its own")
    assert len(repo("merge-base", "--all", "left", "right").split()) == 2
    result = repo.run("merge", "left", check=False)
    assert result.returncode == 1, "one of two resolutions was taken without a word"
    assert _content(repo) == versions[1]
    assert len(warnings(result.stderr)) == 1


def test_a_criss_cross_merge_of_different_tensors_resolves_itself(repo: GitSandbox) -> None:
    repo.write(NAME, safetensors(BASE))
    repo.commit_all("base")
    both = safetensors({**THEIRS, "layer.0.bias": bias(1.0)})
    for branch, named in (("left", OURS), ("right", THEIRS)):
        repo("switch", "-qc", branch, "main")
        repo.write(NAME, safetensors(named))
        repo("commit", "-qam", branch)
        repo("tag", f"{branch}-1")
    for branch, other in (("left", "right-1"), ("right", "left-1")):
        repo("switch", "-q", branch)
        repo("merge", "-q", "--no-edit", other)
        assert _content(repo) == both
    repo.write(NAME, safetensors(_changed({**THEIRS, "layer.0.bias": bias(1.0)}, steps=np.array([9, 9]))))
    repo("commit", "-qam", "further")
    assert repo.run("merge", "-q", "--no-edit", "left").stderr == ""
    assert _content(repo) == safetensors(_changed({**THEIRS, "layer.0.bias": bias(1.0)}, steps=np.array([9, 9])))
    assert_quiet(repo)


# --- where the driver is not called, or called with something else ----------------------------------------------------


def test_an_octopus_that_needs_the_driver_gives_up_and_restores_everything(repo: GitSandbox) -> None:
    _branches(repo, safetensors(BASE), safetensors(OURS), safetensors(_changed(BASE, layer_0_bias=bias(2.0))))
    repo("switch", "-qc", "third", "main~1")
    repo.write(NAME, safetensors(_changed(BASE, layer_0_bias=bias(3.0))))
    repo("commit", "-qam", "third")
    repo("switch", "-q", "main")
    before = repo("rev-parse", "HEAD")
    assert repo.run("merge", "-q", "theirs", "third", check=False).returncode != 0
    repo("reset", "-q", "--hard")
    assert repo("rev-parse", "HEAD") == before
    assert _content(repo) == safetensors(OURS)
    assert_quiet(repo)


def test_an_octopus_where_one_branch_has_the_checkpoint(repo: GitSandbox) -> None:
    repo.write("notes.txt", b"base\n")
    repo.write(NAME, safetensors(BASE))
    repo.commit_all("base")
    for branch, write in {
        "theirs": lambda: repo.write(NAME, safetensors(THEIRS)),
        "docs": lambda: repo.write("docs.txt", b"docs\n"),
    }.items():
        repo("switch", "-qc", branch, "main")
        write()
        repo.commit_all(branch)
    repo("switch", "-q", "main")
    repo("merge", "-q", "--no-ff", "-m", "octopus", "theirs", "docs")
    assert _content(repo) == safetensors(THEIRS)
    assert_quiet(repo)


def test_a_checkpoint_that_is_raw_on_one_side_is_merged(repo: GitSandbox) -> None:
    """Tracking was introduced on theirs only; with ``merge.renormalize`` git cleans each side first."""
    repo("config", "merge.renormalize", "true")
    attributes = (repo.path / ".gitattributes").read_bytes()
    repo("rm", "-q", ".gitattributes")
    repo.write(NAME, safetensors(BASE))
    repo.commit_all("raw")
    repo("switch", "-qc", "theirs")
    repo.write(".gitattributes", attributes)
    repo("add", ".gitattributes")
    repo.write(NAME, safetensors(THEIRS))
    repo("add", "--renormalize", NAME)
    repo.commit_all("tracked, and a weight changed")
    repo("switch", "-q", "main")
    repo.write(NAME, safetensors(OURS))
    repo.commit_all("ours, raw")
    # Attributes of the side that merges count, so it is the tracked one that merges the raw one.
    repo("switch", "-q", "theirs")
    repo("merge", "-q", "--no-edit", "main")
    assert _content(repo) == safetensors({**THEIRS, "layer.0.bias": bias(1.0)})
    assert_quiet(repo)


def _driver(repo: GitSandbox, base: bytes, ours: bytes, theirs: bytes, *options: str) -> tuple[int, bytes, str]:
    """Call the driver as git does; status, what is left in place of ours, what was said."""
    import subprocess

    folder = repo.path / ".merge"
    folder.mkdir()
    for name, data in (("O", base), ("A", ours), ("B", theirs)):
        (folder / name).write_bytes(data)
    result = subprocess.run(
        ["git-theta", "merge-driver", *options, ".merge/O", ".merge/A", ".merge/B", NAME, "7"],
        cwd=repo.path, capture_output=True, check=False,
    )  # fmt: skip
    assert result.stdout == b"", "the driver wrote to standard output"
    assert {path.name for path in folder.iterdir()} == {"O", "A", "B"}, "the driver left a file behind"
    return result.returncode, (folder / "A").read_bytes(), result.stderr.decode()


def test_the_driver_accepts_raw_checkpoints(repo: GitSandbox) -> None:
    status, left, said = _driver(repo, safetensors(BASE), safetensors(OURS), safetensors(THEIRS))
    assert (status, said) == (0, "")
    assert left.startswith(b"theta-manifest 1\n")
    oid = repo.run("hash-object", "-w", "--stdin", data=left).stdout.strip()
    assert repo.run("cat-file", "--filters", "--path", NAME, oid).returncode == 0


Spoiled = Callable[[bytes], bytes]


@pytest.mark.parametrize("side", ["base", "ours", "theirs"])
@pytest.mark.parametrize("spoil", ["cut", "markers", "later"])
def test_a_broken_manifest_on_any_side_is_a_conflict_that_leaves_ours(repo: GitSandbox, side: str, spoil: str) -> None:
    repo.write(NAME, safetensors(BASE))
    repo.commit_all("base")
    text = repo("cat-file", "blob", f":{NAME}").encode()
    broken = {
        "cut": text[: len(text) // 2],
        "markers": text.replace(b"steps\t", b"<<<<<<< a\nsteps\t", 1),
        "later": text.replace(b"theta-manifest 1", b"theta-manifest 9", 1),
    }[spoil]
    sides = {"base": text, "ours": text, "theirs": text, side: broken}
    status, left, said = _driver(repo, sides["base"], sides["ours"], sides["theirs"])
    assert 0 < status < 128
    assert left == sides["ours"]
    assert NAME in said
    assert "Traceback" not in said


def test_the_base_driver_keeps_the_ancestor_and_never_fails(repo: GitSandbox) -> None:
    versions = []
    for value in (0.0, 1.0, 2.0):
        repo.write(NAME, safetensors(_changed(BASE, layer_0_bias=bias(value))))
        repo("add", NAME)
        versions.append(repo("cat-file", "blob", f":{NAME}").encode())
    status, left, said = _driver(repo, *versions, "--base")
    assert (status, said) == (0, "")
    assert left == versions[0]
