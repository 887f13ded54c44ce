"""Remotes behind SSH: git-lfs asks ``git-lfs-authenticate`` there for the address and the key of the LFS server."""

from __future__ import annotations

import base64
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.git.checks import remove_objects
from tests.transfer.conftest import NAME, PASSWORD, TWO, USER, LfsServer
from tests.transfer.objects import needed
from theta_nb.git.endpoints import endpoints_of
from theta_nb.git.places import find_places

# What a server such as Gitolite or Gitea does with a command line that comes in: options of ssh, host, command.
_SSH = """
import json, os, shlex, sys
with open({log!r}, "a") as log:
    print(sys.argv[-1], file=log)
program, *arguments = shlex.split(sys.argv[-1])
if program == "git-lfs-authenticate" and {answers}:
    print(json.dumps({{"href": {href!r}, "header": {{"Authorization": {authorization!r}}}, "expires_in": 3600}}))
elif program in ("git-upload-pack", "git-receive-pack"):
    os.execvp("git", ["git", program.removeprefix("git-"), {folder!r}])
else:
    sys.exit(f"{{program}}: command not found")
"""


@pytest.fixture
def over_ssh(two_versions: GitSandbox, lfs_server: LfsServer, tmp_path: Path) -> GitSandbox:
    """Two versions of a checkpoint, and a remote that is reached by a program in place of ssh."""
    folder = lfs_server.make()
    program = tmp_path / "ssh.py"
    log = tmp_path / "ssh.log"
    log.touch()
    key = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    values = {
        "log": str(log),
        "href": f"{lfs_server.url(login='')}/info/lfs",
        "authorization": f"Basic {key}",
        "folder": str(folder),
    }
    program.write_text(_SSH.format(**values, answers=True))
    # Of the repository, so that nothing but our handing it on can make git-lfs use it.
    two_versions("config", "core.sshCommand", shlex.join([sys.executable, str(program)]))
    two_versions("config", "ssh.variant", "simple")
    two_versions("remote", "add", "origin", "git@example.org:models/repo.git")
    return two_versions


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "ssh.log").read_text().splitlines()


def test_a_push_and_what_comes_back(over_ssh: GitSandbox, lfs_server: LfsServer, tmp_path: Path) -> None:
    (endpoint,) = endpoints_of(find_places(over_ssh.path), "origin", push=True)
    assert not endpoint.is_local
    over_ssh("push", "-q", "origin", "main")
    assert set(lfs_server.objects()) == set(needed(over_ssh))
    assert "git-lfs-authenticate models/repo.git upload" in asked(tmp_path)
    remove_objects(over_ssh)
    over_ssh("theta", "fetch", "origin")
    assert "git-lfs-authenticate models/repo.git download" in asked(tmp_path)
    over_ssh("theta", "fsck")
    assert USER not in over_ssh("theta", "env")


def test_a_clone(over_ssh: GitSandbox, tmp_path: Path) -> None:
    over_ssh("push", "-q", "origin", "main")
    command = over_ssh("config", "core.sshCommand").strip()
    filters = ("-c", "filter.theta.process=git-theta filter-process", "-c", "filter.theta.required=true")
    over_ssh(
        *("-c", f"core.sshCommand={command}", "-c", "ssh.variant=simple"),
        *("clone", "-q", *filters, "git@example.org:models/repo.git", str(tmp_path / "clone")),
    )
    assert (tmp_path / "clone" / NAME).read_bytes() == TWO


def test_a_server_without_lfs(over_ssh: GitSandbox, tmp_path: Path) -> None:
    program = tmp_path / "ssh.py"
    program.write_text(program.read_text().replace("and True:", "and False:"))
    result = over_ssh.run("push", "origin", "main", check=False)
    assert result.returncode != 0
    assert "git-lfs-authenticate: command not found" in result.stderr
    assert "Does that server offer Git LFS?" in result.stderr
    assert "Traceback" not in result.stderr
    assert over_ssh.run("ls-remote", "origin").stdout == "", "the commits went without their weights"
