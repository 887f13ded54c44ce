"""Paths of every spelling reach the filter as they are and come back as they were."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import bias, model
from tests.git.checks import warnings
from tests.git.conftest import ONE

PATHS = {
    "blank": b"my model.safetensors",
    "leading-blank": b" m.safetensors",
    "single-quote": b"it's.safetensors",
    "double-quote": b'the "best".safetensors',
    "tab": b"a\tb.safetensors",
    "newline": b"a\nb.safetensors",
    "final-newline": b"m.safetensors\n/x.safetensors",
    "carriage-return": b"a\rb.safetensors",
    "non-ascii": "größe/权重.safetensors".encode(),
    "decomposed": "e\u0301.safetensors".encode(),
    "not-utf-8": b"\xff\xfe.safetensors",
    "equals-sign": b"lr=0.1.safetensors",
    "dash": b"-rf.safetensors",
    "double-dash": b"--.safetensors",
    "glob": b"[a]*?.safetensors",
    "magic": b":(top)m.safetensors",
    "colon": b":m.safetensors",
    "dollar": b"$HOME`id`.safetensors",
    "backslash": b"a\\b.safetensors",
    "percent": b"%f %P.safetensors",
    "deep": b"/".join([b"d"] * 60) + b"/m.safetensors",
    "long": b"x" * 200 + b".safetensors",
    "dots": b"....safetensors",
    "at": b"@{0}.safetensors",
}


def _git(repo: GitSandbox, *arguments: bytes | str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", *arguments],
        cwd=repo.path,
        input=data,
        capture_output=True,
        check=True,
        env={**os.environ, "GIT_LITERAL_PATHSPECS": "1"},
    )


def test_checkpoints_at_all_kinds_of_paths_are_stored_found_again_and_restored(repository: GitSandbox) -> None:
    contents = {path: model(i) for i, path in enumerate(PATHS.values())}
    for path, data in contents.items():
        full = os.path.join(os.fsencode(repository.path), path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(data)
        os.utime(full, (10**9, 10**9))
    repository.commit_all("odd names")
    listed = set(_git(repository, "ls-files", "-z").stdout.split(b"\0"))
    assert set(contents) <= listed
    for path in contents:
        full = os.path.join(os.fsencode(repository.path), path)
        os.utime(full, (10**9 + 1, 10**9 + 1))
    assert repository("status", "--porcelain") == ""

    # With the encodings forgotten, only the index (found by its odd path) keeps the blobs the same.
    stored = _git(repository, "ls-files", "-s", "-z").stdout
    for path in contents:
        os.unlink(os.path.join(os.fsencode(repository.path), path))
    result = repository.run("checkout", "--", ".")
    assert warnings(result.stderr) == []
    wrong = []
    for path, data in contents.items():
        with open(os.path.join(os.fsencode(repository.path), path), "rb") as file:
            if file.read() != data:
                wrong.append(path)
    assert not wrong, f"came back changed: {wrong}"
    repository("add", "--renormalize", ".")
    assert _git(repository, "ls-files", "-s", "-z").stdout == stored


def _with_recipe(text: bytes) -> bytes:
    head, _, rest = text.partition(b"\n\n")
    return head + b'\nrecipe {"kept":true}\n\n' + rest


def test_the_version_in_the_index_is_found_at_every_kind_of_path(repository: GitSandbox) -> None:
    data = model()
    repository.write("plain.safetensors", data)
    repository.commit_all("plain")
    text = _with_recipe(_git(repository, "cat-file", "blob", ":plain.safetensors").stdout)
    oid = _git(repository, "hash-object", "-w", "--stdin", data=text).stdout.strip()
    entries = b"".join(b"100644 " + oid + b"\t" + path + b"\0" for path in PATHS.values())
    _git(repository, "update-index", "-z", "--index-info", data=entries)
    for path in PATHS.values():
        full = os.path.join(os.fsencode(repository.path), path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(data)
    repository("add", ".")
    # Only the index knows the recipe, so a blob without it was made without looking there.
    lost = [
        record.split(b"\t", 1)[1]
        for record in _git(repository, "ls-files", "-s", "-z").stdout.split(b"\0")
        if record.endswith(b"safetensors") and not record.endswith(b"plain.safetensors") and oid not in record
    ]
    assert not lost, f"the index was not found for {lost}"


@pytest.mark.parametrize("key", ["newline", "not-utf-8", "double-quote"])
def test_messages_name_odd_paths_on_one_line(repository: GitSandbox, key: str) -> None:
    path = PATHS[key].replace(b".safetensors", b".pt")
    with open(os.path.join(os.fsencode(repository.path), path), "wb") as file:
        file.write(b"no checkpoint, so the filter says a word")
    stderr = _git(repository, "add", ".").stderr
    said = [line for line in stderr.splitlines() if line.startswith(b"theta: ")]
    assert len(said) == 1
    assert b"stored whole" in said[0]


def test_a_tracked_pattern_with_a_blank(repository: GitSandbox) -> None:
    line = b'"my models/*.bin" filter=theta merge=theta diff=theta -text\n'
    repository.write(".gitattributes", line)
    repository.write("my models/a b.bin", ONE)
    repository.commit_all("blank")
    assert repository("cat-file", "blob", ":my models/a b.bin").startswith("theta-manifest 1\n")
    repository.write("my models/a b.bin", model(layer_0_bias=bias(1.0)))
    assert repository("status", "--porcelain") == ' M "my models/a b.bin"\n'
