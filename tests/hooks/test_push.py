"""Whatever is pushed, and however it was committed, its objects are uploaded with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model
from tests.git.checks import objects, theta_dir
from tests.hooks.conftest import NAME, ONE, THREE, forget, hook_path, needed, server_objects
from theta_nb.git.hooks import remove_hooks
from theta_nb.git.places import find_places

FOUR, FIVE = model(4), model(5)


def commit(repo: GitSandbox, data: bytes, message: str = "more", name: str = NAME) -> None:
    repo.write(name, data)
    repo("add", name)
    repo("commit", "-qm", message)


def test_branches_tags_and_deletions(pushing: GitSandbox, server: Path) -> None:
    said = pushing.run("push", "origin", "one:refs/heads/first").stderr
    assert "theta: 1 object (0.0 MB) uploaded to origin" in said
    assert server_objects(server) == needed(pushing, "one"), "a new branch"
    pushing("tag", "-a", "-m", "annotated", "v2", "two")
    pushing("push", "-q", "origin", "v2")
    assert server_objects(server) == needed(pushing, "one", "two"), "an annotated tag"
    pushing("checkout", "-q", "-b", "side", "one")
    commit(pushing, THREE)
    pushing("tag", "light")
    commit(pushing, FOUR)
    pushing("push", "-q", "origin", "light", "HEAD:refs/heads/side", ":first")
    assert server_objects(server) == needed(pushing, "one", "two", "light", "HEAD"), "several refs at once"
    pushing("commit", "-q", "--amend", "-m", "amended", "--allow-empty")
    pushing.write(NAME, FIVE)
    pushing("commit", "-qa", "--amend", "-m", "five")
    assert pushing.run("push", "-q", "origin", "side", check=False).returncode, "it should need force"
    pushing("push", "-q", "--force", "origin", "side")
    assert needed(pushing, "side") <= server_objects(server), "a forced push"
    before = server_objects(server)
    said = pushing.run("push", "origin", "--delete", "side", "light").stderr
    assert "uploaded" not in said
    assert server_objects(server) == before, "a deletion"


def test_everything_at_once(pushing: GitSandbox, server: Path) -> None:
    pushing("branch", "side", "one")
    pushing("notes", "add", "-m", "a note", "one")
    assert "uploaded" in pushing.run("push", "--mirror", "origin").stderr
    assert server_objects(server) == objects(pushing)
    assert "uploaded" not in pushing.run("push", "--all", "origin").stderr, "nothing was new"


def test_merges_and_history_from_before_the_hooks(pushing: GitSandbox, server: Path) -> None:
    remove_hooks(find_places(pushing.path))
    pushing("config", "theta.hooks", "false")
    pushing("checkout", "-q", "-b", "side", "one")
    commit(pushing, model(1, embed_weight=np.zeros((40, 16), np.float32)), "side")
    pushing("checkout", "-q", "main")
    pushing("merge", "-q", "-s", "ours", "-m", "merged", "side")
    pushing("config", "--unset", "theta.hooks")
    pushing("theta", "hooks")
    pushing("push", "-q", "origin", "main")
    assert server_objects(server) == needed(pushing, "one", "two", "side", "main")


def test_commits_by_the_api_and_by_plumbing(pushing: GitSandbox, server: Path) -> None:
    import torch

    import theta_nb

    repo = theta_nb.Repository(pushing.path)
    repo.save({"w": torch.arange(400.0)}, "saved.safetensors", message="by the API")
    pushing("push", "-q", "origin", "main")
    assert needed(pushing, "main", name="saved.safetensors") <= server_objects(server)
    pushing.write(NAME, FOUR)
    blob = pushing("hash-object", "-w", "--path", NAME, NAME).strip()
    tree = pushing.run("mktree", data=f"100644 blob {blob}\tsome name\n".encode()).stdout.strip()
    made = pushing("commit-tree", "-m", "by plumbing", tree).strip()
    pushing("push", "-q", "origin", f"{made}:refs/heads/plumbing")
    assert needed(pushing, made, name="some name") <= server_objects(server)


@pytest.mark.usefixtures("installed")
def test_a_commit_made_in_a_clone(pushing: GitSandbox, server: Path, tmp_path: Path) -> None:
    pushing("push", "-q", "origin", "main")
    clone = GitSandbox(tmp_path / "clone")
    pushing("clone", "-q", str(server), str(clone.path))
    commit(clone, FOUR)
    assert "uploaded" in clone.run("push", "origin", "main").stderr
    assert needed(clone, "main") <= server_objects(server)


def test_a_dry_run_and_other_ways_to_name_the_remote(pushing: GitSandbox, server: Path, tmp_path: Path) -> None:
    pushing("push", "-q", "--dry-run", "origin", "main")  # git tells the hook nothing of it
    assert subprocess.run(["git", "-C", server, "rev-parse", "-q", "--verify", "main"], check=False).returncode
    second, third = tmp_path / "second.git", tmp_path / "third.git"
    for path in (second, third):
        subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    pushing("push", "-q", "../second.git", "main")
    assert server_objects(second) == needed(pushing, "one", "two"), "a relative path as remote"
    pushing("push", "-q", f"file://{third}", "one:refs/heads/one")
    assert server_objects(third) == needed(pushing, "one"), "a URL as remote"
    for path in (second, third):
        subprocess.run(["rm", "-r", path], check=True)
        subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    pushing("remote", "set-url", "--push", "origin", str(second))
    pushing("remote", "set-url", "--add", "--push", "origin", str(third))
    pushing("push", "-q", "-f", "origin", "main")
    assert server_objects(second) == needed(pushing, "one", "two"), "the first push URL"
    assert server_objects(third) == needed(pushing, "one", "two"), "the second push URL"


def test_two_remotes_and_what_was_pushed_without_hooks(pushing: GitSandbox, server: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.git"
    subprocess.run(["git", "init", "-q", "--bare", backup], check=True)
    pushing("remote", "add", "backup", str(backup))
    pushing("push", "-q", "origin", "main")
    pushing("push", "-q", "backup", "main")
    assert server_objects(backup) == server_objects(server) == needed(pushing, "one", "two")
    commit(pushing, FOUR)
    pushing("push", "-q", "--no-verify", "origin", "main")
    assert not needed(pushing, "main") <= server_objects(server)
    commit(pushing, FIVE)
    pushing("push", "-q", "origin", "main")
    pushing("theta", "push", "--all")
    assert needed(pushing, "main~1", "main") <= server_objects(server), "push --all trusts what the refs say"


@pytest.mark.parametrize("command", [["push", "-q"], ["theta", "push"]], ids=["hook", "command"])
class TestAnotherRepositoryBehindTheName:
    """Remote-tracking branches outlive the repository that they tell of."""

    @pytest.fixture(autouse=True)
    def first(self, pushing: GitSandbox) -> None:
        """Everything is at the first one."""
        pushing("push", "-q", "origin", "main")

    def test_a_new_address(self, pushing: GitSandbox, tmp_path: Path, command: list[str]) -> None:
        subprocess.run(["git", "init", "-q", "--bare", tmp_path / "new.git"], check=True)
        pushing("remote", "set-url", "origin", "../new.git")
        pushing(*command, "origin", "main")
        assert server_objects(tmp_path / "new.git") == needed(pushing, "one", "two")

    def test_made_anew(self, pushing: GitSandbox, server: Path, command: list[str]) -> None:
        shutil.rmtree(server)
        subprocess.run(["git", "init", "-q", "--bare", server], check=True)
        pushing(*command, "origin", "main")
        assert server_objects(server) == needed(pushing, "one", "two")

    def test_another_branch_first(self, pushing: GitSandbox, tmp_path: Path, command: list[str]) -> None:
        subprocess.run(["git", "init", "-q", "--bare", tmp_path / "new.git"], check=True)
        pushing("remote", "set-url", "origin", f"file://{tmp_path}/new.git")
        pushing("switch", "-q", "-c", "side")
        commit(pushing, THREE)
        pushing(*command, "origin", "side")
        assert server_objects(tmp_path / "new.git") == needed(pushing, "one", "two", "side")

    def test_one_with_an_older_branch(self, pushing: GitSandbox, tmp_path: Path, command: list[str]) -> None:
        subprocess.run(["git", "init", "-q", "--bare", tmp_path / "new.git"], check=True)
        pushing("push", "-q", "../new.git", "one:refs/heads/main")
        pushing("remote", "set-url", "origin", "../new.git")
        pushing(*command, "origin", "main")
        assert server_objects(tmp_path / "new.git") == needed(pushing, "one", "two")


def test_a_remote_that_takes_and_does_not_list(pushing: GitSandbox, server: Path) -> None:
    pushing("push", "-q", "--no-verify", "origin", "main")
    pushing("config", "remote.origin.uploadpack", "false")
    assert pushing.run("ls-remote", "origin", check=False).returncode
    pushing("push", "-q", "origin", "main:refs/heads/again")
    assert server_objects(server) == needed(pushing, "one", "two"), "nothing of it is trusted, and the push goes on"


@pytest.mark.usefixtures("installed")
def test_a_mirror_made_from_a_mirror_clone(pushing: GitSandbox, server: Path, tmp_path: Path) -> None:
    pushing("push", "-q", "origin", "main", "one", "two")
    mirror, copy = GitSandbox(tmp_path / "mirror"), tmp_path / "copy.git"
    pushing("clone", "-q", "--mirror", str(server), str(mirror.path))
    subprocess.run(["git", "init", "-q", "--bare", copy], check=True)
    mirror("theta", "fetch", "--dry-run", "--all")
    assert not hook_path(mirror, "pre-push").exists(), "a dry run changes nothing"
    mirror("theta", "fetch", "--all")
    mirror("push", "-q", "--mirror", str(copy))
    assert server_objects(copy) == needed(pushing, "one", "two")


def test_commands_leave_hooks_alone_that_are_not_wanted(pushing: GitSandbox) -> None:
    pushing("theta", "hooks", "--remove")
    for verb in ("push", "fetch", "pull"):
        pushing("theta", verb)
    assert not hook_path(pushing, "pre-push").exists()


def test_a_failed_upload_fails_the_push_and_names_the_objects(pushing: GitSandbox, server: Path) -> None:
    pushing("push", "-q", "origin", "one:refs/heads/main")
    missing = needed(pushing, "two")
    forget(pushing)
    result = pushing.run("push", "origin", "main", check=False)
    assert result.returncode != 0
    assert any(oid[:12] in result.stderr for oid in missing)
    assert NAME in result.stderr
    head = subprocess.run(["git", "-C", server, "rev-parse", "main"], capture_output=True, text=True, check=True)
    assert head.stdout == pushing("rev-parse", "one"), "the ref moved without its objects"


def test_without_git_theta_a_push_fails_and_everything_else_goes_on(
    pushing: GitSandbox, server: Path, without_theta: Callable[[], None]
) -> None:
    (pushing.path / ".git" / "theta-pending").write_bytes(NAME.encode() + b"\0")
    without_theta()
    result = pushing.run("push", "origin", "main", check=False)
    assert result.returncode != 0
    assert "git-theta is not on the PATH" in result.stderr
    assert subprocess.run(["git", "-C", server, "rev-parse", "-q", "--verify", "main"], check=False).returncode
    result = pushing.run("commit", "-q", "--allow-empty", "-m", "no checkpoint in it")
    assert result.stderr == ""
    pushing("push", "-q", "--no-verify", "origin", "main")


def test_names_of_refs_that_look_like_line_ends(pushing: GitSandbox, server: Path) -> None:
    pushing("push", "-q", "origin", "main:refs/heads/a\u2028b\x85c")
    assert server_objects(server) == needed(pushing, "one", "two")


def test_what_is_here_only_as_a_manifest_is_not_needed_to_push_on(
    pushing: GitSandbox, server: Path, tmp_path: Path
) -> None:
    pushing("push", "-q", "origin", "main")
    forget(pushing)
    pushing("branch", "again", "one")
    pushing.run("push", "-q", "origin", "again")
    assert not (theta_dir(pushing) / "objects").exists() or objects(pushing) <= server_objects(server)


def test_both_of_two_checkpoints_with_one_content(pushing: GitSandbox, server: Path) -> None:
    commit(pushing, ONE, "a copy under another name", "copy.safetensors")
    pushing("push", "-q", "origin", "main")
    assert server_objects(server) == needed(pushing, "one", "two")
