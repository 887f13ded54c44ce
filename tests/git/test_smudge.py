"""What is checked out where the checkpoint cannot, or shall not, be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model
from tests.git.checks import age, assert_quiet, manifest_text, objects, remove_objects, theta_dir, warnings
from tests.git.conftest import NAME, ONE, THREE, TWO

SKIP = {"GIT_THETA_SKIP_SMUDGE": "1"}


def _content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


def _again(repo: GitSandbox, env: dict[str, str] | None = None) -> str:
    """Check the file out anew; returns what was said."""
    (repo.path / NAME).unlink()
    return repo.run("checkout", NAME, env=env).stderr


def test_skip_smudge_leaves_the_manifest_and_a_quiet_status(history: GitSandbox) -> None:
    assert warnings(_again(history, SKIP)) == []
    assert _content(history).decode() == manifest_text(history, NAME)
    assert_quiet(history)
    history.run("checkout", "-q", "one", env=SKIP)
    assert _content(history).decode() == manifest_text(history, NAME)
    assert_quiet(history)
    (history.path / NAME).unlink()
    history("checkout", NAME)
    assert _content(history) == ONE


@pytest.mark.parametrize("value", ["0", "false", "no", ""])
def test_skip_smudge_can_be_said_not_to_be(history: GitSandbox, value: str) -> None:
    history("config", "theta.skipSmudge", "true")
    _again(history)
    assert _content(history) != TWO
    _again(history, {"GIT_THETA_SKIP_SMUDGE": value})
    assert _content(history) == TWO


def test_commits_of_a_work_tree_of_manifests_change_nothing(history: GitSandbox) -> None:
    _again(history, SKIP)
    history.write("notes.txt", b"more\n")
    history("commit", "-qam", "notes")
    assert history("rev-parse", f"HEAD:{NAME}") == history("rev-parse", f"two:{NAME}")
    history("rm", "-q", "--cached", NAME)
    history("add", NAME)
    assert history("rev-parse", f":{NAME}") == history("rev-parse", f"two:{NAME}")


@pytest.mark.parametrize("limit", ["1k", "0", "100"])
def test_above_the_limit_git_gets_the_manifest_and_one_line_says_so(history: GitSandbox, limit: str) -> None:
    history("config", "theta.smudgeLimit", limit)
    history("config", "theta.hooks", "false")  # they would complete the file at once
    history("theta", "hooks", "--remove")
    said = warnings(_again(history))
    assert len(said) == 1
    assert "theta.smudgeLimit" in said[0]
    assert f"git theta checkout {NAME}" in said[0]
    assert _content(history).decode() == manifest_text(history, NAME)
    assert_quiet(history)
    history("config", "theta.smudgeLimit", "1g")
    assert _again(history) == "Updated 1 path from the index\n"
    assert _content(history) == TWO


@pytest.mark.parametrize(
    ("key", "value"), [("theta.smudgeLimit", "plenty"), ("theta.skipSmudge", "perhaps"), ("theta.workers", "-1")]
)
def test_a_setting_that_makes_no_sense_is_named_and_destroys_nothing(history: GitSandbox, key: str, value: str) -> None:
    history("config", key, value)
    said = warnings(history.run("checkout", "-q", "one").stderr)
    assert len(said) == 1
    assert key.lower() in said[0].lower()
    assert value in said[0]
    assert _content(history) == ONE
    assert_quiet(history)


def test_without_objects_the_manifest_is_checked_out_with_one_warning(history: GitSandbox) -> None:
    remove_objects(history)
    result = history.run("checkout", "one")
    said = warnings(result.stderr)
    assert len(said) == 1
    assert NAME in said[0]
    assert f"git theta checkout {NAME}" in said[0]
    assert _content(history).decode() == manifest_text(history, NAME)
    assert_quiet(history)


def test_a_missing_store_is_like_a_missing_object(history: GitSandbox) -> None:
    import shutil

    shutil.rmtree(theta_dir(history))
    assert len(warnings(_again(history))) == 1
    assert_quiet(history)


@pytest.mark.parametrize("kind", ["zeros", "cut", "flipped"])
def test_corrupt_objects_are_an_error_never_other_weights(history: GitSandbox, kind: str) -> None:
    for oid in objects(history):
        path = theta_dir(history) / "objects" / oid[:2] / oid[2:4] / oid
        data = bytearray(path.read_bytes())
        if kind == "zeros":
            data = bytearray(len(data))
        elif kind == "cut":
            del data[len(data) // 2 :]
        else:
            for position in range(20, len(data), 100):
                data[position] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
    (history.path / NAME).unlink()
    result = history.run("checkout", NAME, check=False)
    assert result.returncode != 0
    assert NAME in result.stderr
    assert "Traceback" not in result.stderr
    assert "fsck" in result.stderr
    assert not (history.path / NAME).exists() or _content(history) == TWO


def test_a_store_that_cannot_be_written_fails_the_add_and_keeps_the_file(history: GitSandbox) -> None:
    # A file in place of the folder: permissions do not stop root, whom the tests may run as.
    import shutil

    shutil.rmtree(theta_dir(history) / "tmp", ignore_errors=True)
    (theta_dir(history) / "tmp").write_bytes(b"")
    data = model(9)
    history.write(NAME, data)
    before = history("ls-files", "-s")
    result = history.run("add", NAME, check=False)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "theta: " in result.stderr
    assert history("ls-files", "-s") == before
    assert _content(history) == data
    assert not (history.path / ".git" / "index.lock").exists()


def test_required_is_true_so_a_failing_clean_never_stores_the_raw_file(history: GitSandbox) -> None:
    history.write("broken.safetensors", b"theta-manifest 1\n<<<<<<< HEAD\n")
    result = history.run("add", ".", check=False)
    assert result.returncode != 0
    assert "broken.safetensors" not in history("ls-files")
    history.write("broken.safetensors", THREE)
    history("add", ".")


def test_a_broken_manifest_in_history_does_not_stop_other_work(history: GitSandbox) -> None:
    text = manifest_text(history, NAME).replace("layer.0.bias\t", "<<<<<<< HEAD\nlayer.0.bias\t").encode()
    oid = history.run("hash-object", "-w", "--stdin", data=text).stdout.strip()
    history("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    history("commit", "-qm", "merged by lines, somewhere without the filter")
    (history.path / NAME).unlink()
    said = warnings(history.run("checkout", NAME).stderr)
    assert len(said) == 1
    assert "conflict markers" in said[0]
    assert _content(history) == text
    assert_quiet(history)
    history("checkout", "-q", "one")
    assert _content(history) == ONE
    history("checkout", "-q", "main")
    history.write(NAME, TWO)
    history("commit", "-qam", "repaired")
    assert_quiet(history)


def test_a_file_that_looks_like_the_work_tree_file_but_is_another_is_stored_as_it_is(history: GitSandbox) -> None:
    # The filter takes the layout from the work-tree file; what git sends differs from it only at the end.
    tail = THREE + b"a tail that the work-tree file does not have"
    named = subprocess.run(
        ["git", "hash-object", "-w", "--stdin", "--path", NAME],
        cwd=history.path,
        input=tail,
        capture_output=True,
        check=True,
    ).stdout.decode()
    shown = subprocess.run(
        ["git", "cat-file", "--filters", "--path", NAME, named.strip()],
        cwd=history.path,
        capture_output=True,
        check=True,
    ).stdout
    assert shown == tail
    assert _content(history) == TWO


def test_a_pipe_at_the_path_does_not_block_the_filter(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    os.mkfifo(history.path / NAME)
    out = subprocess.run(
        ["git", "hash-object", "--stdin", "--path", NAME], cwd=history.path, input=TWO, capture_output=True, check=True
    ).stdout.decode()
    assert out == history("rev-parse", f"two:{NAME}")


def test_a_link_at_the_path_is_not_followed(history: GitSandbox) -> None:
    (history.path / NAME).unlink()
    (history.path / NAME).symlink_to(Path("/dev/zero"))
    out = subprocess.run(
        ["git", "hash-object", "--stdin", "--path", NAME], cwd=history.path, input=TWO, capture_output=True, check=True
    ).stdout.decode()
    assert out == history("rev-parse", f"two:{NAME}")


# --- tools that do not speak the protocol -----------------------------------------------------------------------------


@pytest.fixture
def single_shot(history: GitSandbox) -> GitSandbox:
    """The repository with one filter call for each file."""
    history("config", "--unset", "filter.theta.process")
    history("config", "filter.theta.clean", "git-theta clean %f")
    history("config", "filter.theta.smudge", "git-theta smudge %f")
    return history


def test_single_shot_filters_do_the_same(single_shot: GitSandbox) -> None:
    single_shot("checkout", "-q", "one")
    assert _content(single_shot) == ONE
    single_shot("checkout", "-q", "main")
    assert_quiet(single_shot)
    single_shot.write(NAME, THREE)
    single_shot.write("a b'c.safetensors", ONE)
    single_shot.commit_all("three")
    for name in (NAME, "a b'c.safetensors"):
        (single_shot.path / name).unlink()
    single_shot("checkout", ".")
    assert _content(single_shot) == THREE
    assert _content(single_shot, "a b'c.safetensors") == ONE
    assert_quiet(single_shot)
    assert single_shot("rev-parse", ":a b'c.safetensors") == single_shot("rev-parse", f"one:{NAME}")


def test_single_shot_filters_fail_loudly(single_shot: GitSandbox) -> None:
    single_shot.write("new.pt", b"theta-manifest 1\nnonsense")
    result = single_shot.run("add", "new.pt", check=False)
    assert result.returncode != 0
    assert "new.pt" in result.stderr
    assert "Traceback" not in result.stderr


def test_both_kinds_of_filter_set_up_together(history: GitSandbox) -> None:
    # As git-theta left them: git prefers the process.
    history("config", "filter.theta.clean", "false")
    history("config", "filter.theta.smudge", "false")
    history.write(NAME, THREE)
    age(history, [NAME])
    history("commit", "-qam", "three")
    history("checkout", "-q", "one")
    assert _content(history) == ONE
