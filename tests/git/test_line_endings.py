"""Line-end conversion of git may reach the manifest, never the checkpoint."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.conftest import ATTRIBUTES, GitSandbox
from tests.git.checks import assert_quiet, manifest_text, warnings
from tests.git.conftest import NAME, ONE, TWO

WITHOUT_TEXT = ATTRIBUTES.removesuffix(" -text")

SETUPS: dict[str, tuple[dict[str, str], str]] = {
    "autocrlf=true": ({"core.autocrlf": "true"}, ATTRIBUTES),
    "autocrlf=input": ({"core.autocrlf": "input"}, ATTRIBUTES),
    "autocrlf=true without -text": ({"core.autocrlf": "true"}, WITHOUT_TEXT),
    "autocrlf=input without -text": ({"core.autocrlf": "input"}, WITHOUT_TEXT),
    "eol=crlf without -text": ({"core.eol": "crlf"}, f"{WITHOUT_TEXT} text"),
    "later * text=auto eol=crlf": ({}, f"{ATTRIBUTES}\n* text=auto eol=crlf"),
    "later * text eol=crlf": ({}, f"{ATTRIBUTES}\n* text eol=crlf"),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_checkpoints_survive_line_end_conversion(new_repository: Callable[..., GitSandbox], setup: str) -> None:
    config, attributes = SETUPS[setup]
    repo = new_repository()
    for key, value in config.items():
        repo("config", key, value)
    repo.write(".gitattributes", f"*.safetensors {attributes}\n".encode())
    # Bytes that look like line ends, and a change between two versions.
    tail = b"\r\n\n\r\x1a\0" * 50
    for data in (ONE + tail, TWO + tail):
        repo.write(NAME, data)
        repo.commit_all("version")
        raw = subprocess.run(
            ["git", "cat-file", "blob", f"HEAD:{NAME}"], cwd=repo.path, capture_output=True, check=True
        ).stdout
        assert raw.startswith(b"theta-manifest 1\n"), "git holds something else than a manifest with LF ends"
        assert b"\r" not in raw
        (repo.path / NAME).unlink()
        assert warnings(repo.run("checkout", NAME).stderr) == []
        assert (repo.path / NAME).read_bytes() == data
        assert_quiet(repo)
    repo("checkout", "-q", "HEAD~1")
    assert (repo.path / NAME).read_bytes() == ONE + tail
    assert_quiet(repo)


def test_manifests_left_in_the_work_tree_survive_line_end_conversion(history: GitSandbox) -> None:
    history.write(".gitattributes", f"*.safetensors {WITHOUT_TEXT} text eol=crlf\n".encode())
    history("commit", "-qam", "crlf")
    (history.path / NAME).unlink()
    history.run("checkout", NAME, env={"GIT_THETA_SKIP_SMUDGE": "1"})
    assert (history.path / NAME).read_bytes().startswith(b"theta-manifest 1\r\n")
    assert_quiet(history)
    history("add", NAME)
    assert history("rev-parse", f":{NAME}") == history("rev-parse", f"two:{NAME}")


def test_a_manifest_with_crlf_ends_in_git_is_read(history: GitSandbox) -> None:
    text = manifest_text(history, NAME).replace("\n", "\r\n").encode()
    oid = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=history.path, input=text, capture_output=True, check=True
    ).stdout
    history("update-index", "--cacheinfo", f"100644,{oid.decode().strip()},{NAME}")
    history("commit", "-qm", "by a tool that converts")
    (history.path / NAME).unlink()
    assert warnings(history.run("checkout", NAME).stderr) == []
    assert (history.path / NAME).read_bytes() == TWO
    assert_quiet(history)
