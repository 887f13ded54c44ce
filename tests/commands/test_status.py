"""``git theta status``: each state, what it costs, and that looking changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model, safetensors, tensors
from tests.git.checks import age, manifest_of, manifest_text, objects
from tests.git.conftest import NAME, ONE, THREE, TWO
from theta_nb.commands.status import CheckpointStatus, status
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places


def states(repo: GitSandbox, *paths: str) -> dict[str, CheckpointStatus]:
    return {item.path: item for item in status(find_places(repo.path), paths)}


def state(repo: GitSandbox, name: str = NAME) -> CheckpointStatus:
    return states(repo)[name]


def change(repo: GitSandbox, data: bytes, name: str = NAME) -> None:
    repo.write(name, data)
    age(repo, [name])


# --- states -----------------------------------------------------------------------------------------------------------


def test_a_file_as_committed_is_unchanged(history: GitSandbox) -> None:
    assert state(history) == CheckpointStatus(NAME, "unchanged", tensors=4, size=len(TWO), new_bytes=0)


def test_a_file_that_was_only_touched_is_unchanged(history: GitSandbox) -> None:
    age(history, [NAME])
    assert state(history).state == "unchanged"


def test_a_change_in_the_work_tree_names_the_tensor_and_its_raw_bytes(history: GitSandbox) -> None:
    change(history, model(layer_0_weight=np.ones((16, 16), np.float32), layer_0_bias=bias(1.0)))
    found = state(history)
    assert (found.state, found.staged, found.changed) == ("modified", False, ("layer.0.weight",))
    assert found.new_bytes == 16 * 16 * 4
    assert objects(history) == objects(history)


def test_looking_stores_nothing_and_refreshes_no_index(history: GitSandbox) -> None:
    change(history, model(9))
    before = objects(history)
    index = (history.path / ".git/index").read_bytes()
    assert len(state(history).changed) == 4
    assert objects(history) == before, "status encoded something"
    assert (history.path / ".git/index").read_bytes() == index


def test_a_staged_change_costs_its_new_objects(history: GitSandbox) -> None:
    change(history, model(layer_0_weight=np.ones((16, 16), np.float32), layer_0_bias=bias(1.0)))
    history("add", NAME)
    found = state(history)
    assert (found.state, found.staged, found.changed) == ("modified", True, ("layer.0.weight",))
    new = manifest_of(history, NAME).objects.items() - manifest_of(history, NAME, "HEAD").objects.items()
    assert found.new_bytes == sum(size for _, size in new)
    assert found.new_bytes


def test_a_staged_change_that_was_changed_again_says_so(history: GitSandbox) -> None:
    change(history, THREE)
    history("add", NAME)
    change(history, model(layer_0_bias=bias(9.0)))
    found = state(history)
    assert (found.state, found.staged, found.changed) == ("modified", False, ("layer.0.bias",))
    assert found.note == "Also has changes that are not staged."


def test_a_new_file_that_is_staged_is_added(history: GitSandbox) -> None:
    history.write("new.pt", model(5))
    history("add", "new.pt")
    found = state(history, "new.pt")
    assert (found.state, found.staged, found.tensors) == ("added", True, 4)
    assert found.added == tuple(sorted(tensors()))
    assert found.new_bytes == sum(manifest_of(history, "new.pt").objects.values())


def test_tensors_that_come_and_go_are_named(history: GitSandbox) -> None:
    named = tensors()
    del named["steps"]
    change(history, safetensors(named | {"head": np.ones(20, np.float32), "layer.0.bias": bias(1.0)}))
    found = state(history)
    assert (found.changed, found.added, found.removed) == ((), ("head",), ("steps",))


def test_metadata_alone_is_a_change_without_tensors(history: GitSandbox) -> None:
    change(history, safetensors(tensors() | {"layer.0.bias": bias(1.0)}, {"epoch": "2"}))
    found = state(history)
    assert (found.state, found.changed) == ("modified", ())
    assert "no tensor" in found.note


def test_a_deleted_file_is_missing_and_a_removed_one_deleted(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    assert state(history).state == "missing"
    history("rm", "-q", "--cached", NAME)
    found = state(history)
    assert (found.state, found.staged) == ("deleted", True)


def test_a_removed_file_that_is_still_there_is_not_called_deleted_twice(history: GitSandbox) -> None:
    history("rm", "-q", "--cached", NAME)
    found = [item.state for item in status(find_places(history.path)) if item.path == NAME]
    assert len(found) == 1


def test_a_manifest_in_the_work_tree_is_said_to_be_one(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    history.run("checkout", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    found = state(history)
    assert found.state == "manifest only"
    assert f"git theta checkout {NAME}" in found.note


def test_a_conflict_says_how_to_end_it(history: GitSandbox) -> None:
    history("checkout", "-qb", "side", "one")
    change(history, THREE)
    history("commit", "-qam", "three")
    history.run("merge", "main", check=False)
    found = [item for item in status(find_places(history.path)) if item.path == NAME]
    assert [item.state for item in found] == ["conflict"]
    assert "--ours" in found[0].note


def test_a_file_that_git_does_not_have_is_not_stored_yet(history: GitSandbox) -> None:
    history.write("new.pt", ONE)
    history.write("other.txt", ONE)
    history.write("ignored.pt", ONE)
    (history.path / ".git/info/exclude").write_text("ignored.pt\n")
    found = states(history)
    assert (found["new.pt"].state, found["new.pt"].size) == ("not stored yet", len(ONE))
    assert set(found) == {NAME, "new.pt"}


def test_a_file_that_was_committed_raw_is_not_stored_yet(history: GitSandbox) -> None:
    oid = history.run("hash-object", "-w", "--stdin", data=b"raw weights").stdout.strip()
    history("update-index", "--add", "--cacheinfo", f"100644,{oid},raw.pt")
    history.write("raw.pt", b"raw weights")
    found = state(history, "raw.pt")
    assert found.state == "not stored yet"
    assert "git theta add raw.pt" in found.note


def test_before_the_first_commit_everything_is_added(repository: GitSandbox) -> None:
    repository("update-ref", "-d", "HEAD")
    repository.write("m.pt", ONE)
    repository("add", "m.pt")
    assert {item.path: item.state for item in status(find_places(repository.path))} == {"m.pt": "added"}


# --- things in the way ------------------------------------------------------------------------------------------------


def test_a_folder_or_link_in_the_place_of_the_file_is_no_crash(history: GitSandbox, tmp_path: Path) -> None:
    (history.path / NAME).unlink()
    (history.path / NAME).mkdir()
    assert state(history).state == "missing"
    (history.path / NAME).rmdir()
    (tmp_path / "elsewhere").write_bytes(TWO)
    for target in (tmp_path / "elsewhere", tmp_path / "nowhere"):
        (history.path / NAME).symlink_to(target)
        assert state(history).state == "missing", "git does not follow the link either"
        (history.path / NAME).unlink()
    os.mkfifo(history.path / NAME)
    assert state(history).state == "missing"


def test_links_and_pipes_that_git_does_not_have_are_no_checkpoints(history: GitSandbox) -> None:
    (history.path / "dangling.pt").symlink_to("nowhere")
    (history.path / "link.pt").symlink_to(NAME)
    os.mkfifo(history.path / "pipe.pt")
    assert set(states(history)) == {NAME}


@pytest.mark.parametrize("kind", ["torn", "later"])
def test_a_manifest_that_cannot_be_read_is_named_as_such(history: GitSandbox, kind: str) -> None:
    text = manifest_text(history, NAME)
    broken = text[: len(text) // 2] if kind == "torn" else text.replace("theta-manifest 1", "theta-manifest 9")
    oid = history.run("hash-object", "-w", "--stdin", data=broken.encode()).stdout.strip()
    history("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    note = state(history).note
    assert "manifest" in note
    assert "git theta add" not in note


def test_odd_names_are_only_names(history: GitSandbox) -> None:
    names = ["with blank.pt", "größe.pt", "-rf.pt", "*.pt", "new\nline.pt", ":(top)m.pt"]
    for name in names:
        history.write(name, model(3))
    history.commit_all("odd")
    change(history, model(4), "*.pt")
    found = states(history)
    assert {name: found[name].state for name in names} == dict.fromkeys(names, "unchanged") | {"*.pt": "modified"}


# --- arguments --------------------------------------------------------------------------------------------------------


def test_paths_restrict_and_are_relative_to_the_folder(history: GitSandbox) -> None:
    for name in ("a/m.pt", "b/m.pt", "a/gone.pt", "b/gone.pt"):
        history.write(name, model(3))
    history.commit_all("more")
    history("rm", "-q", "a/gone.pt", "b/gone.pt")
    history.write("b/new.pt", ONE)
    assert set(states(history, "a")) == {"a/m.pt", "a/gone.pt"}
    inside = status(find_places(history.path / "b"), ["."])
    assert {item.path: item.state for item in inside} == {
        "b/m.pt": "unchanged",
        "b/gone.pt": "deleted",
        "b/new.pt": "not stored yet",
    }
    everything = status(find_places(history.path / "b"))
    assert {item.path for item in everything} == {NAME, "a/m.pt", "a/gone.pt", "b/m.pt", "b/gone.pt", "b/new.pt"}


def test_a_path_outside_is_an_error(history: GitSandbox) -> None:
    with pytest.raises(ThetaError, match="outside"):
        status(find_places(history.path), ["../elsewhere"])


def test_progress_counts_what_is_hashed(history: GitSandbox) -> None:
    data = model(9)
    change(history, data)
    seen: list[tuple[int, int]] = []
    status(find_places(history.path), progress=lambda done, total: seen.append((done, total)))
    done, total = seen[-1]
    assert total == len(data)
    assert 0 < done <= total


def test_a_bare_repository_has_no_status(tmp_path: Path) -> None:
    bare = GitSandbox(tmp_path)
    bare("init", "-q", "--bare", "b.git")
    with pytest.raises(ThetaError, match="no work tree"):
        status(find_places(tmp_path / "b.git"))
