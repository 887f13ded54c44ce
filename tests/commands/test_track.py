"""``git theta track`` and ``untrack``: what is written where, what is refused, and what the user is told to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import checkpoint, json_of, said, theta
from tests.conftest import ATTRIBUTES, GitSandbox
from theta_nb.commands.track import place_of
from theta_nb.errors import ThetaError
from theta_nb.git.attributes import filters_of
from theta_nb.git.places import find_places


@pytest.fixture
def repo(tmp_path: Path) -> GitSandbox:
    """A repository with the filter in its own configuration, and nothing tracked."""
    sandbox = GitSandbox(tmp_path / "project")
    sandbox.path.mkdir()
    sandbox("init", "-q")
    sandbox("config", "filter.theta.process", "git-theta filter-process")
    sandbox("config", "filter.theta.required", "true")
    return sandbox


def lines(repo: GitSandbox, name: str = ".gitattributes") -> list[str]:
    return (repo.path / name).read_text().splitlines()


def test_a_pattern_is_written_staged_and_told(repo: GitSandbox) -> None:
    out = said(repo.path, "track", "*.safetensors", "models/*.pt")
    assert lines(repo) == [f"*.safetensors {ATTRIBUTES}", f"models/*.pt {ATTRIBUTES}"]
    assert repo("diff", "--cached", "--name-only") == ".gitattributes\n"
    assert "tracking *.safetensors" in out
    assert "tracking models/*.pt" in out
    assert json_of(repo.path, "track", "*.pt")["patterns"] == [
        {"pattern": "*.pt", "file": ".gitattributes", "action": "added"}
    ]


def test_tracking_twice_changes_nothing(repo: GitSandbox) -> None:
    said(repo.path, "track", "*.pt")
    before = (repo.path / ".gitattributes").stat()
    assert "already" in said(repo.path, "track", "*.pt")
    assert (repo.path / ".gitattributes").stat().st_ino == before.st_ino


def test_a_line_of_git_theta_is_upgraded_in_place(repo: GitSandbox) -> None:
    repo.write(".gitattributes", b"# mine\nmodel.pt filter=theta merge=theta diff=theta\n*.txt text\n")
    assert "without -text" in said(repo.path, "track")
    assert "its line got the attributes it lacked" in said(repo.path, "track", "model.pt")
    assert lines(repo) == ["# mine", f"model.pt {ATTRIBUTES}", "*.txt text"]
    assert "without" not in said(repo.path, "track")


def test_the_list_says_where_each_pattern_stands(repo: GitSandbox) -> None:
    assert "Nothing is tracked yet" in said(repo.path, "track")
    repo.write("sub/.gitattributes", f"\n*.bin {ATTRIBUTES}\n".encode())
    said(repo.path, "track", "a b/*.pt")
    out = said(repo.path, "track")
    assert "a b/*.pt  .gitattributes:1" in out
    assert "sub/.gitattributes:2" in out
    assert "../.gitattributes:1" in said(repo.path / "sub", "track"), "paths are those of the current folder"
    assert json_of(repo.path, "track")["patterns"] == [
        {"pattern": "a b/*.pt", "file": ".gitattributes", "line": 1, "missing": []},
        {"pattern": "*.bin", "file": "sub/.gitattributes", "line": 2, "missing": []},
    ]


def test_a_subdirectory_gets_a_file_of_its_own(repo: GitSandbox) -> None:
    folder = repo.path / "models" / "deep"
    folder.mkdir(parents=True)
    said(folder, "track", "*.pt")
    assert lines(repo, "models/deep/.gitattributes") == [f"*.pt {ATTRIBUTES}"]
    assert not (repo.path / ".gitattributes").exists()
    assert repo("diff", "--cached", "--name-only") == "models/deep/.gitattributes\n"


@pytest.mark.parametrize(
    ("typed", "folder", "expected"),
    [
        ("model.pt", "", ("", "model.pt")),
        ("./model.pt", "", ("", "/model.pt")),
        (".hidden.pt", "", ("", ".hidden.pt")),
        ("new.pt", "models", ("models", "new.pt")),
        ("a b.pt", "models", ("models", "a b.pt")),
        ("../model.pt", "models", ("", "/model.pt")),
        ("../models/a b.pt", "models", ("models", "/a b.pt")),
        ("../*.pt", "models", ("", "/*.pt")),
        ("models", "", ("", "models/**")),
        ("models/", "", ("", "models/**")),
        ("new/", "", ("", "new/**")),
        (".", "models", ("", "models/**")),
        ("[x]*.pt", "models", ("models", r"\[x]\*.pt")),
        ("[y]*.pt", "models", ("models", "[y]*.pt")),
        ("!x.pt", "models", ("models", r"\!x.pt")),
        ("**/*.pt", "models", ("models", "**/*.pt")),
        ("/*.pt", "models", ("models", "/*.pt")),
    ],
)
def test_paths_become_patterns(typed: str, folder: str, expected: tuple[str, str], repo: GitSandbox) -> None:
    for name in ("model.pt", ".hidden.pt", "models/a b.pt", "models/[x]*.pt", "models/!x.pt"):
        repo.write(name, b"")
    top = str(repo.path)
    assert place_of(typed, str(repo.path / folder), top) == expected


def test_an_absolute_path_is_that_file(repo: GitSandbox) -> None:
    repo.write("models/m.pt", b"")
    where = str(repo.path / "models")
    assert place_of(f"{where}/m.pt", where, str(repo.path)) == ("models", "/m.pt")
    assert place_of(f"{where}/m.pt", str(repo.path), str(repo.path)) == ("", "models/m.pt")


@pytest.mark.parametrize("typed", ["", "!*.pt", "../../outside.pt"])
def test_what_is_no_pattern_of_this_work_tree(typed: str, repo: GitSandbox) -> None:
    (repo.path / "models").mkdir()
    with pytest.raises(ThetaError, match=r"no pattern|outside the work tree"):
        place_of(typed, str(repo.path / "models"), str(repo.path))


@pytest.mark.parametrize(
    "name", ["a b.pt", "é.pt", "line\nbreak.pt", "[x]*.pt", "!x.pt", '"q".pt', "#x.pt", "back\\slash.pt"]
)
def test_a_file_of_any_name_is_stored_and_comes_back(name: str, repo: GitSandbox) -> None:
    data = repo.write(name, checkpoint()).read_bytes()
    said(repo.path, "track", name)
    assert filters_of([name, "other.pt"], find_places(repo.path)) == {name: "theta", "other.pt": "unspecified"}
    repo.commit_all("one")
    (repo.path / name).unlink()
    repo("checkout", "--", ".")
    assert (repo.path / name).read_bytes() == data
    assert repo("status", "--short") == ""
    assert "no longer tracking" in said(repo.path, "untrack", name)
    assert (repo.path / ".gitattributes").read_bytes() == b""


def test_committed_raw_files_are_named_with_what_to_do(repo: GitSandbox) -> None:
    names = ["old model.pt", "sub/old.pt"]
    for name in [*names, "note.txt"]:
        repo.write(name, checkpoint())
    repo.commit_all("raw")
    out = said(repo.path / "sub", "track", "../*.pt")
    assert 'git add --renormalize "../old model.pt"' in out, "as it has to be typed in this folder"
    assert "old.pt\n" not in out.replace('model.pt"\n', ""), "the pattern is anchored, so sub/old.pt is not concerned"
    out = said(repo.path, "track", "*.pt")
    assert 'git add --renormalize "old model.pt"' in out
    assert "git add --renormalize sub/old.pt" in out
    assert "note.txt" not in out
    repo("add", "--renormalize", *names)
    assert repo("cat-file", "blob", ":sub/old.pt").startswith("theta-manifest ")
    assert "renormalize" not in said(repo.path, "track", "*.pt")


def test_without_an_installation_the_repository_gets_one(tmp_path: Path) -> None:
    bare_of_config = GitSandbox(tmp_path / "new")
    bare_of_config.path.mkdir()
    bare_of_config("init", "-q")
    out = said(bare_of_config.path, "track", "*.pt")
    assert "now, in this repository" in out
    assert "git theta install" in out
    assert bare_of_config("config", "--local", "filter.theta.required") == "true\n"
    assert "now, in this repository" not in said(bare_of_config.path, "track", "*.bin")


# --- other filters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["*.safetensors", "model.safetensors", "sub/model.safetensors"])
def test_what_git_lfs_has_is_refused_by_file_and_line(typed: str, repo: GitSandbox) -> None:
    repo.write(".gitattributes", b"*.txt text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    result = theta(repo.path, "track", typed)
    assert result.status == 1
    assert "Git LFS" in result.err
    assert ".gitattributes, line 2" in result.err
    assert 'git lfs untrack "*.safetensors"' in result.err
    assert len(lines(repo)) == 2, "nothing was written"
    assert repo("status", "--short") == "?? .gitattributes\n"


def test_another_filter_of_a_parent_folder_is_refused(repo: GitSandbox) -> None:
    repo.write(".gitattributes", b"*.pt filter=secret\n")
    (repo.path / "sub").mkdir()
    result = theta(repo.path / "sub", "track", "x.pt")
    assert result.status == 1
    assert "the filter 'secret'" in result.err
    assert not (repo.path / "sub" / ".gitattributes").exists()


def test_files_that_a_deeper_folder_gives_to_another_filter_are_named(repo: GitSandbox) -> None:
    repo.write("sub/.gitattributes", b"*.pt filter=lfs\n")
    repo.write("sub/x.pt", b"1")
    repo.write("y.pt", b"2")
    out = said(repo.path, "track", "*.pt")
    assert "Not tracked, because another line decides" in out
    assert "sub/x.pt: '*.pt' in sub/.gitattributes, line 1" in out
    assert "y.pt:" not in out
    result = theta(repo.path, "track", "sub/x.pt")
    assert result.status == 1, "a file named by itself cannot be tracked from above"


@pytest.mark.parametrize("typed", ["*", ".git*", "**", "."])
def test_a_pattern_that_takes_in_the_attributes_themselves_is_refused(typed: str, repo: GitSandbox) -> None:
    result = theta(repo.path, "track", typed)
    assert result.status == 1
    assert "also matches .gitattributes" in result.err
    assert not (repo.path / ".gitattributes").exists()


def test_a_folder_with_attributes_of_its_own_is_refused(repo: GitSandbox) -> None:
    repo.write("models/.gitattributes", b"*.txt text\n")
    assert "also matches models/.gitattributes" in theta(repo.path, "track", "models").err
    said(repo.path, "track", "models/*.pt")


def test_nothing_is_written_if_one_of_several_patterns_is_refused(repo: GitSandbox) -> None:
    repo.write(".gitattributes", b"*.bin filter=lfs\n")
    assert theta(repo.path, "track", "*.pt", "*.bin").status == 1
    assert lines(repo) == ["*.bin filter=lfs"]


# --- untrack ----------------------------------------------------------------------------------------------------------


def test_untrack_takes_out_its_line_and_says_what_follows(repo: GitSandbox) -> None:
    repo.write(".gitattributes", b"# mine\n*.txt text\n")
    data = repo.write("a b.pt", checkpoint()).read_bytes()
    said(repo.path, "track", "*.pt")
    repo.commit_all("tracked")
    out = said(repo.path, "untrack", "*.pt")
    assert lines(repo) == ["# mine", "*.txt text"]
    assert repo("diff", "--cached", "--name-only") == ".gitattributes\n"
    assert 'git add --renormalize "a b.pt"' in out
    repo("add", "--renormalize", "a b.pt")
    assert repo.run("cat-file", "-s", ":a b.pt").stdout == f"{len(data)}\n", "git holds the whole file now"


def test_untrack_tells_what_is_tracked_still(repo: GitSandbox) -> None:
    repo.write("model.pt", checkpoint())
    said(repo.path, "track", "*.pt", "model.pt")
    repo.commit_all("tracked")
    out = said(repo.path, "untrack", "model.pt")
    assert "model.pt is still tracked through '*.pt' in .gitattributes, line 1" in out


def test_untrack_of_what_another_line_tracks_names_it(repo: GitSandbox) -> None:
    repo.write("sub/model.pt", checkpoint())
    said(repo.path, "track", "*.pt")
    result = theta(repo.path / "sub", "untrack", "model.pt")
    assert result.status == 1
    assert "'*.pt' in .gitattributes, line 1" in result.err
    result = theta(repo.path / "sub", "untrack", "*.pt")
    assert "by .gitattributes, line 1" in result.err
    assert "is not tracked" in theta(repo.path, "untrack", "*.bin").err
    assert lines(repo) == [f"*.pt {ATTRIBUTES}"]


# --- other kinds of work trees ----------------------------------------------------------------------------------------


def test_a_linked_work_tree(repo: GitSandbox, tmp_path: Path) -> None:
    repo("commit", "-q", "--allow-empty", "-m", "root")
    repo("worktree", "add", "-q", str(tmp_path / "linked"))
    linked = GitSandbox(tmp_path / "linked")
    said(linked.path, "track", "*.pt")
    assert linked("diff", "--cached", "--name-only") == ".gitattributes\n"
    assert not (repo.path / ".gitattributes").exists()
    assert "*.pt" in said(linked.path, "track")


@pytest.mark.parametrize("argv", [("track",), ("track", "*.pt"), ("untrack", "*.pt")], ids=" ".join)
def test_a_bare_repository_is_told_apart(argv: tuple[str, ...], tmp_path: Path) -> None:
    GitSandbox(tmp_path)("init", "-q", "--bare", "bare")
    result = theta(tmp_path / "bare", *argv)
    assert result.status == 1
    assert "there is no work tree here" in result.err


def test_the_python_api_tracks_from_the_top(repo: GitSandbox) -> None:
    import theta_nb.repository

    (repo.path / "sub").mkdir()
    theta_nb.repository.Repository(repo.path / "sub").track("*.pt")
    assert lines(repo) == [f"*.pt {ATTRIBUTES}"]
