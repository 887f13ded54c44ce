"""git theta diff on real repositories: which versions are compared, in every form of the output."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import theta_nb
from tests.commands.running import json_of, said, theta
from tests.conftest import GitSandbox
from tests.git.checks import age
from tests.history.conftest import NAME, folder, weights


def differing(repo: GitSandbox, *argv: str, cwd: Path | None = None) -> dict[str, list[str]]:
    """Names of what differs, by path of the new side."""
    result = theta(cwd or repo.path, "diff", "--json", *argv)
    assert result.status == 0, result.err
    return {
        diff["new"]["path"]: [p["name"] for p in diff["parameters"] if p["status"] != "unchanged"]
        for diff in json.loads(result.out)["diffs"]
    }


BLOCK_1, HEAD_PART = ["encoder.1.bias", "encoder.1.weight"], ["head.bias", "head.weight"]

# --- what is compared -------------------------------------------------------------------------------------------------


def test_work_tree_index_and_commits(grown: GitSandbox) -> None:
    assert differing(grown) == {}
    grown.write(NAME, weights(encoder_0=1.0, encoder_1=2.0, head=5.0))
    grown("add", NAME)
    grown.write(NAME, weights(encoder_0=7.0, encoder_1=2.0, head=5.0))
    assert differing(grown) == {NAME: ["encoder.0.bias", "encoder.0.weight"]}
    assert differing(grown, "--staged") == {NAME: HEAD_PART}
    assert differing(grown, "--cached", "HEAD~1") == {NAME: BLOCK_1 + HEAD_PART}
    assert differing(grown, "HEAD") == {NAME: ["encoder.0.bias", "encoder.0.weight", *HEAD_PART]}
    assert differing(grown, "HEAD~1", "HEAD") == differing(grown, "HEAD~1..HEAD") == {NAME: BLOCK_1}
    assert differing(grown, "HEAD~1..") == {NAME: BLOCK_1}


def test_files_that_were_renamed_added_and_removed(grown: GitSandbox) -> None:
    assert differing(grown, "HEAD~3", "HEAD") == {NAME: BLOCK_1}, "the file was renamed between them"
    grown.write("new.pt", weights(head=9.0))
    grown("rm", "-q", NAME)
    grown.commit_all("another")
    found = json_of(grown.path, "diff", "HEAD~1", "HEAD")["diffs"]
    assert [(diff["new"]["path"], diff["old"]["exists"], diff["new"]["exists"]) for diff in found] == [
        (NAME, True, False),
        ("new.pt", False, True),
    ]


def test_a_renamed_file_that_is_named(grown: GitSandbox) -> None:
    grown("mv", NAME, "renamed.safetensors")
    for argv in (("HEAD",), ("--staged",)):
        [found] = json_of(grown.path, "diff", *argv, "renamed.safetensors")["diffs"]
        assert (found["old"]["path"], found["new"]["path"]) == (NAME, "renamed.safetensors"), argv
    grown.commit_all("renamed")
    for name in ("renamed.safetensors", NAME):
        [found] = json.loads(said(grown.path, "diff", "--json", "HEAD~1", "HEAD", "--", name))["diffs"]
        assert (found["old"]["path"], found["new"]["path"]) == (NAME, "renamed.safetensors"), name
    assert differing(grown, "HEAD~2", "HEAD", "--", "renamed.safetensors") == {"renamed.safetensors": BLOCK_1}


def test_only_paths_that_are_named(grown: GitSandbox) -> None:
    sub = folder(grown, "models")
    (sub / "a.pt").write_bytes(weights())
    grown.commit_all("a")
    (sub / "a.pt").write_bytes(weights(head=1.0))
    grown.write(NAME, weights(head=2.0))
    assert set(differing(grown)) == {NAME, "models/a.pt"}
    assert set(differing(grown, "models")) == {"models/a.pt"}
    assert set(differing(grown, "a.pt", cwd=sub)) == {"models/a.pt"}
    assert set(differing(grown, "HEAD", "--", f"../{NAME}", cwd=sub)) == {NAME}
    assert set(differing(grown, "*.pt")) == {"models/a.pt"}


def test_a_named_file_that_is_the_same_is_told(grown: GitSandbox) -> None:
    assert said(grown.path, "diff") == ""
    assert "no parameter differs" in said(grown.path, "diff", NAME)


def test_a_touched_file_is_no_difference(grown: GitSandbox) -> None:
    (grown.path / NAME).touch()
    assert all(names == [] for names in differing(grown).values())


def test_it_agrees_with_python(grown: GitSandbox) -> None:
    [diff] = json_of(grown.path, "diff", "HEAD~1", "HEAD", NAME)["diffs"]
    assert diff == theta_nb.Repository(grown.path).diff(NAME, "HEAD~1", "HEAD").to_dict()


def test_a_bare_repository_compares_commits(grown: GitSandbox, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", grown.path, tmp_path / "bare.git"], check=True)
    assert differing(grown, "HEAD~1", "HEAD", "--stat", cwd=tmp_path / "bare.git") == {NAME: BLOCK_1}
    assert "Name two commits" in theta(tmp_path / "bare.git", "diff").err


# --- how it is shown --------------------------------------------------------------------------------------------------


def test_stat_reads_no_value(grown: GitSandbox) -> None:
    for path in (grown.path / ".git" / "theta" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    lines = said(grown.path, "diff", "--stat", "HEAD~1", "HEAD").splitlines()
    assert lines == [
        f"{NAME}  HEAD~1 → HEAD",
        "  2 of 6 parameters modified",
        "  encoder.1     2 of 2    ████████████████████",
    ]


def test_missing_values_are_explained_and_the_rest_is_shown(grown: GitSandbox) -> None:
    for path in (grown.path / ".git" / "theta" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    out = said(grown.path, "diff", "HEAD~1", "HEAD")
    assert "2 of 6 parameters modified" in out
    assert "2 parameters are not measured: " in out
    assert out.count("could not be fetched") == 1, "the reason stands there once"
    table = said(grown.path, "diff", "--markdown", "HEAD~1", "HEAD")
    assert table.count("could not be fetched") == 1
    assert len([line for line in table.splitlines() if line.endswith("| not measured |")]) == 2


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        pytest.param("head", "Patterns are globs over whole names: '*head*'.", id="a part of names"),
        pytest.param("heads.weight", "Did you mean 'head.weight' or ", id="misspelt"),
        pytest.param("zzz*", "Patterns are globs over whole names, as 'encoder.0.bias'.", id="nothing alike"),
    ],
)
def test_a_filter_without_a_match_says_so(grown: GitSandbox, pattern: str, hint: str) -> None:
    done = theta(grown.path, "diff", "v1", "HEAD~3", "-F", "head.*", "--filter", pattern)
    assert done.status == 1
    assert f"no parameter matches {pattern!r}. {hint}" in done.err


def test_choosing_and_sorting(grown: GitSandbox) -> None:
    assert differing(grown, "v1", "HEAD~3", "--filter", "head.*") == {"old.safetensors": HEAD_PART}
    assert differing(grown, "v1", "HEAD~3", "-F", "*.bias", "-F", "head.w*") == {
        "old.safetensors": ["encoder.0.bias", "head.bias", "head.weight"]
    }
    assert differing(grown, "v1", "HEAD~3", "--sort", "size", "--top", "2") == {
        "old.safetensors": ["encoder.0.weight", "head.weight"]
    }


def test_markdown(grown: GitSandbox) -> None:
    lines = said(grown.path, "diff", "--markdown", "HEAD~1", "HEAD").splitlines()
    assert lines[0] == f"### {NAME}  HEAD~1 → HEAD"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") - line.count("\\|") for line in table}) == 1, "every row has the same cells"


def test_a_page_of_its_own(grown: GitSandbox) -> None:
    assert said(grown.path, "diff", "HEAD~1", "HEAD", "--html", "out.html") == "written out.html\n"
    page = (grown.path / "out.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "encoder.1.bias" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert said(grown.path, "diff", "HEAD~1", "HEAD", "--html", "-") == page


def test_colours_on_a_terminal(grown: GitSandbox) -> None:
    from tests.commands.test_cli import on_terminal

    grown.write("new.pt", weights())
    grown.commit_all("new")
    out = on_terminal(grown.path, "diff", "HEAD~2", "HEAD", env={"GIT_PAGER": "cat"})
    assert "\x1b[32m+ encoder.0.bias" in out
    assert "\x1b[1m" in out


def test_a_narrow_terminal_gets_fewer_numbers(grown: GitSandbox) -> None:
    from tests.commands.test_cli import on_terminal

    wide, narrow = (
        on_terminal(grown.path, "diff", "HEAD~1", "HEAD", env={"GIT_PAGER": "cat", "COLUMNS": columns, "NO_COLOR": "1"})
        for columns in ("200", "60")
    )
    assert "cosine" in wide.splitlines()[3]
    assert "not shown" not in wide
    lines = narrow.splitlines()
    assert "‖Δ‖/‖old‖" in lines[3]
    assert "cosine" not in lines[3]
    assert max(map(len, lines[3:])) <= 60
    assert lines[-1].startswith("  not shown in 60 columns: ")
    assert lines[-1].endswith("cosine")


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["nope"], 1, "'nope' is neither a commit nor a file here"),
        (["HEAD", "nope", "--"], 1, "'nope' is no commit here"),
        (["HEAD", "HEAD~1", "HEAD~2"], 1, "more than two versions"),
        (["--staged", "HEAD", "HEAD~1"], 1, "more than two versions"),
        (["HEAD...v1"], 1, "three dots"),
        (["HEAD", "notes.txt"], 1, "notes.txt is not tracked by theta"),
        (["--sort", "colour"], 2, "'colour'"),
        (["--top", "0"], 2, "'0' is no number"),
        (["--json", "--markdown"], 2, "not allowed with"),
        (["HEAD~1", "HEAD", "--html", "/nowhere/x"], 1, "/nowhere/x: No such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(argv: list[str], status: int, words: str, grown: GitSandbox) -> None:
    result = theta(grown.path, "diff", *argv)
    assert result.status == status
    assert words in result.err
    assert result.err.count("\n") == 1


def test_a_broken_manifest_is_named(repository: GitSandbox) -> None:
    repository.write("m.pt", weights())
    repository.commit_all("good")
    repository("config", "--unset", "filter.theta.process")
    repository("config", "filter.theta.required", "false")
    repository.write("m.pt", b"theta-manifest 1\nnonsense\n")
    repository.commit_all("broken")
    result = theta(repository.path, "diff", "HEAD~1", "HEAD")
    assert result.status == 1
    assert "m.pt at HEAD: header 'nonsense' is not known" in result.err


def test_work_that_is_not_needed_is_not_done(
    new_grown: Callable[[str], GitSandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clean work tree is not hashed, whatever its size."""
    repo = new_grown("clean")
    age(repo, [NAME])
    repo("status")
    monkeypatch.setattr("theta_nb.engine.clean.Cleaner.file", lambda *_: pytest.fail("the file was read"))
    assert differing(repo) == {}


# --- files that cannot be compared ------------------------------------------------------------------------------------


@pytest.fixture
def broken(grown: GitSandbox) -> GitSandbox:
    """A changed checkpoint, and before it one whose staged manifest is cut short."""
    grown.write("a.safetensors", weights())
    grown.commit_all("another")
    text = grown("cat-file", "blob", "HEAD:a.safetensors")
    cut = text[: text.index("\n\n") + 1].encode()
    oid = grown.run("hash-object", "-w", "--stdin", data=cut).stdout.strip()
    grown("update-index", "--cacheinfo", f"100644,{oid},a.safetensors")
    grown.write(NAME, weights(encoder_0=1.0, encoder_1=2.0, head=5.0))
    grown("add", NAME)
    return grown


def test_a_corrupt_manifest_does_not_hide_other_files(broken: GitSandbox) -> None:
    for options in ((), ("--stat",), ("--markdown",)):
        result = theta(broken.path, "diff", "--staged", *options)
        assert result.status == 1
        assert "a.safetensors at index: the manifest is cut short. Take" in result.out
        assert "parameters modified" in result.out
    result = theta(broken.path, "diff", "--staged", "--json")
    found = json.loads(result.out)
    assert result.status == 1
    assert [diff["new"]["path"] for diff in found["diffs"]] == [NAME]
    assert [error["path"] for error in found["errors"]] == ["a.safetensors"]
    page = theta(broken.path, "diff", "--staged", "--html", "-").out
    assert "cannot be compared:" in page
    assert "head.weight" in page


def test_alone_it_is_the_error_of_the_command(broken: GitSandbox) -> None:
    result = theta(broken.path, "diff", "--staged", "a.safetensors")
    assert (result.status, result.out) == (1, "")
    assert "the manifest is cut short" in result.err
