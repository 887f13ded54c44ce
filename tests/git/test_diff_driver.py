"""What plain git shows of checkpoints, with and without the rich driver, in every form that ``git diff`` has."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch, safetensors

NAME = "m.safetensors"


def model(**changed: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {
        f"encoder.layer.{n}.{name}": random.standard_normal(shape).astype("float32")
        for n in range(2)
        for name, shape in (("dense.weight", (8, 4)), ("dense.bias", (8,)), ("norm.weight", (4,)))
    }
    return {**found, **{name.replace("__", "."): value for name, value in changed.items()}}


ONE = model()
TWO = {**ONE, "encoder.layer.1.dense.weight": ONE["encoder.layer.1.dense.weight"] * np.float32(1.5)}


@pytest.fixture
def repo(new_repository: Callable[..., GitSandbox]) -> GitSandbox:
    """Two versions of a checkpoint, and the driver."""
    made = new_repository()
    made("config", "diff.theta.command", "git-theta diff-driver")
    for message, state in (("one", ONE), ("two", TWO)):
        made.write(NAME, safetensors(state))
        made.commit_all(message)
    return made


CHANGED = r"~ encoder\.layer\.1\.dense\.weight  float32 \[8,4\]  0\.500"


def test_between_commits(repo: GitSandbox) -> None:
    out = repo("diff", "HEAD~1", "HEAD")
    assert out.startswith(f"theta diff {NAME}\n1 of 6 parameters modified, ‖Δ‖/‖old‖ 0.500 over what was compared\n")
    assert re.search(f"^{CHANGED}$", out, re.MULTILINE), out
    assert repo("diff", "HEAD", "HEAD") == ""
    back = repo("diff", "HEAD", "HEAD~1")
    assert "0.333" in back, "the other way round it is another share"


def test_work_tree_and_index(repo: GitSandbox) -> None:
    third = {**TWO, "encoder.layer.0.dense.bias": np.zeros(8, "float32")}
    repo.write(NAME, safetensors(third))
    for arguments in (["diff"], ["diff", "HEAD"]):
        out = repo(*arguments)
        assert re.search(r"~ encoder\.layer\.0\.dense\.bias +float32 \[8\] +1\.00", out), out
        assert "1 of 6 parameters modified" in out
    assert repo("diff", "--cached") == ""
    repo("add", NAME)
    assert repo("diff") == ""
    assert "encoder.layer.0.dense.bias" in repo("diff", "--cached")
    assert "2 of 6 parameters modified" in repo("diff", "HEAD~1")


def test_new_and_deleted_files(repo: GitSandbox) -> None:
    repo.write("new.safetensors", safetensors(ONE))
    repo("add", "new.safetensors")
    out = repo("diff", "--cached")
    assert "theta diff new.safetensors\nnew checkpoint, 6 parameters" in out
    assert out.count("\n+ ") == 6
    repo("rm", "-q", NAME)
    assert "checkpoint removed, 6 parameters" in repo("diff", "--cached", "--", NAME)


def test_renamed_files(repo: GitSandbox) -> None:
    repo("mv", NAME, "other.safetensors")
    repo.write("other.safetensors", safetensors({**TWO, "encoder.layer.0.norm.weight": np.ones(4, "float32")}))
    repo("add", "-A")
    out = repo("diff", "--cached", "-M20%")
    assert out.startswith(f"theta diff {NAME} → other.safetensors\nsimilarity index ")
    assert "1 of 6 parameters modified" in out


def test_modes(repo: GitSandbox) -> None:
    (repo.path / NAME).chmod(0o755)
    out = repo("diff")
    assert "mode 100644 → 100755\nno parameter differs" in out


def test_shapes_dtypes_names_and_formats(repo: GitSandbox) -> None:
    state = dict(TWO)
    state["encoder.layer.0.dense.weight"] = np.concatenate([state["encoder.layer.0.dense.weight"]] * 2)
    state["encoder.layer.0.dense.bias"] = state["encoder.layer.0.dense.bias"].astype("float16")
    state["pooled.weight"] = state.pop("encoder.layer.1.norm.weight")
    repo.write(NAME, safetensors(state))
    out = repo("diff")
    assert re.search(r"float32 \[8,4\] → \[16,4\] +0  compared over the first 8 of 16 rows", out), out
    assert re.search(r"float32 → float16 \[8\]", out)
    assert re.search(r"> pooled\.weight .* was encoder\.layer\.1\.norm\.weight", out)
    repo.write(NAME, pytorch({"w": np.ones(2)}))
    assert "format safetensors → pytorch" in repo("diff")


def test_an_unmerged_path(repo: GitSandbox) -> None:
    repo("config", "merge.theta.driver", "git-theta merge-driver %O %A %B %P %L")
    repo("branch", "other", "HEAD~1")
    repo("switch", "-q", "other")
    repo.write(NAME, safetensors({**ONE, "encoder.layer.1.dense.weight": np.zeros((8, 4), "float32")}))
    repo.commit_all("other")
    assert repo.run("merge", "main", check=False).returncode
    for arguments in (["diff", "--cached"], ["diff", "--ours"], ["diff", "--theirs"]):
        assert f"theta diff {NAME}\nunmerged: take a side" in repo(*arguments), arguments
    assert "1 of 6 parameters modified" in repo("diff", "--theirs")


def test_colours_are_those_of_git(repo: GitSandbox) -> None:
    plain = repo("diff", "HEAD~1", "HEAD")
    assert "\x1b" not in plain, "no terminal, no colours"
    coloured = repo("-c", "color.ui=always", "diff", "HEAD~1", "HEAD")
    assert re.sub(r"\x1b\[\d*m", "", coloured) == plain
    assert "\x1b[36m~ encoder.layer.1.dense.weight\x1b[m" in coloured
    own = repo("-c", "color.diff=always", "-c", "color.diff.frag=magenta", "diff", "HEAD~1", "HEAD")
    assert "\x1b[35m~ encoder" in own


def test_manifests_in_the_work_tree(repo: GitSandbox) -> None:
    """With smudging skipped git hands out manifests; missing objects cost the numbers, not the diff."""
    out = repo.run("diff", "HEAD~1", "HEAD", env={"GIT_THETA_SKIP_SMUDGE": "1"}).stdout
    assert re.search(CHANGED, out)
    shutil.rmtree(repo.path / ".git" / "theta")
    out = repo.run("diff", "HEAD~1", "HEAD", env={"GIT_THETA_SKIP_SMUDGE": "1"}).stdout
    assert "1 of 6 parameters modified" in out
    assert "1 parameter is not measured: " in out


def test_from_a_subdirectory_and_relative(repo: GitSandbox) -> None:
    (repo.path / "sub").mkdir()
    inside = GitSandbox(repo.path / "sub")
    inside.write(NAME, safetensors(ONE))
    repo.commit_all("sub")
    inside.write(NAME, safetensors(TWO))
    for arguments in (["diff"], ["diff", "--relative"]):
        assert re.search(CHANGED, inside(*arguments)), arguments
    assert "theta diff m.safetensors\n" in inside("diff", "--relative")


def test_a_checkpoint_that_was_committed_before_it_was_tracked(new_repository: Callable[..., GitSandbox]) -> None:
    repo = new_repository()
    repo("config", "diff.theta.command", "git-theta diff-driver")
    repo("config", "filter.theta.required", "false")
    repo("config", "filter.theta.process", "")
    repo.write(NAME, safetensors(ONE))
    repo.commit_all("raw")
    repo("config", "filter.theta.process", "git-theta filter-process")
    repo.write(NAME, safetensors(TWO))
    assert re.search(CHANGED, repo("diff"))


def test_a_corrupt_manifest_does_not_end_the_diff(repo: GitSandbox) -> None:
    text = repo("cat-file", "blob", f"HEAD:{NAME}")
    broken = repo.run("hash-object", "-w", "--stdin", data=text.replace("float32", "float33").encode()).stdout.strip()
    repo("update-index", "--cacheinfo", f"100644,{broken},{NAME}")
    repo.write("z.safetensors", safetensors(ONE))
    repo("add", "z.safetensors")
    result = repo.run("diff", "--cached")
    first, second = result.stdout.split("theta diff ")[1:]
    assert first.startswith(f"{NAME}\ncannot be compared: {NAME}: ")
    assert "float33" in first
    assert second.startswith("z.safetensors\nnew checkpoint, 6 parameters")
    assert "Traceback" not in result.stderr


def test_log_and_show_stay_text(repo: GitSandbox) -> None:
    for arguments in (["log", "-p", "-1"], ["show"]):
        out = repo(*arguments)
        assert re.search(r"^\+encoder\.layer\.1\.dense\.weight\s+float32", out, re.MULTILINE)
    assert re.search(CHANGED, repo("log", "-p", "-1", "--ext-diff"))
