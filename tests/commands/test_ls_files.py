"""``git theta ls-files`` and what the other listings say about a path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.commands.running import checkpoint, json_of, said, theta
from tests.conftest import GitSandbox

NAMES = ["a b.pt", "sub/é.pt", "line\nbreak.pt"]


@pytest.fixture
def stored(repository: GitSandbox) -> GitSandbox:
    """Three committed checkpoints and a file that is none."""
    for name in NAMES:
        repository.write(name, checkpoint())
    repository.write("note.txt", b"text")
    repository.commit_all("checkpoints")
    return repository


def states(repo: GitSandbox, *argv: str) -> dict[str, str]:
    return {item["path"]: item["state"] for item in json_of(repo.path, "ls-files", *argv)["checkpoints"]}


def test_one_line_a_checkpoint(stored: GitSandbox) -> None:
    assert said(stored.path, "ls-files") == 'a b.pt\n"line\\nbreak.pt"\nsub/é.pt\n'
    assert said(stored.path / "sub", "ls-files") == '../a b.pt\n"../line\\nbreak.pt"\né.pt\n'
    assert said(stored.path, "ls-files", "sub") == "sub/é.pt\n"
    assert said(stored.path / "sub", "ls-files", ".") == "é.pt\n"
    assert "No tracked checkpoint matches" in said(stored.path, "ls-files", "note.txt")


def test_names_for_programs(stored: GitSandbox) -> None:
    assert said(stored.path, "ls-files", "-z") == "a b.pt\0line\nbreak.pt\0sub/é.pt\0"
    assert said(stored.path / "sub", "ls-files", "-z") == "../a b.pt\0../line\nbreak.pt\0é.pt\0"
    assert sorted(states(stored)) == sorted(NAMES)


def test_names_that_are_not_utf_8(repository: GitSandbox) -> None:
    name = os.fsdecode(b"caf\xe9.pt")
    repository.write(name, checkpoint())
    repository("add", ".")
    assert said(repository.path, "ls-files") == '"caf\\351.pt"\n'
    assert said(repository.path, "ls-files", "-z") == f"{name}\0"
    assert states(repository) == {name: "complete"}


def test_the_long_form_describes_the_content(stored: GitSandbox) -> None:
    stored.write("other.pt", checkpoint(shifts=(1.0,)))
    stored("add", ".")
    found = {item["path"]: item for item in json_of(stored.path, "ls-files")["checkpoints"]}
    assert found["a b.pt"]["format"] == "pytorch"
    assert found["a b.pt"]["tensors"] == 3
    assert found["a b.pt"]["size"] == len(checkpoint())
    assert found["a b.pt"]["digest"] == found["sub/é.pt"]["digest"] != found["other.pt"]["digest"]
    out = said(stored.path, "ls-files", "--long")
    assert f"{found['a b.pt']['digest'][:10]}  pytorch  3 tensors" in out
    assert len({line.index("pytorch") for line in out.splitlines()}) == 1, "columns stand below each other"


def test_what_is_special_is_remarked(stored: GitSandbox) -> None:
    (stored.path / "a b.pt").unlink()
    stored.write("sub/é.pt", stored("cat-file", "blob", "HEAD:sub/é.pt").encode())
    stored.write("raw.pt", b"not cleaned")
    blob = stored.run("hash-object", "-w", "--no-filters", "raw.pt").stdout.strip()
    stored("update-index", "--add", "--cacheinfo", f"100644,{blob},raw.pt")
    broken = stored.run("hash-object", "-w", "--stdin", "--no-filters", data=b"theta-manifest 1\n\x1b[2J").stdout
    stored("update-index", "--add", "--cacheinfo", f"100644,{broken.strip()},broken.pt")
    stored.write("v1.pt", b'{"w": {"theta_metadata": {"update_type": "dense"}}}')
    stored("add", "v1.pt")
    assert states(stored) == {
        "a b.pt": "missing",
        "sub/é.pt": "manifest only",
        "line\nbreak.pt": "complete",
        "raw.pt": "raw",
        "broken.pt": "broken",
        "v1.pt": "git-theta",
    }
    out = said(stored.path, "ls-files")
    for words in ("missing from the work tree", "manifest only", "a whole file in git", "git-theta, format 1"):
        assert words in out
    assert "\x1b" not in out, "nothing in a manifest reaches the terminal as a command"


def test_a_conflict_is_one_line(stored: GitSandbox) -> None:
    stored("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    stored("checkout", "-q", "-b", "other")
    stored.write("a b.pt", checkpoint(shifts=(1.0,)))
    stored.commit_all("theirs")
    stored("checkout", "-q", "main")
    stored.write("a b.pt", checkpoint(shifts=(2.0,)))
    stored.commit_all("ours")
    result = stored.run("merge", "other", check=False)
    assert result.returncode == 1, result
    assert "both sides changed encoder.layer.0.weight" in result.stderr
    assert states(stored)["a b.pt"] == "conflict"
    assert said(stored.path, "ls-files").count("a b.pt") == 1
    assert "conflict  a b.pt" in said(stored.path, "status")


def test_another_commit_by_its_own_attributes(stored: GitSandbox) -> None:
    stored("rm", "-q", "a b.pt")
    stored.write(".gitattributes", b"")
    stored.commit_all("nothing is tracked any more")
    assert states(stored) == {}
    assert states(stored, "--source", "HEAD~1") == dict.fromkeys(NAMES, "stored")
    assert states(stored, "--source", "HEAD~1", "sub") == {"sub/é.pt": "stored"}
    result = theta(stored.path, "ls-files", "--source", "nope")
    assert result.status == 1
    assert "'nope' is no commit here" in result.err


def test_a_bare_repository_lists_its_head(stored: GitSandbox, tmp_path: Path) -> None:
    stored("clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    assert states(GitSandbox(tmp_path / "bare")) == dict.fromkeys(NAMES, "stored")
    assert said(tmp_path / "bare", "ls-files", "-n").splitlines()[0] == "a b.pt"


def test_a_repository_without_checkpoints_says_how_to_begin(repository: GitSandbox) -> None:
    assert 'git theta track "*.safetensors"' in said(repository.path, "ls-files")
    assert 'git theta track "*.safetensors"' in said(repository.path, "status")


# --- what the verbs of a single checkpoint print ----------------------------------------------------------------------


def test_status_names_at_most_ten_tensors(repository: GitSandbox) -> None:
    repository.write("models/m.pt", checkpoint(layers=20))
    repository.commit_all("one")
    assert said(repository.path, "status") == "1 checkpoint unchanged\n"
    repository.write("models/m.pt", checkpoint(layers=20, shifts=[1.0] * 15, extra="head"))
    out = said(repository.path / "models", "status")
    assert out.startswith("modified  m.pt  21 tensors, "), out
    assert "15 changed, 1 added" in out
    assert out.count("    ~ ") == 10
    assert "… and 6 more" in out
    repository("add", ".")
    assert "modified  models/m.pt (staged)" in said(repository.path, "status")
    item = json_of(repository.path, "status")["checkpoints"][0]
    assert len(item["changed"]) == 15, "programs get every name"
    assert (item["state"], item["staged"], item["added"]) == ("modified", True, ["head"])


def test_hints_of_status_can_be_typed_where_one_is(repository: GitSandbox) -> None:
    repository.write("my models/new one.pt", checkpoint())
    out = said(repository.path / "my models", "status")
    assert 'git add "new one.pt"' in out
    assert 'git add "my models/new one.pt"' in said(repository.path, "status")


def test_add_checkout_fsck_and_gc(repository: GitSandbox) -> None:
    repository.write("m.pt", checkpoint())
    assert said(repository.path, "add", "m.pt") == "added m.pt\n"
    result = theta(repository.path, "add", ".gitattributes")
    assert result.status == 1
    assert "is not tracked" in result.err
    repository.commit_all("one")
    assert said(repository.path, "checkout") == "1 checkpoint already there\n"
    (repository.path / "m.pt").unlink()
    assert said(repository.path, "checkout").startswith("written m.pt")
    assert json_of(repository.path, "checkout")["checkpoints"][0]["action"] == "already there"
    assert "everything can be rebuilt" in said(repository.path, "fsck")
    assert (
        json_of(
            repository.path,
            "fsck",
            "--all",
        )["problems"]
        == []
    )
    assert "would delete 0 objects" in said(repository.path, "gc", "--dry-run", "--grace", "0")
    assert json_of(repository.path, "gc", "--dry-run")["deleted"] == 0


def test_fsck_that_finds_something_fails(repository: GitSandbox) -> None:
    repository.write("m.pt", checkpoint(layers=30))
    repository.commit_all("one")
    shutil.rmtree(repository.path / ".git" / "theta" / "objects")
    result = theta(repository.path, "fsck")
    assert result.status == 1
    assert "is missing" in result.out
    assert "m.pt, commit " in result.out
    assert "encoder.layer.0.weight" in result.out
    assert "more" in result.out, "the names of one object's parameters are folded"
    failed = theta(repository.path, "fsck", "--json")
    assert failed.status == 1, "also where a program reads the report"
    assert '"kind": "missing"' in failed.out


def test_gc_counts_what_it_deletes(repository: GitSandbox) -> None:
    repository.write("m.pt", checkpoint())
    repository("add", ".")
    repository("rm", "-q", "-f", "--cached", "m.pt")
    out = said(repository.path, "gc")
    assert "younger than the grace period" in out
    count = json_of(repository.path, "gc", "--dry-run", "--grace", "0h")["deleted"]
    assert count > 0
    assert said(repository.path, "gc", "--grace=0").startswith(f"deleted {count} object")
