"""Pointer files of Git LFS beside the manifests, and what stock git-lfs makes of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import GitSandbox
from tests.git.checkpoints import NAMES, safetensors
from tests.hooks.conftest import Recorder, hook_path, needed, server_objects, write_hook
from tests.hooks.pointer_files import FIRST, LARGE, MODEL, SECOND, SMALL, assert_in_step, pointers
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places
from theta_nb.git.pointer_names import pointer_names
from theta_nb.git.pointers import sync_pointers
from theta_nb.manifest.model import ChunkRef, Entry, Manifest, Value


def test_track_and_add(pointing: GitSandbox) -> None:
    lines = (pointing.path / ".gitattributes").read_text().splitlines()
    assert lines[0] == "*.safetensors filter=theta merge=theta diff=theta -text theta-pointers"
    assert lines[-1] == ".git_theta/** filter=lfs diff=lfs merge=union -text"
    names = {Path(path).name for path in pointers(pointing)}
    assert {"embed.weight", "head.weight"} <= names
    assert any(name.startswith("@packed-") for name in names)
    assert_in_step(pointing)
    pointing("theta", "track", "*.weight")
    path = f".git_theta/{MODEL}/embed.weight"
    assert pointing("check-attr", "filter", "--", path).endswith("filter: lfs\n"), "a pointer became a checkpoint"
    assert "untracked" not in pointing("theta", "track", "--pointers", "*.safetensors")


def test_plain_add_commit_and_its_kinds(pointing: GitSandbox) -> None:
    before = pointers(pointing)
    pointing.write(MODEL, SECOND)
    pointing("add", MODEL)
    pointing("commit", "-qm", "add and commit")
    assert_in_step(pointing)
    assert pointers(pointing)[f".git_theta/{MODEL}/head.weight"] == before[f".git_theta/{MODEL}/head.weight"]
    assert pointers(pointing)[f".git_theta/{MODEL}/embed.weight"] != before[f".git_theta/{MODEL}/embed.weight"]
    pointing.write(MODEL, FIRST)
    pointing("commit", "-qam", "commit -a")
    assert_in_step(pointing)
    pointing.write(MODEL, SECOND)
    pointing.write("notes.txt", b"staged, and not for this commit\n")
    pointing("add", "notes.txt")
    pointing("commit", "-qm", "commit PATH", "--", MODEL)
    assert pointing("status", "--porcelain") == "A  notes.txt\n"
    pointing("commit", "-qm", "notes")
    assert_in_step(pointing)
    pointing.write(MODEL, FIRST)
    pointing("commit", "-qa", "--amend", "-m", "amended")
    assert_in_step(pointing)


def test_what_is_gone_or_renamed_leaves_no_pointers(pointing: GitSandbox) -> None:
    pointing.write("other.safetensors", safetensors(SMALL))
    pointing("add", "other.safetensors")
    pointing("mv", MODEL, "renamed.safetensors")
    pointing("commit", "-qm", "renamed")
    assert {path.split("/")[1] for path in pointers(pointing)} == {"other.safetensors", "renamed.safetensors"}
    assert not (pointing.path / ".git_theta" / "models").exists()
    assert_in_step(pointing, "renamed.safetensors")
    pointing("rm", "-q", "other.safetensors")
    pointing("commit", "-qm", "removed")
    assert {path.split("/")[1] for path in pointers(pointing)} == {"renamed.safetensors"}
    pointing("switch", "-q", "-c", "old", "HEAD~2")
    assert_in_step(pointing)


def test_other_files_of_that_folder_are_left_alone(pointing: GitSandbox) -> None:
    mine = {
        f".git_theta/{MODEL}/notes": b"mine\n",
        ".git_theta/elsewhere/params": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
        + b"a" * 64
        + b"\nsize 1\n",
    }
    for name, data in mine.items():
        pointing.write(name, data)
        pointing("add", name)
    pointing.write(MODEL, SECOND)
    pointing("commit", "-qam", "second")
    for name, data in mine.items():
        assert (pointing.path / name).read_bytes() == data
        assert pointing("cat-file", "blob", f"HEAD:{name}").encode() == data


def test_a_merge_of_checkpoints_is_not_stopped_by_pointers(pointing: GitSandbox) -> None:
    pointing("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    pointing("switch", "-q", "-c", "side")
    pointing.write(MODEL, safetensors({**LARGE, **SMALL, "layer.1.bias": SMALL["layer.1.bias"] + 1}))
    pointing("commit", "-qam", "one small tensor")
    pointing("switch", "-q", "main")
    pointing.write(MODEL, safetensors({**LARGE, **SMALL, "layer.3.bias": SMALL["layer.3.bias"] + 1}))
    pointing("commit", "-qam", "another small tensor")
    pointing("merge", "-q", "-m", "merged", "side")
    assert_in_step(pointing)


def test_stock_git_lfs_lists_pushes_keeps_and_mirrors(pointing: GitSandbox, server: Path, tmp_path: Path) -> None:
    pointing.write(MODEL, SECOND)
    pointing("commit", "-qam", "second")
    everything = needed(pointing, "HEAD", "HEAD~1", name=MODEL)
    listed = {line.split()[0] for line in pointing("lfs", "ls-files", "--all", "--long").splitlines()}
    assert listed == everything
    linked = next((pointing.path / ".git" / "lfs" / "objects").rglob(next(iter(everything))))
    assert linked.stat().st_nlink == 2, "a copy, where a second name would do"
    pointing("lfs", "push", "origin", "main")
    pointing("push", "-q", "--no-verify", "origin", "main")
    assert server_objects(server) == everything
    pointing("lfs", "prune")
    pointing("theta", "fsck", "--all")
    pointing("lfs", "fsck", "--pointers")
    mirror = GitSandbox(tmp_path / "mirror.git")
    pointing("clone", "-q", "--mirror", str(server), str(mirror.path))
    mirror("lfs", "fetch", "--all")
    assert server_objects(mirror.path) == everything
    second = tmp_path / "second.git"
    subprocess.run(["git", "init", "-q", "--bare", second], check=True)
    pointing("push", "-q", str(second), "main")
    assert server_objects(second) == everything, "what git-lfs had pruned is missing"


@pytest.mark.usefixtures("installed")
def test_clones_keep_small_files_and_keep_them_in_step(pointing: GitSandbox, server: Path, tmp_path: Path) -> None:
    pointing("push", "-q", "origin", "main")
    subprocess.run(["git", "lfs", "install", "--skip-repo"], check=True, capture_output=True)
    clone = GitSandbox(tmp_path / "clone")
    pointing("clone", "-q", str(server), str(clone.path))
    assert (clone.path / MODEL).read_bytes() == FIRST
    assert_in_step(clone)
    assert "theta-pointers" in (clone.path / ".gitattributes").read_text()
    clone("lfs", "pull")
    assert_in_step(clone)
    clone.write(MODEL, SECOND)
    clone("commit", "-qam", "second")
    assert_in_step(clone)
    clone("push", "-q", "origin", "main")
    assert server_objects(server) == needed(clone, "HEAD", "HEAD~1", name=MODEL)


def test_the_pre_commit_hook_is_chained_and_only_where_it_is_needed(
    pointing: GitSandbox, history: GitSandbox, recorder: Recorder, without_theta: Callable[[], None]
) -> None:
    assert not hook_path(history, "pre-commit").exists()
    hook_path(pointing, "pre-commit").unlink()
    write_hook(hook_path(pointing, "pre-commit"), recorder.script("user"))
    pointing.write(MODEL, SECOND)
    pointing("add", MODEL)
    pointing("commit", "-qm", "second")
    assert len(recorder.calls("user")) == 1
    assert_in_step(pointing)
    write_hook(hook_path(pointing, "pre-commit").with_name("pre-commit.before-theta"), "exit 4\n")
    assert pointing.run("commit", "--allow-empty", "-m", "refused", check=False).returncode != 0
    without_theta()
    write_hook(hook_path(pointing, "pre-commit").with_name("pre-commit.before-theta"), "exit 0\n")
    assert pointing.run("commit", "-q", "--allow-empty", "-m", "no theta").stderr == ""


def test_untrack_and_lfsconfig_of_others(repository: GitSandbox) -> None:
    repository.write(".lfsconfig", b"[lfs]\n\tfetchexclude = data, raw\n\turl = https://example.org/x\n")
    repository("theta", "track", "--pointers", "*.safetensors")
    assert repository("config", "-f", ".lfsconfig", "lfs.fetchexclude") == "data,raw,.git_theta\n"
    assert repository("config", "-f", ".lfsconfig", "lfs.url") == "https://example.org/x\n"
    repository("theta", "untrack", "*.safetensors")
    assert "theta-pointers" not in (repository.path / ".gitattributes").read_text()


def test_nothing_is_written_behind_a_link(pointing: GitSandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = pointing.path / ".git_theta" / "models"
    folder.rename(tmp_path / "away")
    folder.symlink_to(outside)
    pointing.write(MODEL, SECOND)
    pointing("add", MODEL)
    with pytest.raises(ThetaError, match="symbolic link"):
        sync_pointers(find_places(pointing.path))
    assert list(outside.iterdir()) == []


# --- names ------------------------------------------------------------------------------------------------------------


def manifest_with(names: list[str]) -> Manifest:
    """A manifest in which each of some tensors has an object of its own."""
    values, entries, objects = {}, {}, {}
    for number, name in enumerate([*dict.fromkeys(names), None]):
        digest, oid = number.to_bytes(32, "big"), f"{number:064x}"
        values[digest] = Value(digest, 4, (ChunkRef(digest, oid, 0, 4),))
        objects[oid] = 4
        if name is not None:
            entries[name] = Entry(name, "float32", (1,), digest)
    return Manifest("safetensors", 4, digest, digest, entries, values, objects)


def assert_safe(names: list[str]) -> None:
    found = pointer_names(manifest_with(names))
    assert len(found) == len(set(names)) + 1, "an object without a file"
    assert len({name.casefold() for name in found}) == len(found), "two names that some file systems take for one"
    for name in found:
        assert 0 < len(name.encode()) <= 200
        assert not set(name) & set('/\\:*?"<>|~\0\n\t '), name
        assert name.isascii()
        assert name.isprintable()
        assert name[0] not in ".-", name
        assert not name.endswith("."), name
        assert name.partition(".")[0].lower() not in ("con", "nul", "aux", "prn", "com1", "lpt9"), name


def test_names_are_safe_on_every_file_system() -> None:
    assert_safe(
        [
            *NAMES,
            *("..", ".", "...", "../../etc/passwd", "/abs", ".git", ".GIT", "git~1", ".gitattributes", "a\0b"),
            *("con", "NUL.txt", "com1.weight", "Weight", "weight", "WEIGHT", "a" * 5000, "a" * 5001, "@packed"),
            *("@layout", "@skeleton", "x.", "x ", "x_", "x?", "\ud800"),
        ]
    )
    plain = pointer_names(manifest_with(["encoder.layer.0.weight"]))
    assert "encoder.layer.0.weight" in plain


@given(st.lists(st.text(max_size=100), max_size=10))
@settings(deadline=None, max_examples=200)
def test_any_names_are_safe(names: list[str]) -> None:
    assert_safe(names)
