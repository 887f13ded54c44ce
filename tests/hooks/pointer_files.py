"""A checkpoint with pointer files, and what they must say."""

from __future__ import annotations

import numpy as np

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet, manifest_of

MODEL = "models/m.safetensors"
RNG = np.random.default_rng(0)
LARGE = {name: RNG.normal(size=(200, 128)).astype(np.float32) for name in ("embed.weight", "head.weight")}
SMALL = {f"layer.{n}.bias": RNG.normal(size=100).astype(np.float32) for n in range(4)}
FIRST = safetensors({**LARGE, **SMALL})
SECOND = safetensors({**LARGE, **SMALL, "embed.weight": LARGE["embed.weight"] + 1})


def pointers(repo: GitSandbox, rev: str = "HEAD") -> dict[str, str]:
    """Object by path of its pointer file in a commit."""
    out = {}
    for path in repo("ls-tree", "-r", "-z", "--name-only", rev, "--", ".git_theta/").split("\0")[:-1]:
        text = repo("cat-file", "blob", f"{rev}:{path}").split("\n")
        assert text[0] == "version https://git-lfs.github.com/spec/v1"
        out[path] = text[1].removeprefix("oid sha256:")
    return out


def assert_in_step(repo: GitSandbox, name: str = MODEL, rev: str = "HEAD") -> None:
    manifest = manifest_of(repo, name, rev)
    found = {path: oid for path, oid in pointers(repo, rev).items() if path.startswith(f".git_theta/{name}/")}
    assert set(found.values()) == set(manifest.objects), "not one pointer for each object"
    for path, oid in found.items():
        assert repo("cat-file", "blob", f"{rev}:{path}").split("\n")[2] == f"size {manifest.objects[oid]}"
        assert (repo.path / path).read_text() == repo("cat-file", "blob", f"{rev}:{path}")
    assert_quiet(repo)
