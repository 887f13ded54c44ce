"""What a push needs at the remote: found by content, from what git tells a hook."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model
from tests.transfer.conftest import NAME
from tests.transfer.objects import named
from theta_nb.git.places import find_places
from theta_nb.git.push_range import RefUpdate, objects_of_push, objects_of_revisions, ref_updates
from theta_nb.git.walk import manifest_texts

ZEROS = "0" * 40


def sha(repo: GitSandbox, rev: str) -> str:
    return repo("rev-parse", rev).strip()


def wanted(repo: GitSandbox, *updates: tuple[str, str], remote: str = "origin") -> set[str]:
    """Objects of a push of ``(local revision, what the remote has)``; nothing stands for zeros."""
    lines = [
        RefUpdate("refs/heads/x", sha(repo, new) if new else ZEROS, "refs/heads/x", sha(repo, old) if old else ZEROS)
        for new, old in updates
    ]
    return set(objects_of_push(find_places(repo.path), remote, lines))


def test_a_new_branch_needs_everything(two_versions: GitSandbox) -> None:
    every = named(two_versions, NAME, "HEAD~1") | named(two_versions, NAME, "HEAD")
    assert wanted(two_versions, ("HEAD", "")) == every


def test_what_the_remote_has_is_left_out(two_versions: GitSandbox) -> None:
    new = named(two_versions, NAME, "HEAD") - named(two_versions, NAME, "HEAD~1")
    assert new, "one tensor has changed"
    assert wanted(two_versions, ("HEAD", "HEAD~1")) == new
    assert wanted(two_versions, ("HEAD", "HEAD")) == set()


@pytest.fixture
def known(two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> GitSandbox:
    """``two_versions`` with a remote that has the first version, and a remote-tracking branch that says so."""
    two_versions("remote", "add", "origin", str(bare().path))
    two_versions("push", "-q", "--no-verify", "origin", "HEAD~1:refs/heads/other")
    return two_versions


def test_remote_tracking_branches_that_the_remote_lists_count_as_there(known: GitSandbox) -> None:
    old, new = named(known, NAME, "HEAD~1"), named(known, NAME, "HEAD")
    assert wanted(known, ("HEAD", "")) == new - old
    assert wanted(known, ("HEAD", ""), remote="../server.git") == new | old


def test_those_that_it_does_not_list_do_not(known: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    known("update-ref", "refs/remotes/origin/main", "HEAD")
    old, new = named(known, NAME, "HEAD~1"), named(known, NAME, "HEAD")
    assert wanted(known, ("HEAD", "")) == new - old, "a branch that is gone there"
    known("remote", "set-url", "origin", str(bare("other.git").path))
    assert wanted(known, ("HEAD", "")) == new | old, "another repository"
    known("remote", "set-url", "origin", "../gone.git")
    assert wanted(known, ("HEAD", "")) == new | old, "one that cannot be asked"


def test_a_branch_that_is_there_but_older_than_its_remote_tracking_branch(known: GitSandbox) -> None:
    known("update-ref", "refs/remotes/origin/main", "HEAD")
    assert wanted(known, ("HEAD", "HEAD~1")) == named(known, NAME, "HEAD") - named(known, NAME, "HEAD~1")


@pytest.mark.usefixtures("known")
class TestAsking:
    """The remote is asked where its answer counts, and once."""

    @pytest.fixture
    def asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        """How often it was asked since the last call."""
        log = tmp_path / "trace"
        monkeypatch.setenv("GIT_TRACE2_EVENT", str(log))

        def count() -> int:
            number = log.read_text().count('"name":"ls-remote"') if log.exists() else 0
            log.unlink(missing_ok=True)
            return number

        return count

    def test_for_new_refs_once(self, known: GitSandbox, asked: Callable[[], int]) -> None:
        wanted(known, ("HEAD", ""), ("HEAD~1", ""), ("HEAD~2", ""))
        assert asked() == 1

    def test_not_for_what_follows_on_what_is_there(self, known: GitSandbox, asked: Callable[[], int]) -> None:
        assert wanted(known, ("HEAD", "HEAD~1"))
        assert wanted(known, ("", "HEAD")) == set()
        assert asked() == 0

    def test_where_a_merge_brings_in_another_branch(self, known: GitSandbox, asked: Callable[[], int]) -> None:
        assert wanted(known, ("HEAD", "HEAD~2")) == named(known, NAME, "HEAD") - named(known, NAME, "HEAD~1")
        assert asked() == 1

    def test_not_where_nothing_is_known_of_it(self, known: GitSandbox, asked: Callable[[], int]) -> None:
        known("update-ref", "-d", "refs/remotes/origin/other")
        assert wanted(known, ("HEAD", "")) >= named(known, NAME, "HEAD~1")
        assert asked() == 0

    def test_by_a_command_once(self, known: GitSandbox, asked: Callable[[], int]) -> None:
        places = find_places(known.path)
        assert objects_of_revisions(places, ["HEAD"], remote="origin").keys() == named(known, NAME, "HEAD") - named(
            known, NAME, "HEAD~1"
        )
        assert asked() == 1


def test_those_of_a_remote_whose_name_is_longer_do_not(known: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    known("push", "-q", "--no-verify", "origin", "main")
    known("update-ref", "-d", "refs/remotes/origin/main")
    known("update-ref", "-d", "refs/remotes/origin/other")
    known("config", "remote.origin/backup.url", str(bare("backup.git").path))
    known("push", "-q", "--no-verify", str(bare("backup.git").path), "main")
    known("update-ref", "refs/remotes/origin/backup/main", "HEAD")
    assert wanted(known, ("HEAD", "")) >= named(known, NAME, "HEAD")
    assert wanted(known, ("HEAD", ""), remote="origin/backup") == set()


def test_those_of_a_remote_with_push_urls_do_not(known: GitSandbox) -> None:
    known("push", "-q", "--no-verify", "origin", "main")
    assert wanted(known, ("HEAD", "")) == set()
    known("remote", "set-url", "--push", "origin", known("remote", "get-url", "origin").strip())
    assert wanted(known, ("HEAD", "")) >= named(known, NAME, "HEAD")


def test_a_remote_that_is_pushed_to_by_another_address(known: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    there, elsewhere = known("remote", "get-url", "origin").strip(), bare("elsewhere.git").path
    old, new = named(known, NAME, "HEAD~1"), named(known, NAME, "HEAD")
    known("config", f"url.file://{there}.pushInsteadOf", there)
    assert wanted(known, ("HEAD", "")) == new - old
    known("config", "--remove-section", f"url.file://{there}")
    known("config", f"url.{elsewhere}.pushInsteadOf", there)
    assert wanted(known, ("HEAD", "")) == new | old
    known("config", f"url.{there.removesuffix('.git')}.insteadOf", str(elsewhere).removesuffix(".git"))
    assert wanted(known, ("HEAD", "")) == new | old, "nothing is rewritten twice"
    places, update = find_places(known.path), RefUpdate("x", sha(known, "HEAD"), "x", ZEROS)
    assert objects_of_push(places, "origin", [update], url=there).keys() == new - old, "git says where it goes"


def test_one_of_several_addresses_that_lacks_the_commits(known: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    known("remote", "set-url", "--add", "origin", str(bare("second.git").path))
    assert wanted(known, ("HEAD", "")) >= named(known, NAME, "HEAD~1")


def test_an_unknown_commit_of_the_remote(two_versions: GitSandbox) -> None:
    update = RefUpdate("refs/heads/main", sha(two_versions, "HEAD"), "refs/heads/main", "12" * 20)
    objects = objects_of_push(find_places(two_versions.path), "origin", [update])
    assert set(objects) >= named(two_versions, NAME, "HEAD")


def test_a_forced_push(two_versions: GitSandbox) -> None:
    two_versions("switch", "-q", "-c", "other", "HEAD~1")
    two_versions.write(NAME, model(9))
    two_versions.commit_all("other")
    expected = named(two_versions, NAME, "other") - named(two_versions, NAME, "HEAD~1")
    assert wanted(two_versions, ("other", "main")) >= expected != set()


def test_deletions_and_nothing(two_versions: GitSandbox) -> None:
    assert wanted(two_versions, ("", "HEAD")) == set()
    assert wanted(two_versions) == set()
    assert ref_updates("") == []


def test_several_refs_at_once(two_versions: GitSandbox) -> None:
    two_versions("branch", "old", "HEAD~2")
    assert wanted(two_versions, ("", "old"), ("HEAD~1", "old"), ("HEAD", "old")) == named(
        two_versions, NAME, "HEAD"
    ) | named(two_versions, NAME, "HEAD~1")


def test_tags_trees_and_blobs(two_versions: GitSandbox) -> None:
    two_versions("tag", "-a", "-m", "one", "one", "HEAD~1")
    two_versions("tag", "-a", "-m", "tag of a tag", "again", "one")
    old = named(two_versions, NAME, "HEAD~1")
    assert wanted(two_versions, ("again", "")) == old
    assert wanted(two_versions, ("HEAD~1^{tree}", "")) == old
    assert wanted(two_versions, (f"HEAD~1:{NAME}", "")) == old


def test_a_merge_brings_what_both_sides_have(two_versions: GitSandbox) -> None:
    two_versions("switch", "-q", "-c", "other", "HEAD~1")
    two_versions.write("second.safetensors", model(5))
    two_versions.commit_all("other")
    two_versions("merge", "-q", "-m", "merge", "main")
    expected = named(two_versions, "second.safetensors", "HEAD") - named(two_versions, NAME, "main")
    assert wanted(two_versions, ("HEAD", "main")) == expected != set()


def test_a_checkpoint_that_was_deleted_again(two_versions: GitSandbox) -> None:
    before = named(two_versions, NAME, "HEAD") - named(two_versions, NAME, "HEAD~1")
    two_versions("rm", "-q", NAME)
    two_versions("commit", "-q", "-m", "gone")
    assert wanted(two_versions, ("HEAD", "HEAD~2")) == before


def test_one_content_under_two_paths_of_which_one_is_not_tracked(repository: GitSandbox) -> None:
    repository.write("z.safetensors", model(3))
    repository("add", "-A")
    # 'rev-list --objects' names a blob once, with the first of its paths.
    blob = repository("ls-files", "-s", "z.safetensors").split()[1]
    repository("update-index", "--add", "--cacheinfo", f"100644,{blob},a.txt")
    repository("commit", "-q", "-m", "twice")
    assert wanted(repository, ("HEAD", "")) == named(repository, "z.safetensors", "HEAD") != set()


def test_paths_with_line_breaks_and_attributes_that_have_changed(repository: GitSandbox) -> None:
    repository.write("odd\nname ü.safetensors", model(3))
    repository.commit_all("odd")
    expected = wanted(repository, ("HEAD", ""))
    repository.write(".gitattributes", b"")
    repository("add", ".gitattributes")
    repository("commit", "-q", "-m", "no attributes any more")
    assert wanted(repository, ("HEAD", "")) == expected != set()


def test_large_files_that_are_no_manifests(two_versions: GitSandbox) -> None:
    two_versions.write("large.bin", b"x" * 3_000_000)
    two_versions.write("like.txt", b"theta-manifest 1 is what the first line says")
    two_versions.commit_all("others")
    assert wanted(two_versions, ("HEAD", "HEAD~1")) == set()


def test_a_manifest_of_megabytes(repository: GitSandbox) -> None:
    oid = "ab" * 32
    text = b"theta-manifest 1\n" + b"# " + b"x" * 2_000_000 + b"\n\nobject %s 5\nvalue\n" % oid.encode()
    blob = repository.run("hash-object", "-w", "--stdin", data=text).stdout.strip()
    assert wanted(repository, (blob, "")) == {oid}


def test_a_manifest_with_crlf_and_one_with_conflict_markers(repository: GitSandbox) -> None:
    a, b = "ab" * 32, "cd" * 32
    for text in (
        f"theta-manifest 1\r\n\r\nobject {a} 5\r\nobject {b} 6\r\nvalue\r\n",
        f"theta-manifest 1\n\n<<<<<<< ours\nobject {a} 5\n=======\nobject {b} 6\n>>>>>>> theirs\nvalue\n",
    ):
        blob = repository.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
        update = RefUpdate("x", blob, "x", ZEROS)
        assert objects_of_push(find_places(repository.path), "origin", [update]) == {a: 5, b: 6}


def test_replacements_are_not_what_is_pushed(two_versions: GitSandbox) -> None:
    new, old = sha(two_versions, "HEAD"), sha(two_versions, "HEAD~2")
    expected = named(two_versions, NAME, "HEAD")
    two_versions("replace", new, old)
    assert (
        objects_of_push(find_places(two_versions.path), "origin", [RefUpdate("x", new, "x", ZEROS)]).keys() >= expected
    ), "the remote gets the original commit"


def test_sha256(new_repository: Callable[..., GitSandbox]) -> None:
    try:
        repo = new_repository("repo", "--object-format=sha256")
    except AssertionError as error:  # pragma: no cover
        pytest.skip(f"this git has no SHA-256: {error}")
    repo.write(NAME, model(1))
    repo.commit_all("one")
    zeros = "0" * 64
    update = ref_updates(f"refs/heads/main {sha(repo, 'HEAD')} refs/heads/main {zeros}\n")
    assert set(objects_of_push(find_places(repo.path), "origin", update)) == named(repo, NAME, "HEAD")
    delete = ref_updates(f"(delete) {zeros} refs/heads/main {sha(repo, 'HEAD')}\n")
    assert objects_of_push(find_places(repo.path), "origin", delete) == {}


def test_shallow(two_versions: GitSandbox, tmp_path: Path) -> None:
    url = f"file://{two_versions.path}"
    env = {"GIT_THETA_SKIP_SMUDGE": "1"}
    two_versions.run("clone", "-q", "--depth=1", url, str(tmp_path / "shallow"), env=env)
    clone = GitSandbox(tmp_path / "shallow")
    assert wanted(clone, ("HEAD", ""), remote="backup") == named(two_versions, NAME, "HEAD")


class TestPartialClone:
    """Blobs that a clone left out: read only if they are needed, and then in one go."""

    @pytest.fixture
    def clone(self, two_versions: GitSandbox, tmp_path: Path) -> GitSandbox:
        two_versions("config", "uploadpack.allowFilter", "true")
        two_versions("config", "uploadpack.allowAnySHA1InWant", "true")
        url = f"file://{two_versions.path}"
        two_versions("clone", "-q", "--filter=blob:none", "--no-checkout", url, str(tmp_path / "partial"))
        repo = GitSandbox(tmp_path / "partial")
        repo("config", "filter.theta.process", f"{sys.executable} -m theta_nb filter-process")
        return repo

    def blobs(self, repo: GitSandbox) -> set[str]:
        """Blobs that are here."""
        listed = repo("cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)", "--unordered")
        return {line.split()[1] for line in listed.splitlines() if line.startswith("blob")}

    def test_for_where_they_come_from_nothing_is_fetched(self, clone: GitSandbox) -> None:
        assert wanted(clone, ("HEAD", "")) == set()
        assert wanted(clone, ("HEAD", ""), remote="origin") == set()
        assert self.blobs(clone) == set()

    def test_what_is_new_is_found(self, clone: GitSandbox) -> None:
        text = f"theta-manifest 1\n\nobject {'ab' * 32} 5\nvalue\n"
        blob = clone.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
        clone("read-tree", "HEAD")
        clone("update-index", "--add", "--cacheinfo", f"100644,{blob},new.safetensors")
        tree = clone("write-tree", "--missing-ok").strip()
        commit = clone("commit-tree", "-p", "HEAD", "-m", "new", tree).strip()
        assert wanted(clone, (commit, "")) == {"ab" * 32}
        assert self.blobs(clone) == {blob}, "nothing was fetched"

    def test_for_another_remote_they_are_fetched_at_once(
        self, clone: GitSandbox, two_versions: GitSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clone("remote", "add", "backup", "../backup.git")
        monkeypatch.setenv("GIT_TRACE2_EVENT", str(tmp_path / "trace"))
        found = wanted(clone, ("HEAD", ""), remote="backup")
        monkeypatch.delenv("GIT_TRACE2_EVENT")
        assert found == named(two_versions, NAME, "HEAD") | named(two_versions, NAME, "HEAD~1")
        fetches = (tmp_path / "trace").read_text().count('"name":"fetch"')
        assert fetches == 1, f"expected one 'git fetch', got {fetches}"


def test_revisions(two_versions: GitSandbox) -> None:
    places = find_places(two_versions.path)
    every = named(two_versions, NAME, "HEAD~1") | named(two_versions, NAME, "HEAD")
    assert set(objects_of_revisions(places, ["--all"])) == every


def test_what_the_hook_of_git_is_told(two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> None:
    server = bare()
    hook = two_versions.path / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.unlink(missing_ok=True)
    program = (
        "import sys; from theta_nb.git.places import find_places; from theta_nb.git.push_range import *; "
        "o = objects_of_push(find_places(), sys.argv[1], ref_updates(sys.stdin.read())); "
        "open('told', 'w').write(' '.join(sorted(o)))"
    )
    hook.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    hook.chmod(0o755)
    two_versions("push", "-q", str(server.path), "HEAD~1:refs/heads/new", "HEAD^{tree}:refs/tags/tree")
    told = set((two_versions.path / "told").read_text().split())
    assert told == named(two_versions, NAME, "HEAD~1") | named(two_versions, NAME, "HEAD")


def test_the_stream_ends_with_its_reader(two_versions: GitSandbox) -> None:
    blobs = []
    for number in range(300):
        text = f"theta-manifest 1\n\nobject {number:064x} 5\n{'x' * 10_000}\n"
        blobs.append(two_versions.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip())
    walk = manifest_texts(find_places(two_versions.path), [blob.encode() for blob in blobs])
    assert next(walk)[0].decode() == blobs[0], "a walk can be left at any point"
    walk.close()  # ends the process, or this test does not end
