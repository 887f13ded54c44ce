"""The commands of every day: what they store, what they bring back, and that status is quiet after each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checks import age, assert_quiet, digests, manifest_text, objects, warnings
from tests.git.conftest import NAME, ONE, THREE, TWO


def _content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


# --- storing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "commit",
    [
        pytest.param(("commit", "-q", "-am", "three"), id="commit -a"),
        pytest.param(("commit", "-q", "-m", "three", NAME), id="commit PATH"),
        pytest.param(("commit", "-q", "--amend", "-a", "--no-edit"), id="commit --amend -a"),
        pytest.param(("commit", "-q", "-m", "three", "--include", NAME), id="commit --include"),
    ],
)
def test_a_commit_that_adds_stores_the_new_version(history: GitSandbox, commit: tuple[str, ...]) -> None:
    history.write(NAME, THREE)
    history(*commit)
    assert_quiet(history)
    assert digests(history, NAME, "HEAD") != digests(history, NAME, "two")
    history("checkout", "-q", "one")
    history("checkout", "-q", "main")
    assert _content(history) == THREE


def test_a_commit_of_another_path_leaves_a_staged_version_staged(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history("add", NAME)
    history.write("notes.txt", b"three\n")
    history("commit", "-q", "-m", "notes only", "notes.txt")
    assert history("status", "--porcelain") == f"M  {NAME}\n"
    assert manifest_text(history, NAME, "HEAD") == manifest_text(history, NAME, "two")
    history("commit", "-q", "-m", "the model")
    assert_quiet(history)


def test_amending_only_the_message_keeps_the_blob(history: GitSandbox) -> None:
    before = history("rev-parse", f"HEAD:{NAME}")
    history("commit", "-q", "--amend", "-m", "better words")
    assert history("rev-parse", f"HEAD:{NAME}") == before
    assert_quiet(history)


def test_status_says_modified_while_the_file_differs_and_no_longer(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    age(history, [NAME])
    for _ in range(2):
        assert history("status", "--porcelain") == f" M {NAME}\n"
    stored = objects(history)
    history("status")
    assert objects(history) == stored, "a repeated status wrote objects"
    history.write(NAME, TWO)
    assert_quiet(history)


def test_status_of_a_touched_file_is_quiet(history: GitSandbox) -> None:
    (history.path / NAME).touch()
    assert history("status", "--porcelain") == ""
    assert history("diff", "--quiet") == ""
    assert history("ls-files", "-m") == ""


def test_a_file_that_changes_after_add_shows_both_changes(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history("add", NAME)
    history.write(NAME, ONE)
    age(history, [NAME])
    assert history("status", "--porcelain") == f"MM {NAME}\n"
    assert history("stash", "list") == ""


def test_add_of_a_directory_from_a_subdirectory(history: GitSandbox) -> None:
    history.write("runs/a/x.safetensors", THREE)
    history.write("runs/a/y.pt", ONE)
    subprocess.run(["git", "add", "."], cwd=history.path / "runs" / "a", check=True)
    subprocess.run(["git", "commit", "-qm", "runs"], cwd=history.path / "runs", check=True)
    assert_quiet(history)
    assert digests(history, "runs/a/x.safetensors") == digests(history, NAME, "one") | {
        "layer.0.bias": digests(history, "runs/a/x.safetensors")["layer.0.bias"]
    }


def test_add_intent_to_add_then_add(history: GitSandbox) -> None:
    history.write("new.safetensors", THREE)
    history("add", "-N", "new.safetensors")
    history("diff", "--stat")
    history("add", "new.safetensors")
    history("commit", "-qm", "new")
    assert_quiet(history)


def test_two_files_of_the_same_content_in_one_add(history: GitSandbox) -> None:
    history.write("x.safetensors", THREE)
    history.write("y.safetensors", THREE)
    history.commit_all("twins")
    assert history("rev-parse", ":x.safetensors") == history("rev-parse", ":y.safetensors")
    assert_quiet(history)


# --- bringing back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("checkout", "-q", "one"), id="checkout REV"),
        pytest.param(("switch", "-q", "--detach", "one"), id="switch"),
        pytest.param(("reset", "-q", "--hard", "one"), id="reset --hard"),
    ],
)
def test_going_to_another_commit_brings_its_checkpoint(history: GitSandbox, command: tuple[str, ...]) -> None:
    history(*command)
    assert _content(history) == ONE
    assert_quiet(history)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        pytest.param(("checkout", "one", "--", NAME), "M  ", id="checkout REV PATH"),
        pytest.param(("restore", "--source", "one", NAME), " M ", id="restore --source"),
        pytest.param(("restore", "--source", "one", "--staged", "--worktree", NAME), "M  ", id="restore both"),
    ],
)
def test_one_path_can_be_taken_from_another_commit(history: GitSandbox, command: tuple[str, ...], status: str) -> None:
    history(*command)
    assert _content(history) == ONE
    age(history, [NAME])
    assert history("status", "--porcelain") == f"{status}{NAME}\n"
    history("restore", "--staged", "--worktree", NAME)
    assert _content(history) == TWO
    assert_quiet(history)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("checkout", NAME), id="checkout PATH"),
        pytest.param(("restore", NAME), id="restore PATH"),
        pytest.param(("checkout", "-f"), id="checkout -f"),
        pytest.param(("reset", "-q", "--hard"), id="reset --hard"),
        pytest.param(("checkout-index", "-f", "-u", NAME), id="checkout-index"),
    ],
)
@pytest.mark.parametrize("state", ["modified", "deleted"])
def test_a_spoiled_work_tree_is_repaired(history: GitSandbox, command: tuple[str, ...], state: str) -> None:
    if state == "modified":
        history.write(NAME, THREE)
        age(history, [NAME])
    else:
        (history.path / NAME).unlink()
    history(*command)
    assert _content(history) == TWO
    assert_quiet(history)


def test_reset_soft_and_mixed_leave_the_work_tree(history: GitSandbox) -> None:
    history("reset", "-q", "--soft", "one")
    assert history("status", "--porcelain").splitlines() == [f"M  {NAME}", "M  notes.txt"]
    history("reset", "-q", "--mixed")
    age(history, [NAME])
    assert history("status", "--porcelain").splitlines() == [f" M {NAME}", " M notes.txt"]
    assert _content(history) == TWO
    history("commit", "-qam", "two again")
    assert history("rev-parse", f"HEAD:{NAME}") == history("rev-parse", f"two:{NAME}")
    assert_quiet(history)


def test_restore_staged_takes_a_version_out_of_the_index(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history("add", NAME)
    history("restore", "--staged", NAME)
    age(history, [NAME])
    assert history("status", "--porcelain") == f" M {NAME}\n"
    assert _content(history) == THREE


def test_a_dirty_checkpoint_is_not_overwritten_by_switch(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    result = history.run("switch", "--detach", "one", check=False)
    assert result.returncode == 1
    assert "would be overwritten" in result.stderr
    assert _content(history) == THREE


# --- stash ------------------------------------------------------------------------------------------------------------


def test_stash_push_and_pop(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history("stash", "push", "-q")
    assert _content(history) == TWO
    assert_quiet(history)
    history("stash", "pop", "-q")
    assert _content(history) == THREE
    age(history, [NAME])
    assert history("status", "--porcelain") == f" M {NAME}\n"


def test_stash_keeps_staged_and_unstaged_versions_apart(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history("add", NAME)
    history.write(NAME, ONE)
    history("stash", "push", "-q")
    assert_quiet(history)
    history("stash", "pop", "-q", "--index")
    age(history, [NAME])
    assert history("status", "--porcelain") == f"MM {NAME}\n"
    assert _content(history) == ONE
    history("checkout", NAME)
    assert _content(history) == THREE


def test_stash_takes_untracked_checkpoints(history: GitSandbox) -> None:
    history.write("new.safetensors", THREE)
    history("stash", "push", "-q", "-u")
    assert not (history.path / "new.safetensors").exists()
    assert_quiet(history)
    history("stash", "apply", "-q")
    assert _content(history, "new.safetensors") == THREE
    history("stash", "drop", "-q")


def test_stash_branch_starts_where_the_stash_was_made(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history("stash", "push", "-q")
    history.write("notes.txt", b"later\n")
    history.commit_all("later")
    history("stash", "branch", "tryout")
    assert _content(history) == THREE
    history("commit", "-qam", "three")
    assert_quiet(history)


# --- moving and removing ----------------------------------------------------------------------------------------------


def test_git_mv_moves_without_storing(history: GitSandbox) -> None:
    before = history("rev-parse", f"HEAD:{NAME}"), objects(history)
    (history.path / "sub").mkdir()
    history("mv", NAME, "sub/new.safetensors")
    history("commit", "-qm", "moved")
    assert (history("rev-parse", "HEAD:sub/new.safetensors"), objects(history)) == before
    assert _content(history, "sub/new.safetensors") == TWO
    assert_quiet(history)
    assert "rename m.safetensors => sub/new.safetensors (100%)" in history("show", "--summary", "-M", "HEAD")


def test_a_plain_move_and_add_is_the_same_blob(history: GitSandbox) -> None:
    before = history("rev-parse", f"HEAD:{NAME}"), objects(history)
    (history.path / NAME).rename(history.path / "new.safetensors")
    history("add", "-A")
    assert (history("rev-parse", ":new.safetensors"), objects(history)) == before
    assert history("status", "--porcelain") == f"R  {NAME} -> new.safetensors\n"
    history("commit", "-qm", "moved")
    assert_quiet(history)


def test_a_move_out_of_the_pattern_leaves_a_raw_file_and_back_again(history: GitSandbox) -> None:
    history("mv", NAME, "m.bin")
    history("add", "--renormalize", "m.bin")
    history("commit", "-qm", "no longer tracked")
    assert_quiet(history)
    assert _content(history, "m.bin") == TWO
    history("mv", "m.bin", NAME)
    history("add", "--renormalize", NAME)
    assert history("rev-parse", f":{NAME}") == history("rev-parse", f"two:{NAME}")


def test_rm_removes_the_file_and_its_objects_stay_for_history(history: GitSandbox) -> None:
    stored = objects(history)
    history("rm", "-q", NAME)
    history("commit", "-qm", "gone")
    assert not (history.path / NAME).exists()
    assert objects(history) == stored
    assert_quiet(history)
    history("checkout", "-q", "two", "--", NAME)
    assert _content(history) == TWO


def test_rm_refuses_a_changed_checkpoint(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    assert history.run("rm", NAME, check=False).returncode == 1
    assert _content(history) == THREE


# --- asking -----------------------------------------------------------------------------------------------------------


def test_diff_names_the_changed_tensor_and_calls_no_command(history: GitSandbox) -> None:
    shown = history("diff", "one", "two", "--", NAME)
    changed = [line for line in shown.splitlines() if line.startswith(("+", "-")) and "\t" in line]
    assert [line.split("\t")[0] for line in changed] == ["-layer.0.bias", "+layer.0.bias"]
    assert history("diff", "--stat", "one", "two", "--", NAME).count("m.safetensors") == 1


def test_diff_of_the_work_tree_names_the_changed_tensor(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    shown = history("diff")
    assert [line.split("\t")[0] for line in shown.splitlines() if line.startswith("+layer")] == ["+layer.0.bias"]
    assert history("diff", "--name-only") == f"{NAME}\n"
    assert history.run("diff", "--quiet", check=False).returncode == 1


def test_log_show_and_blame_read_like_text(history: GitSandbox) -> None:
    assert "+layer.0.bias\tfloat32\t[16]" in history("log", "-p", "--", NAME)
    assert "+layer.0.bias\tfloat32\t[16]" in history("show", "HEAD", "--", NAME)
    blamed = history("blame", "-s", "HEAD", "--", NAME).splitlines()
    two = history("rev-parse", "--short=8", "two").strip()
    by_commit = {line.split(") ", 1)[1].split("\t")[0]: line[:8] for line in blamed if "\t" in line}
    assert by_commit["layer.0.bias"] == two
    assert by_commit["embed.weight"] != two
    assert "layer.0.bias" in history("log", "--format=%s", "-p", "-S", digests(history, NAME)["layer.0.bias"][:16])
    history("blame", "--", NAME)
    assert history("grep", "-l", "layer.0.bias", "one") == f"one:{NAME}\n"


def test_cat_file_filters_gives_the_checkpoint(history: GitSandbox) -> None:
    data = subprocess.run(
        ["git", "cat-file", "--filters", f"one:{NAME}"], cwd=history.path, capture_output=True, check=True
    ).stdout
    assert data == ONE


def test_archive_holds_checkpoints(history: GitSandbox) -> None:
    import io
    import tarfile

    packed = subprocess.run(["git", "archive", "one"], cwd=history.path, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.extractfile(NAME)
        assert member is not None
        assert member.read() == ONE


@pytest.mark.parametrize("how", ["stdin", "file", "file-from-below", "file-outside", "no-such-file"])
def test_hash_object_names_the_blob_that_add_would_make(history: GitSandbox, how: str) -> None:
    outside = history.path.parent / "elsewhere.safetensors"
    outside.write_bytes(THREE)
    history.write("sub/dir/other.safetensors", THREE)
    arguments: dict[str, tuple[list[str], Path, bytes | None]] = {
        # The file at that path is another one than what is piped in.
        "stdin": (["--stdin", "--path", NAME], history.path, THREE),
        "file": (["--path", NAME, str(outside)], history.path, None),
        "file-outside": (["../elsewhere.safetensors", str(outside)], history.path, None),
        "file-from-below": (["../dir/other.safetensors"], history.path / "sub" / "dir", None),
        "no-such-file": (["--stdin", "--path", "never/was.safetensors"], history.path, THREE),
    }
    options, cwd, data = arguments[how]
    named = subprocess.run(
        ["git", "hash-object", *options], cwd=cwd, input=data, capture_output=True, check=True
    ).stdout.decode()
    history.write(NAME, THREE)
    history("add", NAME)
    assert set(named.split()) == {history("rev-parse", f":{NAME}").strip()}


# --- attributes and tracking ------------------------------------------------------------------------------------------


def test_renormalize_tracks_a_file_that_was_committed_raw(history: GitSandbox) -> None:
    history.write("raw.bin", THREE)
    history.commit_all("raw")
    history.write(".gitattributes", (history.path / ".gitattributes").read_bytes() + b"*.bin filter=theta -text\n")
    history("add", "--renormalize", ".")
    history("add", ".gitattributes")
    history("commit", "-qm", "track *.bin")
    assert manifest_text(history, "raw.bin").startswith("theta-manifest 1\n")
    assert digests(history, "raw.bin")["layer.0.bias"] != digests(history, NAME)["layer.0.bias"]
    assert_quiet(history)


def test_renormalize_stores_the_work_tree_where_it_differs_from_the_index(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    history("add", "--renormalize", ".")
    expected = history("rev-parse", f":{NAME}")
    history("add", NAME)
    assert history("rev-parse", f":{NAME}") == expected
    history("commit", "-qm", "three")
    history("checkout", "-q", "two")
    history("checkout", "-q", "main")
    assert _content(history) == THREE
    assert_quiet(history)


def test_a_nested_attributes_file_decides_for_its_folder(history: GitSandbox) -> None:
    history.write("weights/.gitattributes", b"*.bin filter=theta merge=theta diff=theta -text\n*.pt -filter\n")
    history.write("weights/a.bin", ONE)
    history.write("weights/a.pt", ONE)
    history.write("a.bin", ONE)
    history.commit_all("nested")
    kinds = {
        name: manifest_text(history, name).startswith("theta-manifest")
        for name in ("weights/a.bin", "weights/a.pt", "a.bin")
    }
    assert kinds == {"weights/a.bin": True, "weights/a.pt": False, "a.bin": False}
    assert_quiet(history)


def test_files_that_the_repository_does_not_track_never_meet_the_filter(history: GitSandbox) -> None:
    history("config", "filter.theta.process", "false")
    history.write("notes.txt", b"three\n")
    history.write("big.bin", THREE)
    history.commit_all("text only")
    assert history("status", "--porcelain", "--", "notes.txt", "big.bin") == ""


def test_a_symbolic_link_to_a_checkpoint_stays_a_link(history: GitSandbox) -> None:
    (history.path / "best.safetensors").symlink_to(NAME)
    history.commit_all("best")
    assert history("ls-files", "-s", "best.safetensors").startswith("120000 ")
    (history.path / "best.safetensors").unlink()
    history("checkout", "best.safetensors")
    assert (history.path / "best.safetensors").is_symlink()
    assert_quiet(history)


def test_the_executable_bit_is_kept(history: GitSandbox) -> None:
    (history.path / NAME).chmod(0o755)
    history("commit", "-qam", "odd, but allowed")
    (history.path / NAME).unlink()
    history("checkout", NAME)
    assert (history.path / NAME).stat().st_mode & 0o111
    assert_quiet(history)


def test_nothing_is_said_when_all_is_well(history: GitSandbox) -> None:
    history.write(NAME, THREE)
    said = [
        history.run(*command).stderr
        for command in (
            ("add", NAME),
            ("commit", "-qm", "three"),
            ("checkout", "-q", "one"),
            ("status",),
            ("diff", "two"),
        )
    ]
    assert warnings("".join(said)) == []
    assert said == [""] * 5
