"""``git theta install`` and ``uninstall``: every scope, other people's values, and getting everything back."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from tests.commands.running import checkpoint, said, same_tensors, theta
from tests.conftest import GitSandbox
from theta_nb.git.configuration import CONFIGURATION, installed
from theta_nb.git.installation import program_problem

FOREIGN = """\
# my configuration
[user]
\tname = "Ada  Lovelace" ; with a comment
[filter "lfs"]
\tclean = git-lfs clean -- %f
[merge "ours"]
\tdriver = true
"""


@pytest.fixture
def empty(tmp_path: Path) -> GitSandbox:
    """A repository that has never heard of theta."""
    repo = GitSandbox(tmp_path / "empty")
    repo.path.mkdir()
    repo("init", "-q")
    return repo


def value(repo: GitSandbox, scope: str, key: str) -> str:
    return repo.run("config", f"--{scope}", "--get-all", key, check=False).stdout.removesuffix("\n")


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ((), "global"),
        (("--global",), "global"),
        (("--scope", "user"), "global"),
        (("--local",), "local"),
        (("--scope=repository",), "local"),
        (("--worktree",), "worktree"),
        (("--system",), "system"),
    ],
    ids=lambda value: "-".join(value) or "default" if isinstance(value, tuple) else value,
)
def test_each_scope_gets_every_key_and_gives_it_back(
    options: tuple[str, ...], scope: str, empty: GitSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_CONFIG_NOSYSTEM")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "system"))
    empty("config", "extensions.worktreeConfig", "true")
    for other in {"global", "local", "worktree", "system"} - {scope}:
        before = empty.run("config", f"--{other}", "--list", check=False).stdout
        assert "theta" not in before
    assert "theta is installed" in said(empty.path, "install", *options)
    for key, wanted in CONFIGURATION.items():
        assert value(empty, scope, key) == wanted, key
    for other in {"global", "local", "worktree", "system"} - {scope}:
        assert "theta" not in empty.run("config", f"--{other}", "--list", check=False).stdout, f"{other} was written"
    assert "no longer installed" in said(empty.path, "uninstall", *options)
    assert "theta" not in empty.run("config", f"--{scope}", "--list", check=False).stdout
    assert installed(str(empty.path)).entries == ()


def test_a_second_install_writes_nothing(empty: GitSandbox, isolated_home: Path) -> None:
    said(empty.path, "install")
    config = isolated_home / ".gitconfig"
    before = (config.read_bytes(), config.stat().st_ino)
    assert "installed for your account already" in said(empty.path, "install")
    assert (config.read_bytes(), config.stat().st_ino) == before, "the file was not even replaced"


def test_what_others_wrote_stays_byte_for_byte(empty: GitSandbox, isolated_home: Path) -> None:
    config = isolated_home / ".gitconfig"
    config.write_text(FOREIGN)
    said(empty.path, "install", "--skip-smudge", "--rich-diff")
    assert config.read_text().startswith(FOREIGN)
    said(empty.path, "uninstall")
    assert config.read_text() == FOREIGN


def test_somebody_elses_value_is_kept_and_named(empty: GitSandbox) -> None:
    empty("config", "--global", "filter.theta.process", "/opt/theta/bin/git-theta filter-process")
    out = said(empty.path, "install")
    assert "Left as somebody else set it" in out
    assert "/opt/theta/bin/git-theta" in out
    assert value(empty, "global", "filter.theta.process").startswith("/opt/")
    assert value(empty, "global", "filter.theta.required") == "true", "the other keys are installed"
    out = said(empty.path, "uninstall")
    assert "/opt/theta/bin/git-theta" in out
    assert value(empty, "global", "filter.theta.process").startswith("/opt/")
    assert value(empty, "global", "filter.theta.required") == ""


def test_force_replaces_somebody_elses_value(empty: GitSandbox) -> None:
    for process in ("one", "two"):
        empty("config", "--global", "--add", "filter.theta.process", process)
    said(empty.path, "install", "--force")
    assert value(empty, "global", "filter.theta.process") == CONFIGURATION["filter.theta.process"]


def test_of_several_values_only_ours_is_removed(empty: GitSandbox) -> None:
    said(empty.path, "install", "--local")
    empty("config", "--local", "--add", "merge.theta.driver", "mine %A")
    said(empty.path, "uninstall", "--local")
    assert value(empty, "local", "merge.theta.driver") == "mine %A"


def test_git_theta_is_replaced(empty: GitSandbox) -> None:
    """The values that git-theta 0.2 writes, of which the diff command could not read our manifests."""
    for key, old in {
        "filter.theta.clean": "git-theta-filter clean %f",
        "filter.theta.smudge": "git-theta-filter smudge %f",
        "filter.theta.required": "true",
        "merge.theta.name": "Merge Models with Git-Theta",
        "merge.theta.driver": "git-theta-merge %O %A %B %P",
        "diff.theta.command": "git-theta-diff",
    }.items():
        empty("config", "--global", key, old)
    out = said(empty.path, "install")
    assert "somebody else" not in out
    assert value(empty, "global", "merge.theta.driver") == CONFIGURATION["merge.theta.driver"]
    assert value(empty, "global", "diff.theta.command") == ""


def test_a_value_of_the_repository_that_hides_the_accounts_is_named(empty: GitSandbox) -> None:
    empty("config", "--local", "diff.theta.command", "git-theta-diff")
    out = said(empty.path, "install")
    assert "counts here" in out
    assert "diff.theta.command = git-theta-diff" in out
    assert ".git/config" in out


def test_what_remains_after_uninstall_is_named(empty: GitSandbox) -> None:
    said(empty.path, "install", "--local")
    said(empty.path, "install")
    assert "git theta uninstall --local" in said(empty.path, "uninstall")
    assert installed(str(empty.path)).filters, "the repository's own installation still counts"
    assert "was not installed for your account" in said(empty.path, "uninstall")


def test_skip_smudge_is_set_kept_and_taken_back(empty: GitSandbox) -> None:
    said(empty.path, "install", "--skip-smudge")
    assert value(empty, "global", "theta.skipSmudge") == "true"
    said(empty.path, "install")
    assert value(empty, "global", "theta.skipSmudge") == "true", "an install that does not say leaves it"
    said(empty.path, "install", "--no-skip-smudge")
    assert value(empty, "global", "theta.skipSmudge") == ""


def test_hooks_that_are_not_installed_are_named_each_time(empty: GitSandbox) -> None:
    remark = "theta.hooks is false for your account: no hooks are installed"
    assert "ooks" not in said(empty.path, "install")
    assert remark in said(empty.path, "install", "--no-hooks")
    again = said(empty.path, "install")
    assert "installed for your account already" in again
    assert remark in again
    assert "To have them: git theta install --hooks" in again
    back = said(empty.path, "install", "--hooks")
    assert "Hooks are installed again" in back
    assert remark not in back
    assert "ooks" not in said(empty.path, "install", "--hooks")


@pytest.mark.parametrize(("off", "remarks"), [("no", True), ("0", True), ("yes", False), ("perhaps", False)])
def test_a_repository_that_has_no_hooks_is_named_with_the_command_for_it(
    empty: GitSandbox, off: str, remarks: bool
) -> None:
    empty("config", "--local", "theta.hooks", off)
    out = said(empty.path, "install", "--hooks")
    assert (f"theta.hooks is {off} in this repository: no hooks are installed" in out) is remarks
    assert ("To have them: git theta hooks" in out) is remarks


def test_rich_diff_lists_tensors(repository: GitSandbox) -> None:
    said(repository.path, "install", "--local", "--rich-diff")
    repository.write("my model.pt", checkpoint())
    repository.commit_all("one")
    repository.write("my model.pt", checkpoint(shifts=(1.0,)))
    repository.commit_all("two")
    out = repository("diff", "HEAD~1", "HEAD")
    assert "~ encoder.layer.0.weight" in out
    assert "@@" not in out, "no diff of manifests as text"
    said(repository.path, "install", "--local", "--no-rich-diff")
    assert "@@" in repository("diff", "HEAD~1", "HEAD")


def test_rich_diff_can_be_a_setting(repository: GitSandbox) -> None:
    repository("config", "theta.diff", "rich")
    said(repository.path, "install", "--local")
    repository.write("m.pt", checkpoint())
    repository.commit_all("one")
    repository.write("m.pt", checkpoint(shifts=(1.0,)))
    assert "~ encoder.layer.0.weight" in repository("diff")
    assert "~ encoder.layer.0.weight" not in repository("difftool", "-d", "-y", "--extcmd=ls")


def test_hunk_headers_name_the_module(repository: GitSandbox) -> None:
    said(repository.path, "install", "--local")
    repository.write("model.pt", checkpoint(layers=12))
    repository.commit_all("one")
    text = repository("show", "HEAD:model.pt")
    lines = text.split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith("encoder.layer.7.weight\t"))
    edited = [*lines[: at + 1], "between\tF32\t[]\t0\tdense", *lines[at + 1 :]]
    blob = repository.run("hash-object", "-w", "--stdin", "--no-filters", data="\n".join(edited).encode()).stdout
    repository("update-index", "--cacheinfo", f"100644,{blob.strip()},model.pt")
    out = repository("diff", "--cached", "-U0")
    assert next(line for line in out.split("\n") if line.startswith("@@")).endswith("@@ encoder.layer.7")


def test_merges_use_the_driver_and_its_sibling(repository: GitSandbox) -> None:
    """A criss-cross history, where git merges the two common ancestors before it merges the branches."""
    said(repository.path, "install", "--local")
    name = "-my model.pt"

    def commit(branch: str, first: float, second: float) -> None:
        repository("checkout", "-q", branch)
        repository.write(name, checkpoint(shifts=(first, second)))
        repository.commit_all(f"{first} {second}")

    commit("main", 0.0, 0.0)
    repository("branch", "other")
    commit("main", 1.0, 0.0)
    commit("other", 0.0, 1.0)
    main, other = (repository("rev-parse", branch).strip() for branch in ("main", "other"))
    repository("merge", "-q", "--no-edit", main)
    repository("checkout", "-q", "main")
    repository("merge", "-q", "--no-edit", other)
    assert same_tensors(repository.path / name, checkpoint(shifts=(1.0, 1.0))), "each tensor from who changed it"
    commit("main", 2.0, 1.0)
    commit("other", 1.0, 2.0)
    trace = repository.run("merge", "--no-edit", "main", env={"GIT_TRACE": "1"}).stderr
    assert "git-theta merge-driver --base" in trace, "the ancestors are merged by the sibling"
    assert same_tensors(repository.path / name, checkpoint(shifts=(2.0, 2.0)))


# --- what is wrong with a machine -------------------------------------------------------------------------------------


def test_a_program_that_git_would_not_find_is_named(empty: GitSandbox, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    problem = program_problem(str(tmp_path / "bin"))
    assert "not on the PATH" in problem
    assert str(Path(sys.executable).parent) in problem, "it says which folder to add"


def test_another_program_of_the_same_name_is_named(tmp_path: Path) -> None:
    other = tmp_path / "bin" / "git-theta"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert str(other) in program_problem(str(other.parent))
    assert program_problem(str(Path(sys.executable).parent)) == ""


@pytest.fixture
def git_wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the head of the PATH for a ``git`` that stands in front of the real one, called ``real-git``."""
    folder = tmp_path / "wrapper"
    folder.mkdir()
    real = shutil.which("git")
    assert real is not None
    (folder / "real-git").symlink_to(real)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    return folder


def test_a_git_that_is_too_old_is_named(empty: GitSandbox, git_wrapper: Path) -> None:
    script = git_wrapper / "git"
    script.write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo "git version 2.25.1 (Apple)" && exit 0\nexec real-git "$@"\n'
    )
    script.chmod(0o755)
    result = theta(empty.path, "install")
    assert result.status == 1
    assert "git 2.25.1 (Apple) is too old" in result.err
    assert "2.31" in result.err


def test_the_same_where_a_command_looks_for_the_repository(empty: GitSandbox, git_wrapper: Path) -> None:
    script = git_wrapper / "git"
    script.write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo "git version 2.25.1" && exit 0\n'
        'case "$*" in *path-format*) echo "unknown option" >&2; exit 129;; esac\nexec real-git "$@"\n'
    )
    script.chmod(0o755)
    assert "is too old" in theta(empty.path, "status").err


@pytest.mark.parametrize("option", ["--local", "--worktree"])
def test_outside_of_a_repository(option: str, tmp_path: Path) -> None:
    result = theta(tmp_path, "install", option)
    assert result.status == 1
    assert "there is none here" in result.err
    assert "account" in result.err, "it says what would work"


def test_a_configuration_that_cannot_be_written(empty: GitSandbox, isolated_home: Path) -> None:
    lock = isolated_home / ".gitconfig.lock"
    lock.write_text("")
    result = theta(empty.path, "install")
    assert result.status == 1
    assert result.err.startswith("theta: the global configuration cannot be used")
    assert result.err.count("\n") == 1
    assert stat.S_ISREG(lock.stat().st_mode), "another program's lock stays"
