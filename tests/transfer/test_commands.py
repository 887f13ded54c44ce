"""``git theta push``, ``fetch``, ``pull``, ``gc --verify-remote`` and ``env``: what they do and say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model, safetensors
from tests.git.checks import objects, remove_objects, theta_dir
from tests.transfer.conftest import NAME, ONE, TWO, LfsServer
from tests.transfer.objects import lfs_objects, named, needed


@pytest.fixture
def repo(two_versions: GitSandbox, bare: Callable[..., GitSandbox]) -> GitSandbox:
    """Two versions of a checkpoint, and an empty remote ``origin``."""
    two_versions("remote", "add", "origin", str(bare().path))
    return two_versions


@pytest.fixture
def server(repo: GitSandbox) -> GitSandbox:
    """The remote."""
    return GitSandbox(repo.path.parent / "server.git")


def said(repo: GitSandbox, *arguments: str) -> str:
    """What ``git theta`` prints."""
    return repo("theta", *arguments).strip()


def complaint(repo: GitSandbox, *arguments: str) -> str:
    """What it says when it fails."""
    result = repo.run("theta", *arguments, check=False)
    assert result.returncode == 1, f"expected a failure, got {result.returncode}: {result.stdout}{result.stderr}"
    return result.stderr.strip()


class TestPush:
    def test_objects_without_commits(self, repo: GitSandbox, server: GitSandbox) -> None:
        text = said(repo, "push")
        assert text.startswith("uploaded 2 objects, ")
        assert "git push" in text, "it says that commits are not sent"
        assert lfs_objects(server) == set(needed(repo))
        assert server("for-each-ref") == ""
        assert said(repo, "push") == "origin has 2 objects already"

    def test_some_commits_only(self, repo: GitSandbox, server: GitSandbox) -> None:
        said(repo, "push", "origin", "HEAD~1")
        assert lfs_objects(server) == named(repo, NAME, "HEAD~1")

    def test_without_naming_the_remote(self, repo: GitSandbox, server: GitSandbox) -> None:
        said(repo, "push", "HEAD~1")
        assert lfs_objects(server) == named(repo, NAME, "HEAD~1")

    def test_all_trusts_nothing(self, repo: GitSandbox, server: GitSandbox) -> None:
        repo("push", "-q", "--no-verify", "origin", "main")
        assert not lfs_objects(server), "commits can get there without objects"
        assert said(repo, "push").startswith("There is nothing to upload to origin")
        assert said(repo, "push", "--all").startswith("uploaded 2 objects")
        assert said(repo, "push", "--all") == "origin has 2 objects already"
        assert lfs_objects(server) == set(needed(repo))

    def test_a_dry_run(self, repo: GitSandbox, server: GitSandbox) -> None:
        said(repo, "push", "origin", "HEAD~1")
        assert "would upload 1 object" in said(repo, "push", "--dry-run")
        assert lfs_objects(server) == named(repo, NAME, "HEAD~1")

    def test_a_dry_run_where_a_push_goes_elsewhere(
        self, repo: GitSandbox, server: GitSandbox, bare: Callable[..., GitSandbox]
    ) -> None:
        said(repo, "push")
        mirror = bare("mirror.git")
        repo("config", "remote.origin.pushurl", str(mirror.path))
        assert said(repo, "push", "--dry-run").startswith("would upload 2 objects, ")
        repo("config", "--unset", "remote.origin.pushurl")
        repo("config", f"url.{mirror.path}.pushInsteadOf", str(server.path))
        assert said(repo, "push", "--dry-run").startswith("would upload 2 objects, ")
        assert not lfs_objects(mirror)
        said(repo, "push")
        assert lfs_objects(mirror) == set(needed(repo))
        assert said(repo, "push", "--dry-run").endswith("to origin; it has 2 of them")

    def test_a_dry_run_that_nobody_answers(self, repo: GitSandbox) -> None:
        repo("remote", "set-url", "origin", "http://127.0.0.1:1/x.git")
        assert "connection refused" in complaint(repo, "push", "--dry-run")

    def test_json(self, repo: GitSandbox) -> None:
        wanted = needed(repo)
        assert json.loads(said(repo, "push", "--json")) == {
            "remote": "origin",
            "objects": 2,
            "transferred": 2,
            "nbytes": sum(wanted.values()),
            "dry_run": False,
        }

    def test_what_is_neither_remote_nor_commit(self, repo: GitSandbox) -> None:
        assert "'orgin' is neither a remote nor a commit here" in complaint(repo, "push", "orgin")
        assert "'nothing' is no commit here" in complaint(repo, "push", "origin", "nothing")

    def test_no_commit_yet(self, new_repository: Callable[..., GitSandbox], server: GitSandbox) -> None:
        empty = GitSandbox(server.path.parent / "empty")
        empty.path.mkdir()
        empty("init", "-q")
        empty("remote", "add", "origin", str(server.path))
        assert "no commit to push yet" in complaint(empty, "push")


class TestFetch:
    @pytest.fixture(autouse=True)
    def only_there(self, repo: GitSandbox) -> None:
        """All objects are at the remote, none here."""
        said(repo, "push", "--all")
        remove_objects(repo)

    def test_what_head_needs(self, repo: GitSandbox) -> None:
        repo("switch", "-q", "--detach", "HEAD~1")
        remove_objects(repo)
        assert said(repo, "fetch").startswith("fetched 1 object, ")
        assert objects(repo) == named(repo, NAME, "HEAD")
        assert said(repo, "fetch") == "everything is here: 1 object"

    def test_the_index_counts(self, repo: GitSandbox) -> None:
        repo.write("second.safetensors", ONE)
        repo("add", "second.safetensors")
        repo("rm", "-q", "--cached", NAME)
        shutil.rmtree(theta_dir(repo) / "objects")
        expected = named(repo, "second.safetensors") | named(repo, NAME, "HEAD")
        said(repo, "fetch")
        assert objects(repo) == expected

    def test_a_commit_from_a_remote(self, repo: GitSandbox) -> None:
        said(repo, "fetch", "origin", "HEAD~1")
        assert objects(repo) == named(repo, NAME, "HEAD~1")

    def test_all(self, repo: GitSandbox) -> None:
        said(repo, "fetch", "--all")
        assert objects(repo) == set(needed(repo))
        assert "part of it" in complaint(repo, "fetch", "--all", "--include", "*.pt")

    def test_parameters(self, repo: GitSandbox) -> None:
        ones = np.ones((150, 150), dtype=np.float32)
        noise = np.random.default_rng(1).normal(size=(3, 150, 150)).astype(np.float32)
        repo.write(NAME, safetensors({"a.0": noise[0], "a.1": noise[1], "b.0": noise[2], "b.1": ones}))
        repo.commit_all("of tensors that do not share objects")
        said(repo, "push", "--all")
        remove_objects(repo)
        every = named(repo, NAME, "HEAD")
        said(repo, "fetch", "--parameters", "b.*")
        some = objects(repo)
        assert some < every, f"a part was asked for, {len(some)} of {len(every)} objects came"
        program = (
            "import theta_nb; c = theta_nb.Repository('.').checkpoint('m.safetensors', rev='HEAD'); "
            "print(c['b.1'].numpy().sum(), c['b.0'].numpy().shape)"
        )
        repo("config", "theta.fetch", "never")
        assert repo("-c", f'alias.py=!python -c "{program}"', "py").strip() == "22500.0 (150, 150)"

    def test_paths(self, repo: GitSandbox) -> None:
        repo.write("models/a.safetensors", model(5))
        repo.write("models/old/b.safetensors", model(6))
        repo.commit_all("more")
        said(repo, "push", "--all")
        for options, expected in (
            (["-I", "models"], ["models/a.safetensors", "models/old/b.safetensors"]),
            (["-I", "models", "-X", "old/"], ["models/a.safetensors"]),
            (["-I", "b.*"], ["models/old/b.safetensors"]),
            (["-X", "/models"], [NAME]),
            (["-I", "models/*/b.safetensors", "-I", NAME], ["models/old/b.safetensors", NAME]),
        ):
            remove_objects(repo)
            said(repo, "fetch", *options)
            assert objects(repo) == set().union(*(named(repo, path, "HEAD") for path in expected)), options
        assert said(repo, "fetch", "-I", "nothing") == "There is nothing to fetch: no stored checkpoint matches."

    def test_recent(self, repo: GitSandbox) -> None:
        def commit(branch: str, seed: int, date: str) -> None:
            repo("switch", "-q", "-c", branch, "main")
            repo.write(NAME, model(seed))
            repo("add", "-A")
            repo.run("commit", "-q", "-m", branch, env={"GIT_COMMITTER_DATE": date})

        commit("stale", 11, "2020-01-01T00:00:00Z")
        commit("fresh", 12, "")
        repo("switch", "-q", "main")
        said(repo, "push", "--all")
        remove_objects(repo)
        said(repo, "fetch", "--recent")
        assert objects(repo) == named(repo, NAME, "main") | named(repo, NAME, "fresh")

    def test_a_dry_run(self, repo: GitSandbox) -> None:
        assert "would fetch 2 objects" in said(repo, "fetch", "--dry-run")
        assert not objects(repo)
        assert json.loads(said(repo, "fetch", "--dry-run", "--json"))["transferred"] == 2

    def test_what_the_remote_does_not_have(self, repo: GitSandbox, server: GitSandbox) -> None:
        one = sorted(needed(repo))[0]
        for path in (server.path / "lfs").rglob(one):
            path.unlink()
        assert f"origin does not have 1 of 2 objects: {one[:12]}" in complaint(repo, "fetch", "origin")
        assert one[:12] in complaint(repo, "fetch")
        assert objects(repo) == set(needed(repo)) - {one}, "the rest has arrived"

    def test_in_a_bare_repository(self, repo: GitSandbox, tmp_path: Path) -> None:
        repo("clone", "-q", "--bare", str(repo.path), str(tmp_path / "bare.git"))
        bare = GitSandbox(tmp_path / "bare.git")
        said(bare, "fetch", str(tmp_path / "server.git"), "main")
        assert objects(bare) == named(repo, NAME, "HEAD")
        assert "no work tree" in complaint(bare, "pull")


class TestPull:
    @pytest.fixture
    def clone(self, repo: GitSandbox, tmp_path: Path) -> GitSandbox:
        """A clone that was made without theta."""
        repo.write("deep/second.safetensors", ONE)
        repo.commit_all("second")
        repo("push", "-q", "origin", "main")
        repo("clone", "-q", "-b", "main", str(tmp_path / "server.git"), str(tmp_path / "clone"))
        clone = GitSandbox(tmp_path / "clone")
        assert (clone.path / NAME).read_bytes().startswith(b"theta-manifest")
        clone("config", "filter.theta.process", "git-theta filter-process")
        clone("config", "filter.theta.required", "true")
        return clone

    def test_completes_a_clone(self, clone: GitSandbox) -> None:
        text = said(clone, "pull")
        assert text.startswith("fetched ")
        assert f"written {NAME}" in text
        assert (clone.path / NAME).read_bytes() == TWO
        assert (clone.path / "deep" / "second.safetensors").read_bytes() == ONE
        assert clone("status", "--porcelain") == ""

    def test_some_paths_from_a_subdirectory(self, clone: GitSandbox) -> None:
        deep = GitSandbox(clone.path / "deep")
        said(deep, "pull", "origin", "second.safetensors")
        assert (clone.path / "deep" / "second.safetensors").read_bytes() == ONE
        assert (clone.path / NAME).read_bytes().startswith(b"theta-manifest")
        assert objects(clone) == named(clone, "deep/second.safetensors")

    def test_a_path_without_a_remote(self, clone: GitSandbox) -> None:
        said(clone, "pull", "deep")
        assert (clone.path / "deep" / "second.safetensors").read_bytes() == ONE
        assert (clone.path / NAME).read_bytes().startswith(b"theta-manifest")

    def test_json(self, clone: GitSandbox) -> None:
        result = json.loads(said(clone, "pull", "--json"))
        assert result["fetched"]["transferred"] == len(objects(clone))
        assert {item["path"]: item["action"] for item in result["checkpoints"]} == {
            NAME: "written",
            "deep/second.safetensors": "written",
        }

    def test_although_fetching_on_demand_is_off(self, clone: GitSandbox) -> None:
        clone("config", "theta.fetch", "never")
        said(clone, "pull")
        assert (clone.path / NAME).read_bytes() == TWO


class TestGcWithARemote:
    """What is not in use may stay with a remote alone, if that has it for sure."""

    @pytest.fixture(params=["a folder", "a server"])
    def repo(
        self, request: pytest.FixtureRequest, two_versions: GitSandbox, bare: Callable[..., GitSandbox]
    ) -> GitSandbox:
        """Versions 1, 2 and 3, of which the last is checked out, all with objects of their own."""
        url = str(bare().path) if request.param == "a folder" else request.getfixturevalue("lfs_server").url()
        two_versions("remote", "add", "origin", url)
        two_versions.write(NAME, model(30))
        two_versions.commit_all("version 3")
        return two_versions

    def gone(self, repo: GitSandbox, *arguments: str) -> set[str]:
        """Objects that were deleted."""
        before = objects(repo)
        said(repo, "gc", "--grace", "0", *arguments)
        return before - objects(repo)

    def test_only_what_the_remote_has_and_nothing_in_use(self, repo: GitSandbox) -> None:
        assert self.gone(repo, "--verify-remote") == set(), "the remote has nothing yet"
        said(repo, "push", "origin", "HEAD~1")
        old = named(repo, NAME, "HEAD~1") - named(repo, NAME, "HEAD")
        assert self.gone(repo) == set(), "only if it is asked for"
        assert self.gone(repo, "--verify-remote", "origin") == old != set()
        assert objects(repo) >= named(repo, NAME, "HEAD")
        repo("switch", "-q", "--detach", "HEAD~1")
        assert (repo.path / NAME).read_bytes() == TWO, "it comes back when it is needed"

    def test_a_dry_run_and_the_age(self, repo: GitSandbox) -> None:
        said(repo, "push", "--all")
        before = objects(repo)
        assert "that origin has" in said(repo, "gc", "--grace", "0", "--dry-run", "--verify-remote")
        said(repo, "gc", "--verify-remote")
        assert objects(repo) == before, "younger than the grace period"

    def test_other_work_trees_stashes_and_the_index_are_in_use(self, repo: GitSandbox, tmp_path: Path) -> None:
        repo("worktree", "add", "-q", str(tmp_path / "tree"), "HEAD~2")
        repo.write(NAME, model(31))
        repo("stash", "-q")
        repo.write(NAME, TWO)
        repo("add", NAME)
        said(repo, "push", "--all")
        repo("theta", "push", "origin", "refs/stash")
        assert self.gone(repo, "--verify-remote") == set()

    def test_a_remote_that_cannot_be_reached(self, repo: GitSandbox, tmp_path: Path) -> None:
        repo("remote", "set-url", "origin", "http://127.0.0.1:1/x.git")
        before = objects(repo)
        assert "origin (http://127.0.0.1:1/x.git) cannot be asked about 1 object" in complaint(
            repo, "gc", "--grace", "0", "--verify-remote"
        )
        assert objects(repo) == before


def test_gc_reads_what_a_folder_has(repo: GitSandbox, server: GitSandbox) -> None:
    repo.write(NAME, model(30))
    repo.commit_all("version 3")
    said(repo, "push", "--all")
    old = sorted(named(repo, NAME, "HEAD~1") - named(repo, NAME, "HEAD"))
    bad = old[0]
    path = server.path / "lfs" / "objects" / bad[:2] / bad[2:4] / bad
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    said(repo, "gc", "--grace", "0", "--verify-remote")
    assert bad in objects(repo), "the copy there is damaged, so this one stays"
    assert not set(old[1:]) & objects(repo)


def test_env_shows_where_objects_are(repo: GitSandbox, server: GitSandbox, lfs_server: LfsServer) -> None:
    repo("remote", "add", "web", lfs_server.url())
    found = json.loads(said(repo, "env", "--json"))["repository"]["endpoints"]
    web = f"http://***@127.0.0.1:{lfs_server.port}/{lfs_server.group}/repo.git"
    assert found == [
        {"remote": remote, "push": push, "address": address, "through": through}
        for remote, address, through in (("origin", str(server.path), "copy"), ("web", web, "git-lfs"))
        for push in (False, True)
    ]
    assert f"web write {web}  (git-lfs)" in said(repo, "env")
