"""Damaged and missing objects under git: what refuses, what it says, and how to get out of it."""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import age, assert_quiet, manifest_of, objects, theta_dir, warnings
from tests.git.filter_client import FilterClient
from tests.git.objects import damage, flip, object_path
from theta_nb.commands.add import add
from theta_nb.commands.checkout import checkout
from theta_nb.commands.fsck import FsckReport, fsck
from theta_nb.errors import CorruptObjectError, MissingObjectError
from theta_nb.git.places import find_places
from theta_nb.storage.encoding import encode_bytes

NAME = "m.safetensors"


@functools.cache
def checkpoint(seed: int) -> bytes:
    """A header that fills objects of its own, a large tensor, some for a pack, and many that stand in the manifest."""
    names = [random.Random(2 * i + seed).randbytes(1000).hex() for i in range(90)]
    tensors = {name: np.full(2, i, np.float32) for i, name in enumerate(names)}
    tensors["large"] = normal(seed, 200, 200)
    tensors["packed.a"] = normal(seed + 100, 300)
    tensors["packed.b"] = normal(seed + 200, 400)
    return safetensors(tensors)


def normal(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed_b(seed: int) -> bytes:
    return normal(seed + 200, 400).tobytes()


@dataclass(frozen=True)
class Object:
    """An object of the version on ``next``: its name, where a frame begins in it, and what it holds."""

    oid: str
    offset: int
    length: int
    holds: str


ROLES = {"large": "large", "packed": "packed.b", "layout": "the layout", "skeleton": "the skeleton"}


@pytest.fixture
def two_versions(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> GitSandbox:
    """``main`` with the first version checked out, and ``next`` with another that shares no object with it."""
    template = tmp_path_factory.getbasetemp() / "damaged-template"
    if not template.exists():
        repo = new_repository("template")
        repo("config", "core.checkStat", "minimal")
        repo("config", "theta.fetch", "never")
        for branch, seed in (("next", 1), ("main", 0)):
            repo("checkout", "-q", "-B", branch, "HEAD~0")
            repo.write(NAME, checkpoint(seed))
            age(repo, [NAME, ".gitattributes"])
            repo.commit_all(branch)
        repo("status")
        repo.path.rename(template)
    shutil.copytree(template, tmp_path / "repo")
    return GitSandbox(tmp_path / "repo")


def object_of(repo: GitSandbox, role: str, rev: str = "next") -> Object:
    """The object that plays a role in a version."""
    manifest = manifest_of(repo, NAME, rev)
    digest = {"layout": manifest.layout, "skeleton": manifest.skeleton}.get(role)
    if digest is None:
        digest = manifest.entries[ROLES[role]].digest
    ref = manifest.values[digest].chunks[0]
    assert (ref.offset + ref.length < manifest.objects[ref.oid] or ref.offset > 0) == (role == "packed")
    return Object(ref.oid, ref.offset, ref.length, ROLES[role])


def read(repo: GitSandbox) -> bytes:
    return (repo.path / NAME).read_bytes()


# --- corrupt ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_flipped_bit_is_an_error_that_names_file_and_parameter(two_versions: GitSandbox, role: str) -> None:
    repo = two_versions
    found = object_of(repo, role)
    manifest = repo("cat-file", "blob", f"next:{NAME}").encode()
    good = object_path(repo, found.oid).read_bytes()
    # Fields of the Blosc header: version, codec version, flags, item size, raw length, block size, encoded length.
    places = [*range(16), 20, found.length // 2, found.length - 1]
    with FilterClient(repo.path) as client:
        client.shake_hands()
        for place in places:
            flip(repo, found.oid, found.offset + place)
            answer = client.request("smudge", NAME, manifest)
            # What the codec does not look at may flip.
            assert answer.status == "error" or answer.content == checkpoint(1), f"byte {place}"
            damage(repo, found.oid, good)
        assert client.request("smudge", NAME, manifest).content == checkpoint(1)
    said = warnings(client.stderr)
    assert len(said) >= len(places) - 4
    for line in said:
        assert NAME in line, line
        assert found.holds in line, line


@pytest.mark.parametrize("role", ROLES)
def test_git_checkout_refuses_a_corrupt_object_and_works_again_once_it_is_repaired(
    two_versions: GitSandbox, role: str
) -> None:
    repo = two_versions
    found = object_of(repo, role)
    good = object_path(repo, found.oid).read_bytes()
    flip(repo, found.oid, found.offset + found.length // 2)
    result = repo.run("checkout", "-q", "next", check=False)
    assert result.returncode != 0
    (said,) = warnings(result.stderr)
    assert NAME in said
    assert found.holds in said
    assert repo("rev-parse", "--abbrev-ref", "HEAD").strip() == "main", "HEAD moved"
    # git has unlinked the file before it asked; its version here is sound.
    repo("checkout", "-f", "main")
    assert read(repo) == checkpoint(0)
    assert_quiet(repo)
    damage(repo, found.oid, good)
    repo("checkout", "-q", "next")
    assert read(repo) == checkpoint(1)
    assert_quiet(repo)


@pytest.mark.parametrize("role", ROLES)
def test_git_theta_checkout_overwrites_nothing(two_versions: GitSandbox, role: str) -> None:
    repo = two_versions
    found = object_of(repo, role)
    good = object_path(repo, found.oid).read_bytes()
    index = repo("ls-files", "-s")
    place = found.offset + 30
    for bad in (
        good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :],
        good[: found.offset + found.length - 1],
        b"",
        encode_bytes(bytes(500)),
    ):
        damage(repo, found.oid, bad)
        with pytest.raises(CorruptObjectError, match=found.holds.removesuffix(".b")):
            checkout(find_places(repo.path), [NAME], source="next", force=True)
        assert read(repo) == checkpoint(0)
    assert repo("ls-files", "-s") == index
    assert repo("status", "--porcelain") == ""
    damage(repo, found.oid, good)
    checkout(find_places(repo.path), [NAME], source="next")
    assert read(repo) == checkpoint(1)


def problems(report: FsckReport) -> list[tuple[str, str, str, str]]:
    return [(problem.kind, problem.oid, problem.path, problem.parameter) for problem in report.problems]


@pytest.mark.parametrize(("damaged", "kind"), [("flipped", "corrupt"), ("cut", "corrupt"), ("gone", "missing")])
@pytest.mark.parametrize("role", ROLES)
def test_fsck_names_tensor_object_commit_and_path(two_versions: GitSandbox, role: str, damaged: str, kind: str) -> None:
    repo = two_versions
    found = object_of(repo, role)
    if damaged == "flipped":
        flip(repo, found.oid, found.offset + found.length // 2)
    elif damaged == "cut":
        damage(repo, found.oid, object_path(repo, found.oid).read_bytes()[:-1])
    else:
        object_path(repo, found.oid).unlink()
    report = fsck(find_places(repo.path), all_=True)
    assert {(problem.kind, problem.oid, problem.path) for problem in report.problems} == {(kind, found.oid, NAME)}
    assert {problem.commit for problem in report.problems} == {repo("rev-parse", "--short", "next").strip()}
    named = {name for problem in report.problems for name in problem.parameter.split(", ")}
    if role != "packed":
        assert named == {found.holds}
    elif damaged == "flipped":
        assert named == {"packed.b"}, "the other tensors of the pack are sound"
    else:
        assert named >= {"packed.a", "packed.b"}
    assert all(found.oid in problem.message for problem in report.problems)
    assert fsck(find_places(repo.path)).problems == (), "HEAD and the index need none of it"
    assert problems(fsck(find_places(repo.path), revisions=["next"])) == problems(report)


def test_fsck_tells_of_a_damaged_object_even_if_no_value_in_use_is_hurt(two_versions: GitSandbox) -> None:
    repo = two_versions
    old = object_of(repo, "packed", "main")
    changed = bytearray(read(repo))
    place = changed.index(packed_b(0))
    changed[place : place + 1600] = normal(7, 400).tobytes()  # nothing in common: no update of what it was
    repo.write(NAME, bytes(changed))
    repo("commit", "-qam", "packed.b changed")
    flip(repo, old.oid, old.offset + old.length // 2)
    (problem,) = fsck(find_places(repo.path)).problems
    assert (problem.kind, problem.oid, problem.path, problem.parameter) == ("corrupt", old.oid, NAME, "")
    (problem,) = fsck(find_places(repo.path), all_=True).problems
    assert problem.parameter == "packed.b", "an older commit needs it"


def test_fsck_of_a_sound_repository_finds_nothing(two_versions: GitSandbox) -> None:
    seen: list[tuple[int, int]] = []
    report = fsck(find_places(two_versions.path), all_=True, progress=lambda done, total: seen.append((done, total)))
    assert report.problems == ()
    assert report.checked_objects == len(objects(two_versions))
    assert seen[-1][0] == seen[-1][1]


def test_fsck_names_the_commit_that_brought_a_version_in_not_the_one_that_replaced_it(
    two_versions: GitSandbox,
) -> None:
    repo = two_versions
    repo("checkout", "-q", "next")
    wanted = repo("rev-parse", "--short", "HEAD").strip()
    repo.write(NAME, checkpoint(2))
    repo("commit", "-qam", "replaced")
    repo("rm", "-q", NAME)
    repo("commit", "-qm", "and gone")
    flip(repo, object_of(repo, "large", wanted).oid, -1)
    assert {problem.commit for problem in fsck(find_places(repo.path), all_=True).problems} == {wanted}


def test_fsck_reports_a_manifest_that_cannot_be_read_and_checks_the_rest(two_versions: GitSandbox) -> None:
    repo = two_versions
    text = repo("cat-file", "blob", f"next:{NAME}").replace("[200,200]", "[200,201]")
    oid = repo.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
    repo("update-index", "--add", "--cacheinfo", f"100644,{oid},broken.safetensors")
    repo("commit", "-qm", "broken")
    flip(repo, object_of(repo, "large").oid, -1)
    report = fsck(find_places(repo.path), all_=True)
    assert {(problem.kind, problem.path) for problem in report.problems} == {
        ("manifest", "broken.safetensors"),
        ("corrupt", NAME),
    }


# --- missing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "how"), [*((role, "unlinked") for role in ROLES), ("large", "a folder instead")])
def test_a_missing_object_leaves_the_manifest_with_one_warning_and_a_quiet_status(
    two_versions: GitSandbox, role: str, how: str
) -> None:
    repo = two_versions
    found = object_of(repo, role)
    good = object_path(repo, found.oid).read_bytes()
    object_path(repo, found.oid).unlink()
    if how == "a folder instead":
        object_path(repo, found.oid).mkdir()
    result = repo.run("checkout", "-q", "next")
    (said,) = warnings(result.stderr)
    assert NAME in said
    assert "git theta checkout" in said
    assert read(repo) == repo("cat-file", "blob", f"next:{NAME}").encode()
    assert_quiet(repo)
    with pytest.raises(MissingObjectError):
        checkout(find_places(repo.path), [NAME])
    assert_quiet(repo)
    # A colleague sends the object.
    if how == "a folder instead":
        object_path(repo, found.oid).rmdir()
    object_path(repo, found.oid).write_bytes(good)
    checkout(find_places(repo.path), [NAME])
    assert read(repo) == checkpoint(1)
    assert_quiet(repo)


@pytest.mark.parametrize("role", ROLES)
def test_adding_the_checkpoint_again_from_its_file_brings_a_missing_object_back(
    two_versions: GitSandbox, role: str
) -> None:
    repo = two_versions
    found = object_of(repo, role, "main")
    good = object_path(repo, found.oid).read_bytes()
    object_path(repo, found.oid).unlink()
    assert {problem.kind for problem in fsck(find_places(repo.path)).problems} == {"missing"}
    age(repo, [NAME])
    repo("add", NAME)
    assert object_path(repo, found.oid).read_bytes() == good
    assert fsck(find_places(repo.path), all_=True).problems == ()
    assert_quiet(repo)


def test_a_lost_pack_of_which_a_chunk_changed_is_reported_until_the_old_file_is_added(
    two_versions: GitSandbox,
) -> None:
    repo = two_versions
    old = read(repo)
    pack = object_of(repo, "packed", "main").oid
    object_path(repo, pack).unlink()
    changed = bytearray(old)
    changed[changed.index(packed_b(0))] ^= 1
    repo.write(NAME, bytes(changed))
    age(repo, [NAME])
    repo("commit", "-qam", "changed")
    assert {(problem.kind, problem.oid) for problem in fsck(find_places(repo.path)).problems} == {("missing", pack)}
    repo.write("copy.safetensors", old)
    repo("add", "copy.safetensors")
    assert fsck(find_places(repo.path), all_=True).problems == ()
    (repo.path / NAME).unlink()
    repo("checkout", NAME)
    assert read(repo) == bytes(changed)


def test_a_damaged_object_is_healed_by_deleting_it_and_adding_the_file(two_versions: GitSandbox) -> None:
    """What the message of a refused push advises; git itself takes the file for unchanged."""
    repo = two_versions
    found = object_of(repo, "large", "main")
    good = object_path(repo, found.oid).read_bytes()
    flip(repo, found.oid, 1000)
    object_path(repo, found.oid).unlink()
    add(find_places(repo.path), [NAME], renormalize=True)
    assert object_path(repo, found.oid).read_bytes() == good
    assert fsck(find_places(repo.path), all_=True).problems == ()
    assert_quiet(repo)


def test_everything_lost_but_the_file_is_stored_anew_by_one_add(two_versions: GitSandbox) -> None:
    repo = two_versions
    needed = set(manifest_of(repo, NAME).objects)
    for path in (theta_dir(repo) / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    age(repo, [NAME])
    repo("add", NAME)
    assert objects(repo) == needed
    assert fsck(find_places(repo.path)).problems == ()
