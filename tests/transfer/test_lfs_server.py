"""Remotes behind a real LFS server, with passwords."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model
from tests.git.checks import objects, remove_objects, theta_dir
from tests.git.objects import assert_sound, flip, largest
from tests.transfer.conftest import NAME, ONE, PASSWORD, TWO, USER, LfsServer
from tests.transfer.objects import named, needed
from tests.transfer.programs import path_without_git_lfs, transfer_agent
from theta_nb.git import download
from theta_nb.git.download import fetch_objects, obtain_objects
from theta_nb.git.errands import Errands
from theta_nb.git.filtering import Filter
from theta_nb.git.places import Places, find_places
from theta_nb.git.transfer_outcome import TransferError
from theta_nb.git.upload import absent_there, push_objects

HELPER = f"!f() {{ test \"$1\" = get && echo 'username={USER}' && echo 'password={PASSWORD}'; }}; f"


def places(repo: GitSandbox) -> Places:
    return find_places(repo.path)


@pytest.fixture
def repo(two_versions: GitSandbox, lfs_server: LfsServer) -> GitSandbox:
    """Two versions of a checkpoint, and a remote on the server."""
    two_versions("remote", "add", "origin", lfs_server.url())
    return two_versions


def uploads(server: LfsServer) -> int:
    """Objects that were sent since the last call; one that git-lfs sent twice counts once."""
    return len({line for line in server.requests() if line.startswith("PUT")})


def test_there_and_back(repo: GitSandbox, lfs_server: LfsServer) -> None:
    wanted = needed(repo)
    seen: list[tuple[int, int]] = []
    report = push_objects(places(repo), "origin", wanted, progress=lambda *x: seen.append(x))
    assert (report.transferred, report.present, report.nbytes) == (len(wanted), 0, sum(wanted.values()))
    assert seen[-1] == (sum(wanted.values()), sum(wanted.values()))
    assert set(lfs_server.objects()) == set(wanted)
    assert uploads(lfs_server) == len(wanted)
    remove_objects(repo)
    seen.clear()
    report = fetch_objects(places(repo), "origin", wanted, progress=lambda *x: seen.append(x))
    assert (report.transferred, report.missing) == (len(wanted), ())
    assert seen == sorted(seen), "progress never goes back"
    assert seen[-1][1] == sum(wanted.values())
    assert objects(repo) == set(wanted)
    assert_sound(repo)
    assert {path.stat().st_mode & 0o777 for path in (theta_dir(repo) / "objects").rglob("*") if path.is_file()} == {
        0o444
    }


def test_a_second_push_sends_nothing(repo: GitSandbox, lfs_server: LfsServer) -> None:
    wanted = needed(repo)
    push_objects(places(repo), "origin", wanted)
    lfs_server.requests()
    report = push_objects(places(repo), "origin", wanted)
    assert (report.transferred, report.present) == (0, len(wanted))
    assert uploads(lfs_server) == 0


def children() -> int:
    """Processes that this one started and has not waited for."""
    return len(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


def end_settling() -> None:
    """Wait for the threads that bring files to the disk."""
    for thread in threading.enumerate():
        if thread.name.startswith("theta-settle"):
            thread.join()


class Text:
    """A manifest as git sends it."""

    def __init__(self, text: str) -> None:
        self._left = text.encode()

    def readinto(self, dest: memoryview, /) -> int:
        count = min(len(dest), len(self._left))
        dest[:count], self._left = self._left[:count], self._left[count:]
        return count

    def push_back(self, data: bytes) -> None:
        self._left = data + self._left


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is brought to the disk from now on."""
    end_settling()
    seen: list[int] = []
    monkeypatch.setattr(download, "to_disk", seen.append)
    return seen


def test_errands_are_done_while_git_lfs_works_and_when_there_is_time(repo: GitSandbox, on_disk: list[int]) -> None:
    wanted = needed(repo)
    push_objects(places(repo), "origin", wanted)
    remove_objects(repo)
    before = children()
    at_work: list[int] = []
    put_off: list[Callable[[], None]] = []
    errands = Errands(lambda: at_work.append(children() - before), put_off.append)
    obtain_objects(places(repo), wanted, errands=errands)
    assert at_work == [1], "git-lfs has been started, and not been waited for"
    assert objects(repo) == set(wanted)
    assert (len(put_off), on_disk) == (1, []), "nobody waits for the disk"
    put_off[0]()
    end_settling()
    assert len(on_disk) == len(wanted)


def test_the_filter_answers_before_it_waits_for_the_disk(repo: GitSandbox, on_disk: list[int]) -> None:
    wanted = needed(repo, "HEAD")
    push_objects(places(repo), "origin", wanted)
    remove_objects(repo)
    filter_ = Filter(places(repo), pytest.fail)
    answer = bytearray()
    write = filter_.smudge(NAME, Text(repo("show", f"HEAD:{NAME}")))
    assert write is not None
    write(answer.extend)
    end_settling()
    assert (bytes(answer), on_disk) == ((repo.path / NAME).read_bytes(), [])
    filter_.close()
    end_settling()
    assert len(on_disk) == len(wanted)


def test_git_lfs_that_only_git_finds(repo: GitSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "git-core"
    inside.mkdir()
    for program in Path(repo("--exec-path").strip()).iterdir():
        (inside / program.name).symlink_to(program)
    (inside / "git-lfs").symlink_to(str(shutil.which("git-lfs")))
    monkeypatch.setenv("PATH", path_without_git_lfs(tmp_path))
    monkeypatch.setenv("GIT_EXEC_PATH", str(inside))
    wanted = needed(repo)
    assert push_objects(places(repo), "origin", wanted).transferred == len(wanted)
    remove_objects(repo)
    assert fetch_objects(places(repo), "origin", wanted).transferred == len(wanted)


def test_the_users_repository_stays_as_it_is(repo: GitSandbox) -> None:
    config = (repo.path / ".git" / "config").read_bytes()
    before = repo("count-objects", "-v")
    push_objects(places(repo), "origin", needed(repo))
    remove_objects(repo)
    fetch_objects(places(repo), "origin", needed(repo))
    assert (repo.path / ".git" / "config").read_bytes() == config
    assert repo("count-objects", "-v") == before, "pointer files are no objects of this repository"
    assert not (repo.path / ".git" / "lfs" / "objects").exists()
    packs = theta_dir(repo) / "carrier" / "objects" / "pack"
    assert list(packs.iterdir()) == [], "they are thrown away"


def test_no_secret_is_written_down(repo: GitSandbox, lfs_server: LfsServer) -> None:
    lfs_server.make()
    repo("-c", "http.extraHeader=X-Token: hush", "push", "-q", "origin", "main")
    remove_objects(repo)
    fetch_objects(places(repo), "origin", needed(repo))
    for path in theta_dir(repo).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PASSWORD.encode() not in content, path
            assert b"hush" not in content, path
            assert lfs_server.url().encode() not in content, path


def test_from_a_worktree_a_subdirectory_and_a_bare_repository(
    repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path
) -> None:
    wanted = needed(repo)
    repo("worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    (tmp_path / "tree" / "deep").mkdir()
    push_objects(find_places(tmp_path / "tree" / "deep"), "origin", wanted)
    assert set(lfs_server.objects()) == set(wanted)
    repo("clone", "-q", "--bare", str(repo.path), str(tmp_path / "bare.git"))
    bare = GitSandbox(tmp_path / "bare.git")
    report = fetch_objects(places(bare), lfs_server.url(), wanted)
    assert report.transferred == len(wanted)


def test_git_variables_of_a_hook_lead_nowhere_else(
    repo: GitSandbox, lfs_server: LfsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, here = needed(repo), places(repo)
    assert here.store
    monkeypatch.chdir(repo.path)
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'lfs.storage'='/nowhere'")
    assert push_objects(here, "origin", wanted).transferred == len(wanted)
    assert set(lfs_server.objects()) == set(wanted)


class TestLogin:
    """Who may and who may not."""

    def test_a_credential_helper_of_the_repository(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("remote", "set-url", "origin", lfs_server.url(login=""))
        repo("config", "credential.helper", HELPER)
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    def test_a_helper_of_the_account_for_one_address(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("remote", "set-url", "origin", lfs_server.url(login=""))
        repo("config", "--global", f"credential.http://127.0.0.1:{lfs_server.port}.helper", HELPER)
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    def test_a_helper_of_this_command_alone(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("remote", "set-url", "origin", lfs_server.url(login=""))
        repo("-c", f"credential.helper={HELPER}", "theta", "push", "--all", "origin")
        assert set(lfs_server.objects()) == set(needed(repo))

    def test_a_helper_from_a_conditional_include(self, repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path) -> None:
        (tmp_path / "included").write_text("")
        repo("config", "--file", str(tmp_path / "included"), "credential.helper", HELPER)
        repo("config", "--global", f"includeIf.gitdir:{repo.path}/.git.path", str(tmp_path / "included"))
        repo("remote", "set-url", "origin", lfs_server.url(login=""))
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    @pytest.mark.parametrize("login", ["", "ada:guessed@"])
    def test_none_or_a_wrong_one(self, repo: GitSandbox, lfs_server: LfsServer, login: str) -> None:
        repo("remote", "set-url", "origin", lfs_server.url(login=login))
        wanted = needed(repo)
        with pytest.raises(TransferError, match=r"did not all reach origin .*credential") as caught:
            push_objects(places(repo), "origin", wanted)
        assert "Log in" in caught.value.hint
        assert "guessed" not in str(caught.value), "credentials do not belong into messages"
        assert set(caught.value.oids) == set(wanted)
        assert not lfs_server.objects()
        repo("remote", "set-url", "origin", lfs_server.url())
        assert push_objects(places(repo), "origin", wanted).transferred == len(wanted), "the next try works"

    @pytest.mark.parametrize("by", ["the environment", "the configuration"])
    def test_a_program_that_knows_it(
        self, repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
    ) -> None:
        program = tmp_path / "askpass"
        program.write_text(f"#!/bin/sh\ncase \"$1\" in Username*) echo {USER};; *) echo '{PASSWORD}';; esac\n")
        program.chmod(0o755)
        if by == "the environment":
            monkeypatch.setenv("GIT_ASKPASS", str(program))
        else:
            repo("config", "core.askPass", str(program))
        repo("remote", "set-url", "origin", lfs_server.url(login=""))
        lfs_server.faults({"kind": "discard"}, {"kind": "status", "code": 200, "method": "POST", "path": "/verify"})
        with pytest.raises(TransferError, match="does not have 2 objects"):
            push_objects(places(repo), "origin", needed(repo))
        lfs_server.faults()
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    def test_at_the_terminal(self, repo: GitSandbox, lfs_server: LfsServer, monkeypatch: pytest.MonkeyPatch) -> None:
        repo("remote", "set-url", "origin", lfs_server.url(login=""))
        monkeypatch.delenv("GIT_TERMINAL_PROMPT")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.chdir(repo.path)
        pid, terminal = pty.fork()
        if not pid:
            os.execvp("git-theta", ["git-theta", "push", "--all", "origin"])
        said = b""
        for question, answer in ((b"Username", USER), (b"Password", PASSWORD)):
            while question not in said:
                said += os.read(terminal, 1024)
            os.write(terminal, answer.encode() + b"\n")
        try:
            while piece := os.read(terminal, 1024):
                said += piece
        except OSError:  # the other side has ended
            pass
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        assert status == 0, said.decode()
        assert said.count(b"Password") == 1, "nobody is asked again to see whether the objects stayed"
        assert set(lfs_server.objects()) == set(needed(repo)), said.decode()


class TestConfiguration:
    """What is configured for the repository holds for its objects."""

    def test_paths_that_git_lfs_is_told_to_leave_out(self, repo: GitSandbox) -> None:
        push_objects(places(repo), "origin", needed(repo))
        for scope in ("--local", "--global"):
            repo("config", scope, "lfs.fetchexclude", "*")
            repo("config", scope, "lfs.fetchinclude", "nothing")
            repo("config", scope, "lfs.skipdownloaderrors", "true")
        remove_objects(repo)
        assert fetch_objects(places(repo), "origin", needed(repo)).transferred == len(needed(repo))

    def test_a_storage_of_git_lfs_elsewhere(self, repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path) -> None:
        for scope in ("--local", "--global"):
            repo("config", scope, "lfs.storage", str(tmp_path / "elsewhere"))
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))
        assert not (tmp_path / "elsewhere").exists()

    def test_a_path_as_remote_with_an_lfs_url(
        self, repo: GitSandbox, lfs_server: LfsServer, bare: Callable[..., GitSandbox]
    ) -> None:
        server = bare()
        repo("remote", "set-url", "origin", str(server.path))
        repo("config", "lfs.url", f"{lfs_server.url('shared')}/info/lfs")
        repo("push", "-q", "origin", "main")
        assert set(lfs_server.objects("shared")) == set(needed(repo))
        assert not (server.path / "lfs").exists()

    def test_lfsconfig(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("remote", "set-url", "origin", "../nowhere.git")
        repo.write(".lfsconfig", f"[lfs]\n\turl = {lfs_server.url('shared')}/info/lfs\n".encode())
        push_objects(places(repo), "origin", needed(repo))
        remove_objects(repo)
        fetch_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects("shared")) == objects(repo) == set(needed(repo))

    def test_the_lfs_url_of_one_remote(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("remote", "add", "second", "https://example.invalid/x.git")
        repo("config", "remote.second.lfsurl", f"{lfs_server.url('second')}/info/lfs")
        push_objects(places(repo), "second", needed(repo))
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects("second")) == set(lfs_server.objects()) == set(needed(repo))

    def test_instead_of(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("config", f"url.{lfs_server.url('x').removesuffix('x.git')}.insteadOf", "srv:")
        repo("remote", "set-url", "origin", "srv:models.git")
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects("models")) == set(needed(repo))

    def test_a_rewriting_that_would_match_again(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        base = lfs_server.url("x").removesuffix("x.git")
        repo("config", f"url.{base}mirror-.insteadOf", base)
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects("mirror-repo")) == set(needed(repo))

    def test_several_push_urls(self, repo: GitSandbox, lfs_server: LfsServer, bare: Callable[..., GitSandbox]) -> None:
        server = bare()
        for url in (lfs_server.url("a"), lfs_server.url("b"), str(server.path)):
            repo("remote", "set-url", "--add", "--push", "origin", url)
        wanted = needed(repo)
        seen: list[tuple[int, int]] = []
        report = push_objects(places(repo), "origin", wanted, progress=lambda *x: seen.append(x))
        assert report.transferred == 3 * len(wanted)
        assert seen == sorted(seen)
        assert set(lfs_server.objects("a")) == set(lfs_server.objects("b")) == set(wanted)
        assert not lfs_server.objects()

    def test_fewer_transfers_at_a_time(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("config", "lfs.concurrenttransfers", "1")
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    def test_bare_repositories_must_be_named(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("config", "--global", "safe.bareRepository", "explicit")
        push_objects(places(repo), "origin", needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    def test_an_older_git_lfs(
        self, repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.transfer.programs import path_with_old_git_lfs

        monkeypatch.setenv("PATH", path_with_old_git_lfs(tmp_path))
        monkeypatch.setattr("theta_nb.git.lfs_client._OIDS_A_CALL", 1)
        wanted = needed(repo)
        assert push_objects(places(repo), "origin", wanted).transferred == len(wanted)
        assert set(lfs_server.objects()) == set(wanted)
        calls = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("push")]
        assert len(calls) == 2 * len(wanted), "once to send each, once to see whether it stayed"

    def test_a_transfer_agent_in_the_place_of_a_server(self, repo: GitSandbox, tmp_path: Path) -> None:
        repo("remote", "set-url", "origin", "http://127.0.0.1:1/x.git")
        repo("config", "lfs.standalonetransferagent", "folder")
        repo("config", "lfs.customtransfer.folder.path", str(transfer_agent(tmp_path)))
        repo("config", "lfs.customtransfer.folder.concurrent", "false")
        wanted = needed(repo)
        assert push_objects(places(repo), "origin", wanted).transferred == len(wanted)
        assert {path.name for path in (tmp_path / "kept").iterdir()} == set(wanted)
        calls = (tmp_path / "calls").read_text().split()
        assert sorted(calls) == sorted(wanted), "none was sent twice"
        assert absent_there(places(repo), "origin", wanted) == set(wanted), "nobody confirms anything"
        remove_objects(repo)
        assert fetch_objects(places(repo), "origin", wanted).transferred == len(wanted)


class TestFaults:
    """What goes wrong is said, nothing is lost, and the next try works."""

    def push_fails(self, repo: GitSandbox, said: str) -> TransferError:
        with pytest.raises(TransferError, match=said) as caught:
            push_objects(places(repo), "origin", needed(repo))
        return caught.value

    def then_it_works(self, repo: GitSandbox, server: LfsServer) -> None:
        server.faults()
        push_objects(places(repo), "origin", needed(repo))
        assert set(server.objects()) == set(needed(repo))
        assert_sound(repo)

    def test_nobody_listens(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("remote", "set-url", "origin", "http://127.0.0.1:1/x.git")
        error = self.push_fails(repo, "connection refused")
        assert "run it again" in error.hint
        with pytest.raises(TransferError, match="connection refused"):
            obtain_objects(places(repo), {"ab" * 32: 5})

    def test_no_lfs_there(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("remote", "set-url", "origin", f"http://127.0.0.1:{lfs_server.port}/nothing")
        assert "Does that server offer Git LFS?" in self.push_fails(repo, "404").hint

    @pytest.mark.parametrize(
        ("code", "hint"), [(403, "ask for access"), (507, "Make room there"), (413, "Make room there"), (500, "run it")]
    )
    def test_refused(self, repo: GitSandbox, lfs_server: LfsServer, code: int, hint: str) -> None:
        repo("config", "lfs.transfer.maxretries", "1")
        lfs_server.faults({"kind": "status", "code": code, "method": "POST", "path": "/batch"})
        assert hint in self.push_fails(repo, r"did not all reach origin .*git-lfs").hint
        self.then_it_works(repo, lfs_server)

    def test_no_room_for_one_object(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("config", "lfs.transfer.maxretries", "1")
        one = sorted(needed(repo))[0]
        lfs_server.faults({"kind": "status", "code": 507, "path": one})
        error = self.push_fails(repo, "1 object .*did not reach .*Insufficient server storage")
        assert "Make room there" in error.hint
        assert error.oids == (one,)
        assert set(lfs_server.objects()) == set(needed(repo)) - {one}, "the others have arrived"
        self.then_it_works(repo, lfs_server)

    @pytest.mark.parametrize(
        ("verified", "said"),
        [
            (422, "did not all reach origin .*status 422"),
            (200, "reports success, but origin .* does not have 2 objects"),
        ],
    )
    def test_what_it_takes_is_not_kept(self, repo: GitSandbox, lfs_server: LfsServer, verified: int, said: str) -> None:
        answer = {"kind": "status", "code": verified, "method": "POST", "path": "/verify"}
        lfs_server.faults({"kind": "discard"}, answer)
        assert set(self.push_fails(repo, said).oids) == set(needed(repo))
        assert not lfs_server.objects()
        self.then_it_works(repo, lfs_server)

    def test_one_is_not_kept(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        one = sorted(needed(repo))[0]
        lfs_server.faults({"kind": "discard", "path": one})
        assert self.push_fails(repo, "1 object .*status 422").oids == (one,)
        answer = {"kind": "status", "code": 200, "method": "POST", "path": "/verify"}
        lfs_server.faults({"kind": "discard", "path": one}, answer)
        assert self.push_fails(repo, f"does not have 1 object .{one[:12]}").oids == (one,)

    def test_one_is_not_kept_once(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        one = sorted(needed(repo))[0]
        answer = {"kind": "status", "code": 200, "method": "POST", "path": "/verify", "count": 1}
        lfs_server.faults({"kind": "discard", "path": one, "count": 1}, answer)
        assert push_objects(places(repo), "origin", needed(repo)).transferred == len(needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    @pytest.mark.parametrize("trouble", ["nobody listens", "a wrong password", "a refusal"])
    def test_what_a_server_has_when_it_does_not_say(
        self, repo: GitSandbox, lfs_server: LfsServer, trouble: str
    ) -> None:
        wanted = needed(repo)
        push_objects(places(repo), "origin", wanted)
        said = {
            "nobody listens": "connection refused",
            "a wrong password": "Authentication",
            "a refusal": "proper access",
        }
        if trouble == "nobody listens":
            repo("remote", "set-url", "origin", "http://127.0.0.1:1/x.git")
        elif trouble == "a wrong password":
            repo("remote", "set-url", "origin", lfs_server.url(login="ada:guessed@"))
        else:
            lfs_server.faults({"kind": "status", "code": 403, "method": "POST", "path": "/batch"})
        with pytest.raises(TransferError, match=f"origin .*cannot be asked about 2 objects.*{said[trouble]}") as caught:
            absent_there(places(repo), "origin", wanted)
        assert set(caught.value.oids) == set(wanted)
        assert "guessed" not in str(caught.value)

    def test_the_connection_breaks_while_sending(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        repo("config", "lfs.transfer.maxretries", "1")
        lfs_server.faults({"kind": "drop", "after": 1000})
        self.push_fails(repo, r"EOF|broken pipe|connection reset")
        self.then_it_works(repo, lfs_server)

    def test_the_connection_breaks_once(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        lfs_server.faults({"kind": "drop", "after": 1000, "count": 1})
        assert push_objects(places(repo), "origin", needed(repo)).transferred == len(needed(repo))
        assert set(lfs_server.objects()) == set(needed(repo))

    def test_one_object_is_missing_there(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        wanted = needed(repo)
        push_objects(places(repo), "origin", wanted)
        one = sorted(wanted)[0]
        lfs_server.objects()[one].unlink()
        assert absent_there(places(repo), "origin", wanted) == {one}
        remove_objects(repo)
        report = fetch_objects(places(repo), "origin", wanted)
        assert report.missing == (one,)
        assert objects(repo) == set(wanted) - {one}, "the others have arrived"
        with pytest.raises(TransferError, match=f"{one[:12]}.*origin does not have 1 object"):
            obtain_objects(places(repo), wanted)

    def test_all_are_missing_there(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        wanted = needed(repo)
        assert absent_there(places(repo), "origin", wanted) == set(wanted)
        remove_objects(repo)
        assert set(fetch_objects(places(repo), "origin", wanted).missing) == set(wanted)

    def test_what_arrives_is_another_thing(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        wanted = needed(repo)
        push_objects(places(repo), "origin", wanted)
        remove_objects(repo)
        one = sorted(wanted)[0]
        lfs_server.faults({"kind": "alter", "method": "GET", "path": one})
        with pytest.raises(TransferError, match="expected OID") as caught:
            fetch_objects(places(repo), "origin", wanted)
        assert caught.value.oids == (one,)
        assert "damaged" in caught.value.hint
        assert objects(repo) == set(wanted) - {one}, "the others have arrived"
        assert_sound(repo)
        lfs_server.faults()
        assert fetch_objects(places(repo), "origin", wanted).transferred == 1
        assert_sound(repo)

    def test_the_connection_breaks_while_receiving(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        wanted = needed(repo)
        push_objects(places(repo), "origin", wanted)
        remove_objects(repo)
        repo("config", "lfs.transfer.maxretries", "1")
        lfs_server.faults({"kind": "drop answer", "method": "GET", "path": "/storage/"})
        with pytest.raises(TransferError, match="did not arrive from origin"):
            fetch_objects(places(repo), "origin", wanted)
        assert_sound(repo)
        lfs_server.faults()
        fetch_objects(places(repo), "origin", wanted)
        assert objects(repo) == set(wanted)
        assert_sound(repo)

    def test_a_damaged_object_is_not_sent(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        bad = largest(repo)
        flip(repo, bad, 100)
        error = self.push_fails(repo, "is damaged in .*cannot be sent")
        assert error.oids == (bad,)
        assert NAME in str(error), "it names the checkpoint"
        assert uploads(lfs_server) == 0

    def test_an_object_that_is_only_there_is_not_missed(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        wanted = needed(repo)
        push_objects(places(repo), "origin", wanted)
        remove_objects(repo)
        lfs_server.requests()
        report = push_objects(places(repo), "origin", wanted)
        assert (report.transferred, report.present) == (0, len(wanted))
        assert not any(line.startswith(("PUT", "GET")) for line in lfs_server.requests()), "only asked, nothing moved"

    def test_missing_here_and_there(self, repo: GitSandbox) -> None:
        wanted = needed(repo)
        remove_objects(repo)
        with pytest.raises(TransferError, match=f"of {NAME} at .* neither here") as caught:
            push_objects(places(repo), "origin", wanted)
        assert set(caught.value.oids) == set(wanted)

    def test_missing_here_but_on_another_remote(
        self, repo: GitSandbox, lfs_server: LfsServer, bare: Callable[..., GitSandbox]
    ) -> None:
        wanted = needed(repo)
        second = bare()
        repo("remote", "add", "second", str(second.path))
        push_objects(places(repo), "second", wanted)
        remove_objects(repo)
        assert push_objects(places(repo), "origin", wanted).transferred == len(wanted)
        assert set(lfs_server.objects()) == set(wanted)

    def test_progress_that_wants_no_more(self, repo: GitSandbox) -> None:
        def stop(_done: int, _total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            push_objects(places(repo), "origin", needed(repo), progress=stop)


class TestGitOverHttp:
    """Whole journeys: push, clone, fetch on demand."""

    @pytest.fixture(autouse=True)
    def filters_everywhere(self, isolated_home: Path) -> None:
        for key, value in (("process", "git-theta filter-process"), ("required", "true")):
            subprocess.run(["git", "config", "--global", f"filter.theta.{key}", value], check=True)

    def test_push_and_clone(self, repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path) -> None:
        lfs_server.make()
        repo("push", "-q", "origin", "main")
        assert set(lfs_server.objects()) == set(needed(repo))
        repo("clone", "-q", "-b", "main", lfs_server.url(), str(tmp_path / "clone"))
        assert (tmp_path / "clone" / NAME).read_bytes() == TWO
        clone = GitSandbox(tmp_path / "clone")
        assert objects(clone) == named(repo, NAME, "HEAD")
        assert clone("status", "--porcelain") == ""

    def test_a_push_without_its_objects_does_not_happen(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        server = GitSandbox(lfs_server.make())
        repo("config", "lfs.transfer.maxretries", "1")
        lfs_server.faults({"kind": "status", "code": 507})
        result = repo.run("push", "origin", "main", check=False)
        assert result.returncode != 0
        assert "Insufficient server storage" in result.stderr
        assert server("for-each-ref") == ""
        lfs_server.faults()
        repo("push", "-q", "origin", "main")

    def test_an_unchanged_branch_asks_nothing(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        lfs_server.make()
        repo("push", "-q", "origin", "main")
        lfs_server.requests()
        repo("push", "-q", "origin", "main")
        assert not [line for line in lfs_server.requests() if "/lfs/" in line]

    def test_only_what_is_new_is_asked_about(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        lfs_server.make()
        repo("push", "-q", "origin", "HEAD~1:refs/heads/main")
        lfs_server.requests()
        repo("push", "-q", "origin", "main")
        new = named(repo, NAME, "HEAD") - named(repo, NAME, "HEAD~1")
        assert uploads(lfs_server) == len(new)

    def test_a_clone_without_weights_pushes_on(self, repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path) -> None:
        lfs_server.make()
        repo("push", "-q", "origin", "main")
        repo.run(
            "clone", "-q", "-b", "main", lfs_server.url(), str(tmp_path / "clone"), env={"GIT_THETA_SKIP_SMUDGE": "1"}
        )
        clone = GitSandbox(tmp_path / "clone")
        clone.write("notes.txt", b"notes")
        clone.commit_all("notes")
        clone("push", "-q", "origin", "main", "main:refs/heads/another")
        assert not objects(clone)

    def test_a_new_branch_of_a_clone_that_is_behind(
        self, repo: GitSandbox, lfs_server: LfsServer, tmp_path: Path
    ) -> None:
        lfs_server.make()
        repo.write(NAME, model(5))
        repo.commit_all("of other tensors")
        repo("push", "-q", "origin", "main")
        repo("clone", "-q", "-b", "main", lfs_server.url(), str(tmp_path / "clone"))
        repo.write(NAME, ONE)
        repo.commit_all("meanwhile")
        repo("push", "-q", "origin", "main")
        clone = GitSandbox(tmp_path / "clone")
        clone("switch", "-q", "-c", "side")
        clone.write(NAME, model(7))
        clone.commit_all("mine")
        lfs_server.requests()
        clone("push", "-q", "origin", "side")
        new = named(clone, NAME, "HEAD") - named(clone, NAME, "HEAD~1")
        assert uploads(lfs_server) == len(new) > 0, "what the remote has of old commits stays there"
        only_there = named(clone, NAME, "main~1") - named(clone, NAME, "main")
        assert only_there, "what no version that was written here needs"
        assert only_there.isdisjoint(objects(clone)), "nor is it fetched"

    def test_another_repository_of_the_server(self, repo: GitSandbox, lfs_server: LfsServer) -> None:
        lfs_server.make()
        lfs_server.make("fork")
        repo("push", "-q", "origin", "main")
        repo("remote", "set-url", "origin", lfs_server.url("fork"))
        repo("push", "-q", "origin", "main")
        assert set(lfs_server.objects("fork")) == set(needed(repo))


def test_the_server_is_a_program_of_its_own() -> None:
    assert "giftless" not in sys.modules, "what the server needs stays out of this process"
