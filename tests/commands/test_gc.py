"""``git theta gc``: what anything in the repository can still need stays, the rest goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import noise, safetensors
from tests.git.checks import age, manifest_of, manifest_text, objects, theta_dir
from tests.git.objects import object_path
from theta_nb.commands.fsck import fsck
from theta_nb.commands.gc import GcReport, gc
from theta_nb.errors import ThetaError
from theta_nb.git.places import find_places

NAME = "m.safetensors"
OLD = 1_000_000_000


def checkpoint(*seeds: int) -> bytes:
    """A tensor for each seed, in objects of their own."""
    return safetensors({f"w{i}": np.random.default_rng(seed).normal(size=(150, 150)) for i, seed in enumerate(seeds)})


@pytest.fixture
def repo(repository: GitSandbox) -> GitSandbox:
    """One commit with one checkpoint."""
    repository.write(NAME, checkpoint(0, 1))
    age(repository, [NAME])
    repository.commit_all("first")
    return repository


def change(repo: GitSandbox, *seeds: int) -> None:
    repo.write(NAME, checkpoint(*seeds))
    age(repo, [NAME])


def forget(repo: GitSandbox) -> None:
    """Have git itself forget all that only reflogs and loose objects remember."""
    repo("reflog", "expire", "--expire=now", "--expire-unreachable=now", "--all")
    repo("prune", "--expire=now")


def grow_old(repo: GitSandbox) -> None:
    """Give every object an old time stamp."""
    for path in (theta_dir(repo) / "objects").rglob("*"):
        os.utime(path, (OLD, OLD))


def collect(repo: GitSandbox, **options: object) -> GcReport:
    grow_old(repo)
    return gc(find_places(repo.path), **options)  # type: ignore[arg-type]


def needed_by(repo: GitSandbox, rev: str, name: str = NAME) -> set[str]:
    return set(manifest_of(repo, name, rev).objects)


# --- what stays -------------------------------------------------------------------------------------------------------


def on_a_branch(repo: GitSandbox) -> None:
    repo("checkout", "-qb", "side")
    change(repo, 2, 3)
    repo("commit", "-qam", "side")
    repo("checkout", "-q", "main")
    forget(repo)


def only_tagged(repo: GitSandbox) -> None:
    change(repo, 2, 3)
    repo("commit", "-qam", "tagged")
    repo("tag", "-a", "v1", "-m", "one")
    repo("reset", "-q", "--hard", "HEAD~1")
    forget(repo)


def stashed(repo: GitSandbox) -> None:
    change(repo, 2, 3)
    repo("stash", "-q")


def stashed_below_another(repo: GitSandbox) -> None:
    stashed(repo)
    change(repo, 8, 9)
    repo("stash", "-q")


def after_a_reset(repo: GitSandbox) -> None:
    change(repo, 2, 3)
    repo("commit", "-qam", "second")
    repo("reset", "-q", "--hard", "HEAD~1")


def after_a_branch_was_deleted(repo: GitSandbox) -> None:
    on_a_branch(repo)
    repo("checkout", "-q", "side")
    repo("checkout", "-q", "main")
    repo("branch", "-q", "-D", "side")


def only_staged(repo: GitSandbox) -> None:
    change(repo, 2, 3)
    repo("add", NAME)


def staged_in_another_work_tree(repo: GitSandbox) -> None:
    repo("worktree", "add", "-q", "--detach", "../linked")
    linked = GitSandbox(repo.path / "../linked")
    change(linked, 2, 3)
    linked("add", NAME)


def detached_in_another_work_tree(repo: GitSandbox) -> None:
    staged_in_another_work_tree(repo)
    linked = GitSandbox(repo.path / "../linked")
    linked("commit", "-qm", "detached")
    forget(repo)
    linked("reset", "-q", "--soft", "HEAD")


def on_a_ref_of_another_work_tree(repo: GitSandbox) -> None:
    staged_in_another_work_tree(repo)
    linked = GitSandbox(repo.path / "../linked")
    linked("commit", "-qm", "detached")
    linked("update-ref", "refs/worktree/kept", "HEAD")
    linked("reset", "-q", "--hard", "HEAD~1")
    (Path(linked("rev-parse", "--absolute-git-dir").strip()) / "ORIG_HEAD").unlink()
    forget_reflogs(repo)


def conflict(repo: GitSandbox, *command: str) -> None:
    """``main`` and ``side`` changed the same tensor, and a command stops at that."""
    repo("checkout", "-qb", "side")
    change(repo, 2, 3)
    repo("commit", "-qam", "side")
    repo("checkout", "-q", "main")
    change(repo, 4, 1)
    repo("commit", "-qam", "main")
    assert repo.run(*command, "side", check=False).returncode != 0
    repo("update-ref", "-d", "refs/heads/side")
    forget_reflogs(repo)


def forget_reflogs(repo: GitSandbox) -> None:
    repo("reflog", "expire", "--expire=now", "--expire-unreachable=now", "--all")


def merging(repo: GitSandbox) -> None:
    conflict(repo, "merge", "-q")


def merging_with_a_side_taken(repo: GitSandbox) -> None:
    """Ours was added, so the index holds no stage any more, and only MERGE_HEAD knows theirs."""
    conflict(repo, "merge", "-q")
    repo("checkout", "--ours", NAME)
    repo("add", NAME)


def picking(repo: GitSandbox) -> None:
    conflict(repo, "cherry-pick")
    repo("checkout", "--ours", NAME)
    repo("add", NAME)


def stages_alone(repo: GitSandbox) -> None:
    """The index is the only thing that knows the stages."""
    conflict(repo, "merge", "-q")
    for name in ("MERGE_HEAD", "AUTO_MERGE", "ORIG_HEAD"):
        (repo.path / ".git" / name).unlink(missing_ok=True)


def autostashed(repo: GitSandbox) -> None:
    """A rebase stopped, and what was not committed waits in a file of the rebase."""
    repo.write("notes.txt", b"0")
    repo.commit_all("notes")
    repo("checkout", "-qb", "side")
    repo.write("notes.txt", b"1")
    repo.commit_all("one")
    repo("checkout", "-q", "main")
    repo.write("notes.txt", b"2")
    repo.commit_all("two")
    change(repo, 2, 3)
    assert repo.run("rebase", "-q", "--autostash", "side", check=False).returncode != 0
    forget_reflogs(repo)


def restarted_by_bisect(repo: GitSandbox) -> None:
    change(repo, 2, 3)
    repo("commit", "-qam", "second")
    repo("bisect", "start", "HEAD", "HEAD~1")
    repo("checkout", "-q", "--detach", "HEAD~1")
    repo("update-ref", "refs/heads/main", "HEAD")
    forget_reflogs(repo)
    assert "refs/bisect/" in repo("for-each-ref", "--contains", repo("rev-parse", "refs/bisect/bad").strip())


SECOND_IS_NEEDED: list[Callable[[GitSandbox], None]] = [
    on_a_branch,
    only_tagged,
    stashed,
    stashed_below_another,
    after_a_reset,
    after_a_branch_was_deleted,
    only_staged,
    staged_in_another_work_tree,
    detached_in_another_work_tree,
    on_a_ref_of_another_work_tree,
    merging,
    merging_with_a_side_taken,
    picking,
    stages_alone,
    autostashed,
    restarted_by_bisect,
]


RARE = (stashed_below_another, after_a_branch_was_deleted, detached_in_another_work_tree, picking, autostashed)


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(scene, id=scene.__name__, marks=[pytest.mark.slow] if scene in RARE else [])
        for scene in SECOND_IS_NEEDED
    ],
)
def test_what_is_still_needed_stays(repo: GitSandbox, scene: Callable[[GitSandbox], None]) -> None:
    scene(repo)
    before = objects(repo)
    assert len(before) >= 4, "the scene stored nothing"
    report = collect(repo)
    assert objects(repo) == before, "something that is still needed was deleted"
    assert (report.kept, report.deleted) == (len(before), 0)
    problems = fsck(find_places(repo.path), all_=True).problems
    # What git left of a merge by lines is no manifest; these repositories have no merge driver.
    assert {problem.kind for problem in problems} <= {"manifest"}


@pytest.mark.parametrize("how", ["torn", "of a later version", "with conflict markers"])
def test_a_manifest_that_cannot_be_read_protects_what_it_names(repo: GitSandbox, how: str) -> None:
    text = manifest_text(repo, NAME)
    broken = {
        "torn": text[: text.index("\nvalue ")],
        "of a later version": text.replace("theta-manifest 1\n", "theta-manifest 7\nnews 1\n", 1),
        "with conflict markers": text.replace("\nobject ", "\n<<<<<<< ours\nobject ", 1) + ">>>>>>> theirs\n",
    }[how]
    oid = repo.run("hash-object", "-w", "--stdin", data=broken.encode()).stdout.strip()
    repo("update-index", "--cacheinfo", f"100644,{oid},{NAME}")
    repo("commit", "-q", "--amend", "-m", "broken")
    forget(repo)
    before = objects(repo)
    collect(repo)
    assert objects(repo) == before


# --- what goes --------------------------------------------------------------------------------------------------------


def test_what_nothing_reaches_goes_once_it_is_old(repo: GitSandbox) -> None:
    kept = objects(repo)
    after_a_reset(repo)
    forget(repo)
    (repo.path / ".git/ORIG_HEAD").unlink()
    gone = objects(repo) - kept
    size = sum(object_path(repo, oid).stat().st_size for oid in gone)
    young = gc(find_places(repo.path))
    assert (young.deleted, young.recent) == (0, len(gone)), "recent objects may be about to be referred to"
    assert objects(repo) == kept | gone
    dry = collect(repo, dry_run=True)
    assert (dry.deleted, dry.deleted_bytes, dry.kept) == (len(gone), size, len(kept))
    assert objects(repo) == kept | gone, "a dry run deletes nothing"
    assert dry.dry_run
    assert collect(repo) == replace(dry, dry_run=False)
    assert objects(repo) == kept
    assert fsck(find_places(repo.path), all_=True).problems == ()


def test_the_grace_period_is_counted_in_days(repo: GitSandbox) -> None:
    change(repo, 2, 3)
    repo("add", NAME)
    repo("reset", "-q", "--hard")
    forget(repo)
    (repo.path / ".git/ORIG_HEAD").unlink(missing_ok=True)
    needed = needed_by(repo, "HEAD")
    for oid in objects(repo):
        stamp = time.time() - 3 * 86400
        os.utime(object_path(repo, oid), (stamp, stamp))
    assert gc(find_places(repo.path), grace_days=4).deleted == 0
    assert gc(find_places(repo.path), grace_days=2).deleted > 0
    assert objects(repo) == needed


def test_an_old_object_that_is_used_again_is_young_again(repo: GitSandbox) -> None:
    """Its encoding is found in the cache, so nothing is written; it must not be deleted before it is referred to."""
    after_a_reset(repo)
    second = objects(repo) - needed_by(repo, "HEAD")
    forget(repo)
    (repo.path / ".git/ORIG_HEAD").unlink()
    grow_old(repo)
    # Cleaned, but the command that wanted it has not written its index yet.
    path = repo.path / NAME
    path.write_bytes(checkpoint(2, 3))
    repo("hash-object", "--path", NAME, NAME)
    report = gc(find_places(repo.path))
    assert second <= objects(repo)
    assert (report.deleted, report.recent) == (0, len(second))
    repo("add", NAME)
    assert needed_by(repo, "") <= objects(repo)
    assert collect(repo).deleted == 0


def test_temporary_files_of_killed_commands_go_after_a_day(repo: GitSandbox) -> None:
    folder = theta_dir(repo) / "tmp"
    folder.mkdir(exist_ok=True)
    for name, seconds in (("object-old", 2 * 86400), ("object-new", 3600)):
        (folder / name).write_bytes(noise(10))
        os.utime(folder / name, (time.time() - seconds,) * 2)
    (folder / "of-git-lfs").mkdir()
    (folder / "of-git-lfs" / "part").write_bytes(noise(10))
    for path in (folder / "of-git-lfs" / "part", folder / "of-git-lfs"):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert gc(find_places(repo.path), dry_run=True).temporary == 2
    assert (folder / "object-old").exists()
    assert gc(find_places(repo.path)).temporary == 2
    assert sorted(path.name for path in folder.iterdir()) == ["object-new"]


def test_what_is_no_object_is_left_alone(repo: GitSandbox) -> None:
    stranger = theta_dir(repo) / "objects" / "ab" / "cd" / "notes.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    os.utime(stranger, (OLD, OLD))
    collect(repo)
    assert stranger.read_text() == "mine"


def test_a_history_with_holes_is_not_collected(repo: GitSandbox) -> None:
    """Where git itself cannot say what is reachable, nothing is deleted."""
    change(repo, 2, 3)
    repo("commit", "-qam", "second")
    tree = repo("rev-parse", "HEAD^{tree}").strip()
    path = repo.path / ".git/objects" / tree[:2] / tree[2:]
    path.chmod(0o644)
    content = path.read_bytes()
    path.unlink()
    (repo.path / ".git/index").unlink()
    before = objects(repo)
    grow_old(repo)
    with pytest.raises(ThetaError):
        gc(find_places(repo.path))
    assert objects(repo) == before
    path.write_bytes(content)
    assert gc(find_places(repo.path)).deleted == 0


def test_an_empty_repository_has_nothing_to_collect(new_repository: Callable[..., GitSandbox]) -> None:
    repo = new_repository("empty")
    assert gc(find_places(repo.path)).kept == 0
    fresh = GitSandbox(repo.path / "fresh")
    fresh.path.mkdir()
    fresh("init", "-q")
    assert gc(find_places(fresh.path)).kept == 0


def test_progress_counts_objects(repo: GitSandbox) -> None:
    seen: list[tuple[int, int]] = []
    gc(find_places(repo.path), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(objects(repo)),) * 2


def test_gc_in_one_work_tree_knows_the_others(repo: GitSandbox) -> None:
    staged_in_another_work_tree(repo)
    before = objects(repo)
    grow_old(repo)
    gc(find_places(repo.path / "../linked"))
    assert objects(repo) == before
