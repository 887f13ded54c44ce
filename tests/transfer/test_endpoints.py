"""Which place a name, a URL and a configuration mean."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from theta_nb.errors import ThetaError
from theta_nb.git.endpoints import Endpoint, default_remote, endpoints, endpoints_of, mask_credentials, remote_first
from theta_nb.git.places import find_places


def one(repo: GitSandbox, remote: str, *, push: bool = False, cwd: str = ".") -> Endpoint:
    """The only endpoint of a remote."""
    found = endpoints_of(find_places(repo.path / cwd), remote, push=push)
    assert len(found) == 1, f"expected one endpoint, got {found}"
    return found[0]


@pytest.fixture
def repo(tmp_path: Path) -> GitSandbox:
    """A repository without any remote."""
    (tmp_path / "work").mkdir()
    sandbox = GitSandbox(tmp_path / "work")
    sandbox("init", "-q")
    return sandbox


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/models.git",
        "ssh://git@example.org/models.git",
        "git@example.org:models.git",
        "example.org:models",
        "git://example.org/models.git",
        "ext::sh -c something",
    ],
)
def test_urls_of_other_machines_go_through_git_lfs(repo: GitSandbox, url: str) -> None:
    repo("remote", "add", "origin", url)
    endpoint = one(repo, "origin")
    assert (endpoint.is_local, endpoint.url) == (False, url)


@pytest.mark.parametrize("spelling", ["{top}/srv.git", "../srv.git", "file://{top}/srv.git", "../odd/../srv.git"])
def test_paths_are_local_and_become_absolute(repo: GitSandbox, tmp_path: Path, spelling: str) -> None:
    repo("remote", "add", "origin", spelling.format(top=tmp_path))
    assert one(repo, "origin").folder == str(tmp_path / "srv.git")


def test_a_relative_path_starts_from_the_top_also_in_a_subdirectory(repo: GitSandbox, tmp_path: Path) -> None:
    repo("remote", "add", "origin", "../srv.git")
    (repo.path / "deep" / "er").mkdir(parents=True)
    assert one(repo, "origin", cwd="deep/er").folder == str(tmp_path / "srv.git")


def test_escapes_in_file_urls_and_colons_in_paths(repo: GitSandbox, tmp_path: Path) -> None:
    assert one(repo, f"file://{tmp_path}/a%20b%23c.git").folder == f"{tmp_path}/a b#c.git"
    assert one(repo, f"{tmp_path}/a:b.git").folder == f"{tmp_path}/a:b.git"


def test_a_url_or_path_instead_of_a_name(repo: GitSandbox, tmp_path: Path) -> None:
    assert one(repo, "../srv.git", push=True).folder == str(tmp_path / "srv.git")
    assert not one(repo, "https://example.org/x", push=True).is_local


@pytest.mark.parametrize("word", ["nothing", "", "--upload-pack=x"])
def test_what_is_neither_remote_nor_url_is_named(repo: GitSandbox, word: str) -> None:
    with pytest.raises(ThetaError, match="there is no remote"):
        endpoints_of(find_places(repo.path), word, push=True)


def test_instead_of_is_applied_once_and_differs_for_pushing(repo: GitSandbox, tmp_path: Path) -> None:
    repo("remote", "add", "origin", "gh:models")
    repo("config", f"url.{tmp_path}/mirror/.insteadOf", "gh:")
    repo("config", "url.https://example.org/.pushInsteadOf", "gh:")
    assert one(repo, "origin").folder == f"{tmp_path}/mirror/models"
    assert one(repo, "origin", push=True).url == "https://example.org/models"
    assert one(repo, "gh:other").folder == f"{tmp_path}/mirror/other"


def test_every_push_url_counts(repo: GitSandbox, tmp_path: Path) -> None:
    repo("remote", "add", "origin", "https://example.org/models.git")
    for url in ("../a.git", "https://example.com/b.git", "../a.git"):
        repo("remote", "set-url", "--add", "--push", "origin", url)
    places = find_places(repo.path)
    assert [e.url for e in endpoints_of(places, "origin", push=False)] == ["https://example.org/models.git"]
    found = endpoints_of(places, "origin", push=True)
    assert [e.url for e in found] == [str(tmp_path / "a.git"), "https://example.com/b.git"]
    only = endpoints_of(places, "origin", push=True, url="https://example.com/b.git")
    assert [e.url for e in only] == ["https://example.com/b.git"]


@pytest.mark.parametrize(
    ("keys", "fetch", "push"),
    [
        ({"lfs.url": "https://l.org/a"}, "https://l.org/a", "https://l.org/a"),
        ({"lfs.pushurl": "https://l.org/p"}, "", "https://l.org/p"),
        ({"lfs.url": "https://l.org/a", "lfs.pushurl": "https://l.org/p"}, "https://l.org/a", "https://l.org/p"),
        ({"remote.origin.lfsurl": "https://l.org/r"}, "https://l.org/r", "https://l.org/r"),
        ({"remote.origin.lfspushurl": "https://l.org/p"}, "", "https://l.org/p"),
        ({"remote.other.lfsurl": "https://l.org/r"}, "", ""),
        (
            {"lfs.url": "https://l.org/a", "remote.origin.lfsurl": "https://l.org/r"},
            "https://l.org/a",
            "https://l.org/a",
        ),
    ],
)
def test_redirections_agree_with_git_lfs(repo: GitSandbox, keys: dict[str, str], fetch: str, push: str) -> None:
    repo("remote", "add", "origin", "https://example.org/models.git")
    for key, value in keys.items():
        repo("config", key, value)
    assert (one(repo, "origin").lfs_url, one(repo, "origin", push=True).lfs_url) == (fetch, push)
    shown = repo("lfs", "env")
    expected = fetch or "https://example.org/models.git/info/lfs"
    assert f"Endpoint={expected} " in shown or f"Endpoint (origin)={expected} " in shown, shown


def test_a_path_with_a_redirection_to_a_server_goes_through_git_lfs(repo: GitSandbox) -> None:
    repo("remote", "add", "origin", "../srv.git")
    repo("config", "lfs.url", "https://example.org/lfs")
    assert not one(repo, "origin").is_local


def test_a_server_with_a_redirection_to_a_folder_is_local(repo: GitSandbox, tmp_path: Path) -> None:
    repo("remote", "add", "origin", "https://example.org/models.git")
    repo("config", "lfs.url", f"file://{tmp_path}/objects.git")
    assert one(repo, "origin").folder == f"{tmp_path}/objects.git"


class TestLfsconfig:
    """``.lfsconfig``: where it is read, what it may say, what counts more."""

    URL = "[lfs]\n\turl = https://l.org/shared\n"

    @pytest.fixture(autouse=True)
    def origin(self, repo: GitSandbox) -> None:
        repo("remote", "add", "origin", "../srv.git")

    def test_work_tree(self, repo: GitSandbox) -> None:
        repo.write(".lfsconfig", self.URL.encode())
        assert one(repo, "origin").lfs_url == "https://l.org/shared"

    def test_index_where_the_file_is_gone(self, repo: GitSandbox) -> None:
        repo.write(".lfsconfig", self.URL.encode())
        repo("add", ".lfsconfig")
        (repo.path / ".lfsconfig").unlink()
        assert one(repo, "origin").lfs_url == "https://l.org/shared"

    def test_head_of_a_bare_repository(self, repo: GitSandbox, tmp_path: Path) -> None:
        repo.write(".lfsconfig", self.URL.encode())
        repo.commit_all("configure")
        subprocess.run(["git", "clone", "-q", "--bare", repo.path, tmp_path / "bare.git"], check=True)
        assert one(GitSandbox(tmp_path / "bare.git"), "origin").lfs_url == "https://l.org/shared"

    def test_the_users_own_configuration_counts_more(self, repo: GitSandbox) -> None:
        repo.write(".lfsconfig", self.URL.encode())
        repo("config", "--global", "lfs.url", "https://l.org/mine")
        assert one(repo, "origin").lfs_url == "https://l.org/mine"

    def test_it_cannot_say_what_git_lfs_does_not_let_it_say(self, repo: GitSandbox) -> None:
        from theta_nb.git.endpoints import config_lines

        repo.write(
            ".lfsconfig",
            b"[lfs]\n\tstorage = /elsewhere\n\tfetchexclude = *\n[credential]\n\thelper = !evil\n"
            b'[remote "origin"]\n\turl = https://evil.org\n\tlfsurl = https://l.org/r\n'
            b"[core]\n\tsshCommand = evil\n",
        )
        said = [line.key for line in config_lines(find_places(repo.path)) if line.scope == "lfsconfig"]
        assert said == ["remote.origin.lfsurl"]


class TestDefaultRemote:
    """Which remote is meant where none is named."""

    def choose(self, repo: GitSandbox, *, push: bool = False) -> str:
        return default_remote(find_places(repo.path), push=push)

    def test_the_only_one(self, repo: GitSandbox) -> None:
        repo("remote", "add", "somewhere", "../srv.git")
        assert self.choose(repo) == "somewhere"

    def test_origin_among_several(self, repo: GitSandbox) -> None:
        for name in ("backup", "origin", "colleague"):
            repo("remote", "add", name, "../srv.git")
        assert self.choose(repo) == "origin"

    def test_that_of_the_branch(self, repo: GitSandbox) -> None:
        for name in ("backup", "origin"):
            repo("remote", "add", name, "../srv.git")
        repo("config", "branch.main.remote", "backup")
        assert self.choose(repo) == "backup"
        repo("config", "branch.main.pushRemote", "origin")
        assert (self.choose(repo), self.choose(repo, push=True)) == ("backup", "origin")

    def test_a_branch_that_follows_a_local_one(self, repo: GitSandbox) -> None:
        repo("remote", "add", "origin", "../srv.git")
        repo("config", "branch.main.remote", ".")
        assert self.choose(repo) == "origin"

    def test_lfsdefault(self, repo: GitSandbox) -> None:
        for name in ("backup", "origin"):
            repo("remote", "add", name, "../srv.git")
        repo("config", "remote.lfsdefault", "backup")
        assert self.choose(repo) == "backup"

    def test_none(self, repo: GitSandbox) -> None:
        with pytest.raises(ThetaError, match="has no remote"):
            self.choose(repo)
        for name in ("a", "b"):
            repo("remote", "add", name, "../srv.git")
        with pytest.raises(ThetaError, match="none of the remotes a, b"):
            self.choose(repo)


def test_all_endpoints_without_credentials(repo: GitSandbox) -> None:
    repo("remote", "add", "origin", "https://ada:secret@example.org/models.git")
    repo("remote", "add", "b", "https://token@example.org/x?private_token=abc")
    shown = [endpoint.shown for endpoint in endpoints(find_places(repo.path))]
    assert shown == [
        *2 * ["origin (https://***@example.org/models.git)"],
        *2 * ["b (https://***@example.org/x?private_token=***)"],
    ]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://a:b@h/x", "https://***@h/x"),
        ("https://a:p@ss@h/x", "https://***@h/x"),
        ("git@h:x", "git@h:x"),
        ("fetch https://u:p@h/ and http://v@i/", "fetch https://***@h/ and http://***@i/"),
    ],
)
def test_masks(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked


def test_the_remote_among_the_words_of_a_command(repo: GitSandbox, tmp_path: Path) -> None:
    repo("remote", "add", "origin", "../srv.git")
    (tmp_path / "other.git").mkdir()
    (repo.path / "models").mkdir()
    places = find_places(repo.path)
    assert remote_first(places, ["origin", "v1"]) == ("origin", ["v1"])
    assert remote_first(places, ["v1", "origin"]) == ("", ["v1", "origin"])
    assert remote_first(places, ["https://h/x"]) == ("https://h/x", [])
    assert remote_first(places, ["../other.git", "a"]) == ("../other.git", ["a"])
    assert remote_first(places, ["models"]) == ("", ["models"]), "a folder of the work tree is a path"


def test_worktrees_and_other_git_dirs(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = new_repository()
    repo("remote", "add", "origin", "../srv.git")
    repo("worktree", "add", "-q", str(tmp_path / "deep" / "tree"))
    # git starts a relative path of a remote at the top of each work tree.
    assert one(GitSandbox(tmp_path / "deep" / "tree"), "origin").folder == str(tmp_path / "deep" / "srv.git")
    monkeypatch.setenv("GIT_DIR", str(repo.path / ".git"))
    assert one(GitSandbox(repo.path), "origin").folder == str(tmp_path / "srv.git")
