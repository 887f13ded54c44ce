"""Attributes: the file keeps what is not ours, and git itself answers who handles a path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ATTRIBUTES, GitSandbox
from theta_nb.errors import ThetaError
from theta_nb.git.attributes import (
    claim_of,
    filters_of,
    paths_matching,
    require_work_tree,
    sample_path,
    tracked_in_tree,
    tracked_paths,
)
from theta_nb.git.attributes_file import AttributesFile, parse_rule, quote_pattern
from theta_nb.git.places import find_places

# Any bytes that a file name can hold, as Python spells them.
patterns = st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)


@given(patterns.filter(lambda pattern: not pattern.startswith("[attr]")))
def test_every_pattern_survives_its_spelling(pattern: str) -> None:
    line = f"{quote_pattern(pattern)} filter=theta -text"
    assert "\n" not in line
    rule = parse_rule(line, 1)
    assert rule is not None
    assert (rule.pattern, rule.attributes) == (pattern, ("filter=theta", "-text"))


@given(st.binary(max_size=200), patterns.filter(lambda pattern: not pattern.startswith(("[attr]", "!"))))
def test_tracking_and_untracking_gives_the_file_back(data: bytes, pattern: str) -> None:
    file = AttributesFile("unused", data)
    assert file.data == data
    was = file.rule_of(pattern)
    file.track(pattern)
    assert (rule := file.rule_of(pattern)) is not None
    assert rule.filter == "theta"
    if was is None:
        assert file.untrack(pattern)
        assert file.data.removesuffix(b"\n").removesuffix(b"\r") == data.removesuffix(b"\n").removesuffix(b"\r")


@pytest.mark.parametrize(
    ("line", "pattern", "name", "missing"),
    [
        ("*.pt filter=theta merge=theta diff=theta", "*.pt", "theta", ("-text",)),
        (f"*.pt {ATTRIBUTES}", "*.pt", "theta", ()),
        ("*.pt filter=theta merge=theta diff=theta text", "*.pt", "theta", ()),
        ("*.pt binary filter=theta", "*.pt", "theta", ()),
        ("*.pt filter=lfs filter=theta -text", "*.pt", "theta", ("merge=theta", "diff=theta")),
        ('  "a \\"b\\"\\t\\303\\251.pt"\tfilter=lfs', 'a "b"\té.pt', "lfs", None),
        ('"unclosed filter=lfs', '"unclosed', "lfs", None),
        ("*.pt -filter", "*.pt", "", None),
        ("*.pt !filter", "*.pt", "", None),
        ("*.pt lockable", "*.pt", None, None),
    ],
)
def test_reading_a_line(line: str, pattern: str, name: str | None, missing: tuple[str, ...] | None) -> None:
    rule = parse_rule(line, 3)
    assert rule is not None
    assert (rule.pattern, rule.filter, rule.number) == (pattern, name, 3)
    if missing is not None:
        assert rule.missing == missing


@pytest.mark.parametrize("line", ["", "   ", "# *.pt filter=theta", "\t# x", "[attr]weights filter=theta"])
def test_lines_without_a_rule(line: str) -> None:
    assert parse_rule(line, 1) is None


def test_comments_blank_lines_and_line_ends_stay() -> None:
    data = b"\xef\xbb\xbf# weights\r\n\r\n*.bin  filter=lfs\t-text\r\n*.txt text\r\nlast"
    file = AttributesFile("unused", data)
    file.track("*.pt")
    assert file.data == data + b"\r\n*.pt filter=theta merge=theta diff=theta -text\r\n"
    file.untrack("*.pt")
    assert file.data == data + b"\r\n"


def test_what_else_a_line_says_survives_untracking() -> None:
    file = AttributesFile("unused", b'"a b.pt" filter=theta lockable merge=theta diff=theta -text\n*.pt text\n')
    assert file.untrack("a b.pt")
    assert file.data == b'"a b.pt" lockable\n*.pt text\n'
    assert not file.untrack("a b.pt")


def test_writing_keeps_permissions_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / ".gitattributes"
    path.write_bytes(b"*.txt text\n")
    path.chmod(0o640)
    file = AttributesFile.read(str(path))
    file.track("*.pt")
    file.write()
    assert path.read_bytes() == b"*.txt text\n*.pt filter=theta merge=theta diff=theta -text\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == [".gitattributes"]


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / ".gitattributes").symlink_to("elsewhere")
    with pytest.raises(ThetaError, match="symbolic link"):
        AttributesFile.read(str(tmp_path / ".gitattributes"))


# --- git answers ------------------------------------------------------------------------------------------------------

AWKWARD = [
    "a b.pt",
    "é.pt",
    "line\nbreak.pt",
    'quo"te.pt',
    "tab\t.pt",
    "-dash.pt",
    "[x].pt",
    "!bang.pt",
    "#hash.pt",
    "*.pt",
]


def test_awkward_names_are_tracked_by_git_itself(repository: GitSandbox) -> None:
    """Each name is written as a pattern of its own; git, not our parser, says that it matches."""
    file = AttributesFile(str(repository.path / ".gitattributes"))
    for name in AWKWARD:
        repository.write(name, b"")
        file.track("".join(f"\\{c}" if c in "[*?\\" or (c == "!" and i == 0) else c for i, c in enumerate(name)))
    file.write()
    places = find_places(repository.path)
    assert filters_of(AWKWARD, places) == dict.fromkeys(AWKWARD, "theta")
    assert filters_of(["other.pt", "x.pt", "break.pt"], places) == dict.fromkeys(
        ["other.pt", "x.pt", "break.pt"], "unspecified"
    )


def test_work_tree_index_and_commit_have_attributes_of_their_own(repository: GitSandbox) -> None:
    places = find_places(repository.path)
    repository.write(".gitattributes", b"*.bin filter=theta\n")
    repository("add", ".gitattributes")
    repository.write(".gitattributes", b"*.ckpt filter=theta\n")
    names = ["m.pt", "m.bin", "m.ckpt"]

    def tracked(**how: object) -> list[str]:
        return [name for name, value in filters_of(names, places, **how).items() if value == "theta"]

    assert tracked() == ["m.ckpt"], "the work tree's file counts, though it is not staged"
    assert tracked(cached=True) == ["m.bin"]
    assert tracked(revision="HEAD") == ["m.pt"]


def test_a_bare_repository_is_asked_by_commit(repository: GitSandbox, tmp_path: Path) -> None:
    repository.write("sub/m.pt", b"some bytes")
    repository.write("sub/m.txt", b"text")
    (repository.path / "link.pt").symlink_to("sub/m.pt")
    repository.commit_all("a checkpoint")
    repository("clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    places = find_places(tmp_path / "bare")
    assert [blob.path for blob in tracked_in_tree(places, "HEAD")] == ["sub/m.pt"]
    assert tracked_in_tree(places, "HEAD~1") == []
    assert filters_of(["x.pt", "x.py"], places, revision="main") == {"x.pt": "theta", "x.py": "unspecified"}
    with pytest.raises(ThetaError, match="there is no work tree here"):
        require_work_tree(places)
    with pytest.raises(ThetaError, match="no work tree"):
        tracked_paths(places)


def test_tracked_paths_are_those_of_the_index(repository: GitSandbox) -> None:
    for name in ["b.pt", "a.safetensors", "sub/c d.pt", "note.txt", "line\nbreak.pt"]:
        repository.write(name, b"some bytes")
    (repository.path / "link.pt").symlink_to("b.pt")
    repository("add", ".")
    repository.write("new.pt", b"not added")
    expected = ["a.safetensors", "b.pt", "line\nbreak.pt", "sub/c d.pt"]
    assert sorted(tracked_paths(find_places(repository.path))) == expected
    (repository.path / "deep").mkdir()
    assert sorted(tracked_paths(find_places(repository.path / "deep"))) == expected, "also from a subdirectory"


@pytest.mark.parametrize(
    ("pattern", "folder", "expected"),
    [
        ("*.pt", "", ["a b/deep/y.pt", "a b/x.pt", "a.pt"]),
        ("*.pt", "a b", ["a b/deep/y.pt", "a b/x.pt"]),
        ("/*.pt", "a b", ["a b/x.pt"]),
        ("deep/*", "a b", ["a b/deep/y.pt"]),
        ("a b/**", "", ["a b/deep/y.pt", "a b/x.pt"]),
        ("y.pt", "", ["a b/deep/y.pt"]),
        ("*.bin", "", []),
    ],
)
def test_a_pattern_matches_what_it_would_match_in_its_folder(
    pattern: str, folder: str, expected: list[str], repository: GitSandbox
) -> None:
    """Compared with git's own answer to the same line in the folder's own file."""
    names = ["a.pt", "a b/x.pt", "a b/deep/y.pt", "note.txt"]
    for name in names:
        repository.write(name, b"")
    repository.write(".gitattributes", b"")
    assert paths_matching(pattern, folder, find_places(repository.path)) == expected
    repository.write(f"{folder or '.'}/.gitattributes", f"{quote_pattern(pattern)} filter=theta\n".encode())
    filters = filters_of(names, find_places(repository.path))
    assert sorted(name for name in names if filters[name] == "theta") == expected
    sample = sample_path(pattern, folder)
    if "*" in pattern:
        assert filters_of([sample], find_places(repository.path)) == {sample: "theta"}


def test_the_rule_that_decides_is_found(repository: GitSandbox, isolated_home: Path) -> None:
    top = "*.pt filter=lfs\n*.pt filter=theta\n[attr]weights filter=lfs\n*.bin weights\nsub/*.ckpt filter=lfs\n"
    repository.write(".gitattributes", top.encode())
    repository.write("sub/.gitattributes", b"# comment\n*.pt filter=other\n")
    (isolated_home / ".config" / "git").mkdir(parents=True)
    (isolated_home / ".config" / "git" / "attributes").write_text("*.gguf filter=lfs\n*.pt filter=lfs\n")
    info = repository.path / ".git" / "info" / "attributes"
    info.parent.mkdir(exist_ok=True)
    info.write_text("sub/last.pt filter=private\n")
    places = find_places(repository.path)

    def decides(path: str) -> tuple[str, int] | None:
        claim = claim_of(path, places)
        return (
            None
            if claim is None
            else (os.path.relpath(claim.file, "/") if claim.folder is None else claim.file, claim.rule.number)
        )

    assert decides("a.pt") == (".gitattributes", 2)
    assert decides("sub/deep/a.pt") == ("sub/.gitattributes", 2)
    assert decides("x.bin") == (".gitattributes", 4), "a macro decides, too"
    assert decides("sub/x.ckpt") == (".gitattributes", 5)
    assert decides("deep/x.ckpt") is None
    assert decides("x.gguf") == (str(isolated_home / ".config" / "git" / "attributes"), 1)
    last = decides("sub/last.pt")
    assert last is not None
    assert last[0].endswith(".git/info/attributes")
