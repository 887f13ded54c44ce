"""``git theta add``: what it stages, and what it says that ``git add`` would not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model, noise
from tests.git.checks import age, assert_quiet, manifest_text, objects
from tests.git.conftest import NAME, ONE, THREE
from theta_nb.commands.add import add
from theta_nb.errors import NotTrackedError, ThetaError
from theta_nb.git.places import find_places

MANIFEST = "theta-manifest 1\n"


def test_a_changed_file_is_staged(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    result = add(find_places(history.path), [NAME])
    assert result.added == (NAME,)
    assert result.notes == ()
    assert history("status", "--porcelain") == f"M  {NAME}\n"


def test_pathspecs_start_at_the_folder_and_folders_mean_what_is_in_them(history: GitSandbox) -> None:
    for name in ("a/one.pt", "a/deep/two.pt", "b/three.pt"):
        history.write(name, model(len(name)))
    assert add(find_places(history.path / "a"), ["."]).added == ("a/deep/two.pt", "a/one.pt")
    assert add(find_places(history.path / "a"), ["../b/*.pt"]).added == ("b/three.pt",)
    assert history("ls-files", "a", "b").splitlines() == ["a/deep/two.pt", "a/one.pt", "b/three.pt"]


def test_an_untracked_path_is_refused_with_the_command_that_tracks_it(history: GitSandbox) -> None:
    history.write("weights.bin", ONE)
    with pytest.raises(NotTrackedError, match=r"weights\.bin is not tracked by theta.*git theta track weights\.bin"):
        add(find_places(history.path), ["weights.bin"])
    assert history("ls-files", "weights.bin") == ""
    folder = history.path / "a"
    folder.mkdir()
    with pytest.raises(NotTrackedError, match=r"git theta track \.\./weights\.bin"):
        add(find_places(folder), ["../weights.bin"])


def test_one_untracked_path_keeps_all_from_being_staged(history: GitSandbox) -> None:
    history.write("a.pt", ONE)
    history.write("weights.bin", ONE)
    before = objects(history)
    with pytest.raises(NotTrackedError, match=r"weights\.bin"):
        add(find_places(history.path), ["a.pt", "weights.bin"])
    assert history("ls-files", "a.pt") == ""
    assert objects(history) == before


def test_nothing_and_nobody_are_errors(history: GitSandbox) -> None:
    with pytest.raises(ThetaError, match="nothing is named"):
        add(find_places(history.path), [])
    with pytest.raises(ThetaError, match=r"no file matches nowhere\.pt"):
        add(find_places(history.path), ["nowhere.pt"])
    with pytest.raises(ThetaError, match="outside"):
        add(find_places(history.path), ["../elsewhere.pt"])


def test_ignored_files_need_force(history: GitSandbox) -> None:
    (history.path / ".git/info/exclude").write_text("*.pt\n")
    history.write("m.pt", ONE)
    with pytest.raises(ThetaError, match="--force"):
        add(find_places(history.path), ["m.pt"])
    add(find_places(history.path), ["m.pt"], force=True)
    assert manifest_text(history, "m.pt").startswith(MANIFEST)


def test_a_file_that_was_committed_raw_is_stored_by_parameter(history: GitSandbox) -> None:
    """Plain ``git add`` does nothing as long as size and times match the index."""
    attributes = history.path / ".gitattributes"
    text = attributes.read_text()
    attributes.write_text("")
    history.write("m.pt", ONE)
    age(history, ["m.pt"])
    history.commit_all("raw")
    attributes.write_text(text)
    history("add", ".gitattributes", "m.pt")
    assert not manifest_text(history, "m.pt").startswith(MANIFEST), "git add noticed it by itself"
    add(find_places(history.path), ["m.pt"])
    assert manifest_text(history, "m.pt").startswith(MANIFEST)
    history("commit", "-qm", "by parameter")
    (history.path / "m.pt").unlink()
    history("checkout", "m.pt")
    assert (history.path / "m.pt").read_bytes() == ONE
    assert_quiet(history)


def test_a_deleted_file_is_staged_as_deleted(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    add(find_places(history.path), [NAME])
    assert history("status", "--porcelain") == f"D  {NAME}\n"


def test_a_conflict_is_ended_by_adding_the_file(history: GitSandbox) -> None:
    history("checkout", "-qb", "side", "one")
    history.write(NAME, THREE)
    history("commit", "-qam", "three")
    history.run("merge", "main", check=False)
    history.write(NAME, ONE)
    add(find_places(history.path), [NAME])
    assert history("ls-files", "-u") == ""
    assert manifest_text(history, NAME) == manifest_text(history, NAME, "one")


def test_what_the_filter_says_becomes_a_note(history: GitSandbox) -> None:
    history.write("m.pt", noise(300))
    (note,) = add(find_places(history.path), ["m.pt"]).notes
    assert "m.pt: stored whole, not by layer" in note


def test_an_error_of_the_filter_is_the_error_and_nothing_is_staged(history: GitSandbox) -> None:
    history.write("m.pt", b"theta-manifest 9\nfrom the future\n")
    history.write("a.pt", ONE)
    index = history("ls-files", "-s")
    with pytest.raises(ThetaError, match=r"m\.pt.*Upgrade theta-nb"):
        add(find_places(history.path), ["m.pt", "a.pt"])
    assert history("ls-files", "-s") == index


def test_odd_names_are_only_names(history: GitSandbox) -> None:
    names = ["*.pt", "-rf.pt", "größe.pt", "with blank.pt"]
    for name in names:
        history.write(name, model(3))
    history.write("other.pt", model(3))
    assert add(find_places(history.path), [":(literal)*.pt"]).added == ("*.pt",)
    assert history("ls-files", "other.pt") == ""
    assert set(add(find_places(history.path), ["./-rf.pt", "größe.pt", "with blank.pt"]).added) == set(names) - {"*.pt"}


def test_renormalize_cleans_what_git_takes_for_unchanged(history: GitSandbox) -> None:
    before = manifest_text(history, NAME)
    add(find_places(history.path), [NAME], renormalize=True)
    assert manifest_text(history, NAME) == before
    assert_quiet(history)


def test_a_bare_repository_has_nothing_to_add(tmp_path: Path) -> None:
    bare = GitSandbox(tmp_path)
    bare("init", "-q", "--bare", "b.git")
    with pytest.raises(ThetaError, match="no work tree"):
        add(find_places(tmp_path / "b.git"), ["m.pt"])
