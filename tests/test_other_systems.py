"""What other systems than Linux lack is done otherwise there: the calls that macOS does not have are taken away."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

import pytest

from tests.commands.running import said
from tests.conftest import GitSandbox
from tests.git.checks import assert_quiet
from tests.merging.conftest import AVERAGE, NAME, OURS, THEIRS, content, repo, same
from theta_nb.engine.merging.session import MergeSession
from theta_nb.engine.merging.stored_inputs import FileInput

__all__ = ["repo"]


def refuse(*_: int) -> NoReturn:
    raise OSError(errno.ENOTSOCK, "Socket operation on non-socket")


@pytest.fixture(autouse=True)
def _macos(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fdatasync", "posix_fallocate", "O_TMPFILE", "memfd_create"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "sendfile", refuse)


def test_checkpoints_are_stored_merged_and_checked_out(repo: GitSandbox) -> None:
    said(repo.path, "checkout", "--source", "theirs", NAME)
    assert same(content(repo), THEIRS)
    said(repo.path, "checkout", "--source", "HEAD", NAME)
    assert same(content(repo), OURS)
    said(repo.path, "merge", "theirs", "--method", "linear")
    assert same(content(repo), AVERAGE)
    assert_quiet(repo)


def test_files_are_merged(repo: GitSandbox) -> None:
    files = {}
    for rev in ("main~1", "main", "theirs"):
        said(repo.path, "checkout", "--source", rev, NAME)
        files[rev] = repo.write(f"{rev}.safetensors", (repo.path / NAME).read_bytes())
    base, *inputs = (FileInput(rev, file) for rev, file in files.items())
    session = MergeSession(base, inputs).use("linear")
    session.write(str(repo.path / "merged.safetensors"))
    assert same(content(repo, "merged.safetensors"), AVERAGE)
