"""Hooks that were there before ours, or come after: they run as if ours were not there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.hooks.conftest import NAME, OURS, THREE, TWO, Recorder, hook_path, needed, server_objects, write_hook
from theta_nb.git.hooks import HOOKS, hook_problems, hook_states, install_hooks, kept_hooks, remove_hooks
from theta_nb.git.places import find_places

LFS_PRE_PUSH = """#!/bin/sh
command -v git-lfs >/dev/null 2>&1 || { echo >&2 "no git-lfs"; exit 2; }
git lfs pre-push "$@"
"""

NOT_OF_GIT_LFS = ["post-rewrite", "prepare-commit-msg"]


def chain(repo: GitSandbox, name: str, script: str, **options: int) -> Path:
    """Put a hook of the user's where there was none, and ours on top of it."""
    path = hook_path(repo, name)
    path.unlink()
    write_hook(path, script, **options)
    install_hooks(find_places(repo.path))
    assert path.read_text() == HOOKS[name], "ours is not in place"
    return path


def test_a_pre_push_hook_gets_the_arguments_and_the_exact_input(
    pushing: GitSandbox, server: Path, recorder: Recorder
) -> None:
    chain(pushing, "pre-push", recorder.script("user"))
    head = pushing("rev-parse", "HEAD").strip()
    pushing("push", "-q", "origin", "main")
    (call,) = recorder.calls("user")
    line = f"refs/heads/main {head} refs/heads/main {'0' * 40}\n"
    assert call == (["origin", str(server)], line.encode())
    assert server_objects(server) == needed(pushing, "one", "two")
    pushing("push", "-q", "origin", "main")
    assert recorder.calls("user") == [(["origin", str(server)], b"")], "an empty input is no empty line"


def test_a_pre_push_hook_that_fails_stops_everything(pushing: GitSandbox, server: Path, recorder: Recorder) -> None:
    chain(pushing, "pre-push", recorder.script("user", status=7))
    assert pushing.run("push", "-q", "origin", "main", check=False).returncode != 0
    assert len(recorder.calls("user")) == 1
    assert server_objects(server) == set(), "objects were uploaded after a hook had refused the push"
    assert subprocess.run(["git", "-C", server, "rev-parse", "-q", "--verify", "main"], check=False).returncode


@pytest.mark.parametrize(
    "script",
    ["exit 0\n", "#!/usr/bin/env python3\nimport os\nassert os.read(0, 5) == b'refs/'\n"],
    ids=["reads nothing", "python"],
)
def test_pre_push_hooks_of_other_kinds(pushing: GitSandbox, server: Path, script: str) -> None:
    chain(pushing, "pre-push", script)
    pushing("push", "-q", "origin", "main")
    assert server_objects(server)


def test_a_pre_push_hook_without_an_interpreter_line_is_for_the_shell(
    pushing: GitSandbox, server: Path, tmp_path: Path
) -> None:
    path = hook_path(pushing, "pre-push")
    path.write_text(f'echo "$1" > "{tmp_path}/said"\n')
    path.chmod(0o755)
    install_hooks(find_places(pushing.path))
    pushing("push", "-q", "origin", "main")
    assert (tmp_path / "said").read_text() == "origin\n"
    assert server_objects(server)


def test_a_hook_that_is_not_executable_was_none_and_stays_none(pushing: GitSandbox, recorder: Recorder) -> None:
    path = chain(pushing, "pre-push", recorder.script("user"), mode=0o644)
    pushing("push", "-q", "origin", "main")
    assert recorder.calls("user") == []
    remove_hooks(find_places(pushing.path))
    assert path.stat().st_mode & 0o111 == 0
    assert "user" in path.read_text(), "the user's file did not come back"


def test_hooks_after_commits_and_checkouts_get_their_arguments_and_their_status_counts(
    history: GitSandbox, recorder: Recorder
) -> None:
    for name in ("post-checkout", "post-commit", "post-merge"):
        chain(history, name, recorder.script(name, status=3 if name == "post-checkout" else 0))
    one, two = history("rev-parse", "one").strip(), history("rev-parse", "two").strip()
    result = history.run("checkout", "-q", "one", check=False)
    assert result.returncode == 1, "the status of a post-checkout hook is that of git checkout, and was hidden"
    assert recorder.calls("post-checkout") == [([two, one, "1"], b"")]
    history.run("checkout", "-q", "-B", "side", "one", check=False)
    history("merge", "-q", "--ff-only", "main")
    assert recorder.calls("post-merge") == [(["0"], b"")]
    history("commit", "-q", "--allow-empty", "-m", "empty")
    assert len(recorder.calls("post-commit")) == 1


def test_every_hook_after_a_rewrite_gets_the_whole_input(history: GitSandbox, recorder: Recorder) -> None:
    for name in ("first", "second"):
        chain(history, "post-rewrite", recorder.script(name))
    chain(history, "post-rewrite", "exit 0 # reads nothing\n")
    old = history("rev-parse", "HEAD").strip()
    history("commit", "-q", "--amend", "-m", "amended")
    line = f"{old} {history('rev-parse', 'HEAD').strip()}\n".encode()
    assert recorder.calls("first") == recorder.calls("second") == [(["amend"], line)]
    history("config", "theta.smudgeLimit", "100")
    history("checkout", "-q", "-b", "side", "one")
    history("commit", "-q", "--allow-empty", "-m", "side")
    old = history("rev-parse", "HEAD").strip()
    history("rebase", "-q", "main")
    line = f"{old} {history('rev-parse', 'HEAD').strip()}\n".encode()
    assert recorder.calls("first") == recorder.calls("second") == [(["rebase"], line)]
    assert (history.path / NAME).read_bytes() == TWO


def test_a_hook_that_commits_again_is_called_again(history: GitSandbox, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f'echo x >> "{log}"\n[ $(wc -l < "{log}") -lt 3 ] && git commit -q --allow-empty -m again\nexit 0\n'
    chain(history, "post-commit", script)
    history("commit", "-q", "--allow-empty", "-m", "first")
    assert log.read_text() == "x\n" * 3


def test_a_pre_push_hook_that_pushes_elsewhere_uploads_there_too(
    pushing: GitSandbox, server: Path, tmp_path: Path
) -> None:
    other = tmp_path / "mirror.git"
    subprocess.run(["git", "init", "-q", "--bare", other], check=True)
    pushing("remote", "add", "mirror", str(other))
    chain(pushing, "pre-push", '[ "$1" = mirror ] || git push -q mirror main\n')
    pushing("push", "-q", "origin", "main")
    assert server_objects(other) == server_objects(server) == needed(pushing, "one", "two")


# --- git-lfs ----------------------------------------------------------------------------------------------------------


def track_with_lfs(repo: GitSandbox) -> str:
    """A file that plain Git LFS tracks, committed; returns the name of its object."""
    repo("config", "filter.lfs.process", "git-lfs filter-process")
    repo("config", "filter.lfs.required", "true")
    attributes = (repo.path / ".gitattributes").read_text()
    repo.write(".gitattributes", f"{attributes}*.bin filter=lfs diff=lfs merge=lfs -text\n".encode())
    repo.write("data.bin", b"plain LFS" * 100)
    repo.commit_all("data for plain Git LFS")
    return repo("cat-file", "blob", "HEAD:data.bin").split("sha256:")[1].split()[0]


def test_files_of_plain_git_lfs_are_uploaded_too(pushing: GitSandbox, server: Path) -> None:
    oid = track_with_lfs(pushing)
    pushing("push", "-q", "origin", "main")
    assert server_objects(server) == {oid} | needed(pushing, "one", "two")


def test_files_of_plain_git_lfs_on_another_branch_are_uploaded_too(pushing: GitSandbox, server: Path) -> None:
    pushing("checkout", "-q", "-b", "data")
    oid = track_with_lfs(pushing)
    pushing("checkout", "-q", "main")
    pushing("push", "-q", "origin", "data")
    assert oid in server_objects(server), "the index of main has no LFS file, but data has"


def test_files_of_plain_git_lfs_reach_a_server(pushing: GitSandbox, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("lfs_server")
    server.make()
    pushing("remote", "set-url", "origin", server.url())
    pushing("config", f"lfs.{server.url()}/info/lfs.locksverify", "false")
    oid = track_with_lfs(pushing)
    pushing("push", "-q", "origin", "main")
    assert set(server.objects()) == {oid} | needed(pushing, "one", "two")


def test_the_hook_of_git_lfs_is_kept_and_runs_once(
    pushing: GitSandbox, server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oid = track_with_lfs(pushing)
    chain(pushing, "pre-push", LFS_PRE_PUSH)
    log = tmp_path / "lfs-calls"
    write_hook(tmp_path / "bin" / "git-lfs", f'echo "$1" >> "{log}"\nexec "{shutil.which("git-lfs")}" "$@"\n')
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    pushing("push", "-q", "origin", "main")
    assert log.read_text().split().count("pre-push") == 1
    assert oid in server_objects(server)


def test_git_lfs_install_before_and_after_ours(pushing: GitSandbox, server: Path) -> None:
    places = find_places(pushing.path)
    remove_hooks(places)
    pushing("lfs", "install", "--local")
    assert "git lfs pre-push" in hook_path(pushing, "pre-push").read_text()
    pushing.write(NAME, THREE)
    pushing("add", NAME)  # the filter installs ours
    assert all(state.state == "ours" for state in hook_states(places)), hook_states(places)
    assert [state.name for state in hook_states(places) if not state.chained] == NOT_OF_GIT_LFS
    result = pushing.run("lfs", "install", "--local", check=False)
    assert result.returncode == 2, "git-lfs now chains by itself: what is written about it is out of date"
    assert hook_path(pushing, "pre-push").read_text() == HOOKS["pre-push"]
    oid = track_with_lfs(pushing)
    pushing("push", "-q", "origin", "main")
    assert oid in server_objects(server)
    remove_hooks(places)
    assert "git lfs pre-push" in hook_path(pushing, "pre-push").read_text()


def test_hooks_that_git_lfs_overwrote_are_reported_and_come_back(
    pushing: GitSandbox, server: Path, recorder: Recorder
) -> None:
    places = find_places(pushing.path)
    chain(pushing, "pre-push", recorder.script("user"))
    for _ in range(2):
        pushing("lfs", "update", "--force")
        assert len(hook_problems(places)) == len(OURS) - len(NOT_OF_GIT_LFS), "those that Git LFS has as well"
        env, fsck = pushing("theta", "env"), pushing("theta", "fsck")
        for said in (env, fsck):
            assert str(hook_path(pushing, "pre-push")) in said
            assert "does not run ours" in said
        pushing.write(NAME, THREE)
        pushing("add", NAME)
        assert hook_problems(places) == []
    kept = [Path(path).name for path in kept_hooks(str(hook_path(pushing, "pre-push").parent), "pre-push")]
    assert kept == ["pre-push.before-theta", "pre-push.before-theta-2"], "the same hook was kept twice"
    pushing("push", "-q", "origin", "main")
    assert len(recorder.calls("user")) == 1, "the hook from before the first installation does not run any more"
    assert server_objects(server)


# --- programs that take our place -------------------------------------------------------------------------------------


@pytest.fixture
def taken_over(pushing: GitSandbox) -> Callable[[], None]:
    """What pre-commit does: it moves what it finds to ``NAME.legacy`` and runs that first, refusing to run itself."""

    def take_over() -> None:
        for name in OURS:
            path = hook_path(pushing, name)
            path.rename(f"{path}.legacy")
            write_hook(
                path,
                f'[ -z "$RUNNING_LEGACY" ] || {{ echo "bug: {name} runs itself"; exit 1; }}\n'
                f'RUNNING_LEGACY=1 "${{0%/*}}/{name}.legacy" "$@"\n',
            )

    return take_over


def test_a_program_that_runs_ours_is_left_in_place(
    pushing: GitSandbox, server: Path, recorder: Recorder, taken_over: Callable[[], None]
) -> None:
    chain(pushing, "pre-push", recorder.script("user"))
    taken_over()
    places = find_places(pushing.path)
    assert {state.state for state in hook_states(places)} == {"ours"}
    pushing.write(NAME, THREE)
    pushing("commit", "-qam", "three")
    assert hook_path(pushing, "pre-push").read_text() != HOOKS["pre-push"]
    pushing("push", "-q", "origin", "main")
    assert len(recorder.calls("user")) == 1
    assert server_objects(server) == needed(pushing, "one", "two", "main")


def test_hooks_that_run_each_other_come_to_an_end(
    pushing: GitSandbox, server: Path, taken_over: Callable[[], None]
) -> None:
    taken_over()
    for name in OURS:  # as an older release would have done: ours on top, theirs kept, and ours under another name
        path = hook_path(pushing, name)
        path.rename(f"{path}.before-theta")
        write_hook(path, HOOKS[name])
    pushing("commit", "-q", "--allow-empty", "-m", "empty")
    pushing("push", "-q", "origin", "main")
    assert server_objects(server) == needed(pushing, "one", "two")
