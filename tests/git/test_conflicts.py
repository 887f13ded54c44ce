"""Conflicts, also where no merge driver is set up: nothing crashes, nothing is lost, and the way out is named."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model, safetensors
from tests.git.checks import assert_quiet, manifest_text, warnings
from tests.git.conftest import NAME, ONE, THREE, TWO


def _content(repo: GitSandbox, name: str = NAME) -> bytes:
    return (repo.path / name).read_bytes()


def _merge_both_changed(repo: GitSandbox) -> str:
    """Merge ``theirs`` (THREE) into ``main`` (TWO); both changed the bias of ONE. Returns what was said."""
    repo("switch", "-qc", "theirs", "one")
    repo.write(NAME, THREE)
    repo("commit", "-qam", "three")
    repo("switch", "-q", "main")
    result = repo.run("merge", "theirs", check=False)
    assert result.returncode == 1, result.stderr
    return result.stderr


def _stages(repo: GitSandbox) -> list[str]:
    return [line.split()[2] for line in repo("ls-files", "-u", "--", NAME).splitlines()]


@pytest.fixture
def by_lines(history: GitSandbox) -> GitSandbox:
    """A conflict of manifests merged as text, as in a clone without the merge driver."""
    said = warnings(_merge_both_changed(history))
    assert len(said) == 1
    assert "conflict markers" in said[0]
    return history


@pytest.fixture
def drivers(history: GitSandbox) -> GitSandbox:
    """The history in a repository with the merge drivers."""
    history("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    history("config", "merge.theta.recursive", "theta-base")
    history("config", "merge.theta-base.driver", "git-theta merge-driver --base %O %A %B %P %L")
    return history


@pytest.fixture
def by_driver(drivers: GitSandbox) -> GitSandbox:
    """The same conflict, left by our driver."""
    _merge_both_changed(drivers)
    return drivers


# --- merged as text ---------------------------------------------------------------------------------------------------


def test_conflict_markers_are_named_by_add_and_never_committed(by_lines: GitSandbox) -> None:
    assert _stages(by_lines) == ["1", "2", "3"]
    result = by_lines.run("add", NAME, check=False)
    assert result.returncode != 0
    assert NAME in result.stderr
    assert "conflict markers" in result.stderr
    assert "git checkout --ours" in result.stderr
    assert _stages(by_lines) == ["1", "2", "3"], "the failing add lost the stages"
    assert by_lines.run("commit", "-am", "careless", check=False).returncode != 0


@pytest.mark.parametrize(("side", "data"), [("--ours", TWO), ("--theirs", THREE)])
def test_taking_a_side_ends_a_conflict_by_lines(by_lines: GitSandbox, side: str, data: bytes) -> None:
    by_lines("checkout", side, NAME)
    assert _content(by_lines) == data
    by_lines("add", NAME)
    by_lines("commit", "-qm", "resolved")
    assert_quiet(by_lines)


def test_writing_a_checkpoint_ends_a_conflict_by_lines(by_lines: GitSandbox) -> None:
    data = model(layer_0_bias=bias(1.5))
    by_lines.write(NAME, data)
    by_lines("commit", "-qam", "averaged")
    assert_quiet(by_lines)
    by_lines("checkout", "-q", "one")
    by_lines("checkout", "-q", "main")
    assert _content(by_lines) == data


def test_a_conflict_by_lines_can_be_abandoned(by_lines: GitSandbox) -> None:
    by_lines("merge", "--abort")
    assert _content(by_lines) == TWO
    assert_quiet(by_lines)


def test_a_merge_by_lines_is_right_or_refused(repository: GitSandbox) -> None:
    rng = np.random.default_rng(0)
    base = {f"layer.{i:02}": rng.normal(size=(8, 8)).astype(np.float32) for i in range(30)}
    ours, theirs = dict(base), dict(base)
    ours["layer.03"] = base["layer.03"] + 1
    theirs["layer.25"] = base["layer.25"] + 1
    repository.write(NAME, safetensors(base))
    repository.commit_all("base")
    repository("switch", "-qc", "theirs")
    repository.write(NAME, safetensors(theirs))
    repository("commit", "-qam", "theirs")
    repository("switch", "-q", "main")
    repository.write(NAME, safetensors(ours))
    repository("commit", "-qam", "ours")
    result = repository.run("merge", "-q", "--no-edit", "theirs", check=False)
    if result.returncode == 0:
        assert _content(repository) == safetensors({**ours, "layer.25": theirs["layer.25"]})
        assert_quiet(repository)
    else:
        assert repository.run("add", NAME, check=False).returncode != 0
        repository("checkout", "--theirs", NAME)
        assert _content(repository) == safetensors(theirs)


@pytest.mark.parametrize("mixed", ["skeleton", "row", "value"])
def test_a_manifest_mixed_from_two_versions_is_never_made_into_a_checkpoint(history: GitSandbox, mixed: str) -> None:
    tensors = {"layer.0.weight": np.ones((4, 40), np.float32), "layer.0.bias": bias(3.0)}
    history.write("other.safetensors", safetensors(tensors, {"format": "pt"}))
    history.commit_all("another shape")
    mine, other = (manifest_text(history, name).split("\n\n") for name in (NAME, "other.safetensors"))
    if mixed == "skeleton":
        text = "\n\n".join((other[0], mine[1], f"{mine[2]}{other[2]}"))
    elif mixed == "row":
        row = next(line for line in other[1].splitlines() if line.startswith("layer.0.weight"))
        rows = [row if line.startswith("layer.0.weight") else line for line in mine[1].splitlines()]
        text = "\n\n".join((mine[0], "\n".join(rows), f"{mine[2]}{other[2]}"))
    else:
        kept = [line for line in mine[2].splitlines() if not line.startswith("value")]
        text = "\n\n".join((mine[0], mine[1], "\n".join([*kept, *other[2].splitlines(), ""])))
    oid = history.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
    history("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    history("commit", "-qm", "mixed")
    (history.path / NAME).unlink()
    said = warnings(history.run("checkout", NAME).stderr)
    assert len(said) == 1
    assert "mixe" in said[0] or "not described" in said[0]
    assert _content(history).decode() == text
    assert_quiet(history)
    assert _content(history) != ONE


# --- left by the driver -----------------------------------------------------------------------------------------------


def test_a_conflict_leaves_ours_whole_and_all_three_sides_in_the_index(by_driver: GitSandbox) -> None:
    assert _content(by_driver) == TWO
    assert _stages(by_driver) == ["1", "2", "3"]
    for stage, rev in (("1", "one"), ("2", "main"), ("3", "theirs")):
        assert by_driver("rev-parse", f":{stage}:{NAME}") == by_driver("rev-parse", f"{rev}:{NAME}")
    assert by_driver("status", "--porcelain") == f"UU {NAME}\n"
    by_driver("diff")
    by_driver("diff", "--ours")
    by_driver("diff", "HEAD")


RESOLVING = {
    "checkout --ours": (("checkout", "--ours", NAME), TWO),
    "checkout --theirs": (("checkout", "--theirs", NAME), THREE),
    "restore --ours": (("restore", "--ours", NAME), TWO),
    "restore --theirs": (("restore", "--theirs", NAME), THREE),
}


@pytest.mark.parametrize("how", RESOLVING)
def test_taking_a_side_ends_the_conflict(by_driver: GitSandbox, how: str) -> None:
    command, data = RESOLVING[how]
    by_driver(*command)
    assert _content(by_driver) == data
    by_driver("commit", "-qam", "resolved")
    assert_quiet(by_driver)
    assert by_driver("rev-parse", f"HEAD:{NAME}") in (
        by_driver("rev-parse", f"two:{NAME}"),
        by_driver("rev-parse", f"theirs:{NAME}"),
    )


@pytest.mark.parametrize(
    "command",
    [
        ("checkout", "-m", NAME),
        ("checkout", "--merge", "--", "."),
        ("restore", "--merge", NAME),
        ("checkout", "--conflict=diff3", NAME),
        ("checkout", "--conflict=merge", NAME),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("driver", [True, False], ids=["driver", "by-lines"])
@pytest.mark.parametrize("objects", ["here", "absent"])
def test_making_the_conflict_again_does_not_crash(
    history: GitSandbox, request: pytest.FixtureRequest, command: tuple[str, ...], driver: bool, objects: str
) -> None:
    if driver:
        request.getfixturevalue("drivers")
    _merge_both_changed(history)
    if objects == "absent":
        (history.path / ".git" / "theta" / "objects").rename(history.path.parent / "elsewhere")
    result = history.run(*command, check=False)
    assert result.returncode in (0, 1), f"git ended with {result.returncode}: {result.stderr}"
    assert (history.path / NAME).exists(), "the file is gone"
    assert not (history.path / ".git" / "index.lock").exists()
    assert _stages(history) == ["1", "2", "3"]


def test_checkout_m_carries_a_local_change_to_another_commit(drivers: GitSandbox) -> None:
    drivers.write("notes.txt", b"three\n")
    drivers("commit", "-qam", "notes")
    drivers.write(NAME, THREE)
    drivers("checkout", "-q", "-m", "two")
    assert _content(drivers) == THREE
    assert drivers("status", "--porcelain") == f" M {NAME}\n"


def test_checkout_m_with_a_conflicting_change_keeps_both_versions(drivers: GitSandbox) -> None:
    drivers.write(NAME, THREE)
    result = drivers.run("checkout", "-q", "-m", "one", check=False)
    assert result.returncode in (0, 1), result.stderr
    stages = {stage: drivers.run("cat-file", "--filters", f":{stage}:{NAME}", check=False) for stage in "123"}
    assert all(shown.returncode == 0 for shown in stages.values()), drivers("status")
    assert not (drivers.path / ".git" / "index.lock").exists()


def test_a_conflicting_stash_pop_keeps_the_stash(drivers: GitSandbox) -> None:
    drivers.write(NAME, THREE)
    drivers("stash", "push", "-q")
    drivers.write(NAME, ONE)
    drivers("commit", "-qam", "one again")
    result = drivers.run("stash", "pop", check=False)
    assert result.returncode == 1
    assert "conflict" in (result.stdout + result.stderr).lower()
    assert len(drivers("stash", "list").splitlines()) == 1
    drivers("checkout", "--theirs", NAME)
    assert _content(drivers) == THREE
    drivers("reset", "-q", "--hard")
    assert _content(drivers) == ONE
    assert_quiet(drivers)


@pytest.mark.parametrize("command", ["cherry-pick", "revert", "rebase"])
def test_a_conflict_in_a_sequence_can_be_resolved_or_abandoned(drivers: GitSandbox, command: str) -> None:
    drivers("switch", "-qc", "theirs", "one")
    drivers.write(NAME, THREE)
    drivers("commit", "-qam", "three")
    drivers.write("notes.txt", b"after three\n")
    drivers("commit", "-qam", "notes")
    start = {
        "cherry-pick": ("cherry-pick", "two"),
        "revert": ("revert", "--no-edit", "two"),
        "rebase": ("rebase", "main"),
    }
    before = drivers("rev-parse", "HEAD")
    assert drivers.run(*start[command], check=False).returncode == 1
    drivers(command, "--abort")
    assert drivers("rev-parse", "HEAD") == before
    assert _content(drivers) == THREE
    assert_quiet(drivers)

    assert drivers.run(*start[command], check=False).returncode == 1
    data = model(layer_0_bias=bias(9.0))
    drivers.write(NAME, data)
    drivers("checkout", "--ours", "notes.txt")
    drivers("add", NAME, "notes.txt")
    drivers.run(command, "--continue", env={"GIT_EDITOR": "true"}, check=False)
    if drivers.run("rev-parse", "-q", "--verify", "REBASE_HEAD", check=False).returncode == 0:
        drivers("checkout", "--theirs", "notes.txt")
        drivers("add", "notes.txt")
        drivers.run("rebase", "--continue", env={"GIT_EDITOR": "true"})
    assert _content(drivers) == data
    assert_quiet(drivers)


def test_an_unmerged_checkpoint_is_not_stored_again_by_status(by_driver: GitSandbox) -> None:
    for _ in range(2):
        assert by_driver("status", "--porcelain") == f"UU {NAME}\n"
    by_driver("add", NAME)
    assert by_driver("rev-parse", f":{NAME}") == by_driver("rev-parse", f"two:{NAME}")
