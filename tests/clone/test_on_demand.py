"""Objects are fetched when they are needed, no sooner, in one batch, and as the settings allow."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import theta_nb
from tests.clone.conftest import FILES, OLD, Fetches, wipe
from tests.conftest import GitSandbox
from tests.git.checkpoints import tensors
from tests.git.checks import assert_quiet, manifest_of, manifest_text, objects, warnings
from tests.git.objects import damage, object_path
from tests.hooks.conftest import needed
from theta_nb.errors import MissingObjectError
from theta_nb.git.on_demand import bring
from theta_nb.git.places import find_places

Clone = Callable[..., GitSandbox]
A = "a.safetensors"

pytestmark = pytest.mark.usefixtures("installed")


# --- theta.fetch ------------------------------------------------------------------------------------------------------


def test_never(clone: Clone, fetches: Fetches) -> None:
    made = clone("-c", "theta.fetch=never")
    (said,) = warnings(made.said)
    assert "theta.fetch is 'never': origin was not asked" in said
    assert fetches.take() == []
    assert_quiet(made)
    with pytest.raises(MissingObjectError, match="is 'never': origin was not asked"):
        theta_nb.Repository(made.path).load(A, rev="old")
    made("theta", "fetch")  # being asked for is another thing
    made("theta", "checkout")
    assert (made.path / A).read_bytes() == FILES[A]


@pytest.mark.parametrize(("number", "said"), [(1, "1 object .0.5 MB. is not here"), (2, "2 objects .1.0 MB. are not")])
def test_how_much_is_missing(clone: Clone, number: int, said: str) -> None:
    made = clone("-c", "theta.fetch=never")
    with pytest.raises(MissingObjectError, match=said):
        bring(find_places(made.path), {f"{oid:064x}": 500_000 for oid in range(number)})


def at_a_terminal(repo: GitSandbox, answer: bytes, *command: str) -> tuple[int, str]:
    """Run git in a session of its own with a terminal, on which ``answer`` is typed when something is asked."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(repo.path)
        os.environ.pop("GIT_TERMINAL_PROMPT", None)
        os.execvp("git", ["git", *command])
    said = b""
    answered = False
    while True:
        try:
            piece = os.read(fd, 1024)
        except OSError:  # the other side has gone
            break
        if not piece:
            break
        said += piece
        if b"[Y/n]" in said and not answered:
            os.write(fd, answer)
            answered = True
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"y\n", True), (b"\n", True), (b"n\n", False), (b"\x04", False)],
    ids=["yes", "return", "no", "end of file"],
)
def test_ask_at_a_terminal(clone: Clone, answer: bytes, expected: bool) -> None:
    made = clone("--no-checkout")
    made("config", "theta.fetch", "ask")
    status, said = at_a_terminal(made, answer, "checkout", "-q", "main")
    assert status == 0, said
    assert said.count("[Y/n]") == 1, f"one question for all files: {said}"
    for name, data in FILES.items():
        wanted = data if expected else manifest_text(made, name).encode()
        assert (made.path / name).read_bytes() == wanted
    assert_quiet(made)


def test_ask_without_a_terminal_is_no(clone: Clone, fetches: Fetches) -> None:
    made = clone("-c", "theta.fetch=ask")
    (said,) = warnings(made.said)
    assert "theta.fetch is 'ask': origin was not asked" in said
    assert "git theta checkout" in said
    assert fetches.take() == []
    assert_quiet(made)
    made("remote", "remove", "origin")
    with pytest.raises(MissingObjectError, match="there is no remote to ask"):
        theta_nb.Repository(made.path).checkpoint(A, rev="old")


# --- what needs objects, and what does not ----------------------------------------------------------------------------


def test_diff_log_and_merging_need_none(clone: Clone, origin: GitSandbox, fetches: Fetches) -> None:
    made = clone()
    made("checkout", "-q", "-b", "side", "old")
    made.write("other.txt", b"text\n")
    changed = tensors(4)
    changed["layer.0.bias"] = changed["layer.0.bias"] + 1
    from tests.git.checkpoints import safetensors

    made.write(A, safetensors(changed))
    made.commit_all("another bias")
    wipe(made)
    fetches.take()
    made("diff", "old", "main", "--stat")
    assert "embed.weight" in made("diff", "old", "main")
    made("log", "-p", "--all")
    made("status")
    made("theta", "ls-files", "-l")
    made.run("merge-tree", "--write-tree", "side", "main", check=False)
    assert fetches.take() == [], "something was fetched that nobody needs"
    assert objects(made) == set()


def test_the_api_fetches_only_what_is_read_in_one_batch(clone: Clone, fetches: Fetches) -> None:
    made = clone("--no-checkout")
    repo = theta_nb.Repository(made.path)
    checkpoint = repo.checkpoint(A, rev="main")
    names = list(checkpoint)
    assert "embed.weight" in names
    assert checkpoint["embed.weight"].shape == (40, 16)
    before = objects(made)
    assert len(before) <= 1, "only the layout is needed to list tensors"
    value = checkpoint["embed.weight"].numpy()
    assert (value == tensors(1)["embed.weight"]).all()
    assert objects(made) <= needed(made, "main", name=A)
    other = repo.checkpoint("b.safetensors", rev="main")
    state = other.state_dict(pattern="b.layer.0.*")
    assert sorted(state) == ["b.layer.0.bias", "b.layer.0.weight"]
    assert objects(made) <= needed(made, "main", name=A) | needed(made, "main", name="b.safetensors")
    assert not objects(made) & (needed(made, "main", name="models/c.safetensors") - needed(made, "main", name=A))


def test_the_api_fetches_one_batch_for_many_tensors(
    new_repository: Callable[..., GitSandbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of objects of their own: large enough not to be packed."""
    import numpy as np

    from tests.git.checkpoints import safetensors
    from theta_nb.git import download

    author = new_repository("author")
    rng = np.random.default_rng(0)
    large = {f"{part}.{n}": rng.normal(size=(256, 128)).astype(np.float32) for part in ("in", "out") for n in range(3)}
    author.write("large.safetensors", safetensors(large))
    author.commit_all("large")
    made = GitSandbox(tmp_path / "clone")
    author("clone", "-q", "--no-checkout", str(author.path), str(made.path))
    asked: list[set[str]] = []
    obtain = download.obtain_objects

    def recording(places: object, wanted: dict[str, int], **options: object) -> object:
        asked.append(set(wanted))
        return obtain(places, wanted, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(download, "obtain_objects", recording)
    checkpoint = theta_nb.Repository(made.path).checkpoint("large.safetensors", rev="HEAD")
    asked.clear()
    state = checkpoint.state_dict(pattern="in.*")
    assert sorted(state) == ["in.0", "in.1", "in.2"]
    manifest = manifest_of(author, "large.safetensors", "HEAD")
    wanted = {ref.oid for name in state for ref in manifest.value_of(name).chunks}
    assert asked == [wanted], "one batch, of these three tensors only"
    asked.clear()
    checkpoint["out.1"].numpy()
    assert asked == [{ref.oid for ref in manifest.value_of("out.1").chunks}]


def test_the_api_says_why_where_objects_cannot_be_had(clone: Clone, origin: GitSandbox) -> None:
    made = clone("--no-checkout")
    origin.path.rename(origin.path.parent / "moved.git")
    repository = theta_nb.Repository(made.path)
    for read in (repository.load, repository.checkpoint):
        with pytest.raises(MissingObjectError) as caught:
            read(A, rev="main")
        assert caught.value.oids
        said = str(caught.value)
        assert A in said
        assert f"origin: there is no repository at {origin.path}" in said
        assert caught.value.oids[0][:12] in said


# --- traps of the delay capability ------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False], ids=["objects there", "objects nowhere"])
def test_commands_that_crash_when_an_answer_is_delayed(clone: Clone, origin: GitSandbox, there: bool) -> None:
    made = clone()
    made("checkout", "-q", "-b", "side", "old")
    made.write(A, FILES["b.safetensors"])
    made("commit", "-qam", "side")
    made("push", "-q", "origin", "side")
    assert made.run("merge", "main", check=False).returncode == 1, "both sides changed every tensor"
    if not there:
        origin.path.rename(origin.path.parent / "moved.git")
    for command in (
        ("checkout", "-m", "--", A),
        ("restore", "--merge", A),
        ("checkout", "--conflict=diff3", "--", A),
        ("checkout", "--theirs", "--", A),
        ("checkout", "--ours", "--", A),
    ):
        wipe(made)
        (made.path / A).unlink()
        result = made.run(*command, check=False)
        assert result.returncode == 0, (command, result.stderr)
        assert "not filtered properly" not in result.stderr
        assert not (made.path / ".git" / "index.lock").exists()
        content = (made.path / A).read_bytes()
        if there:
            assert content == FILES[A if "--theirs" in command else "b.safetensors"], command
        else:
            assert content.startswith(b"theta-manifest "), command


def test_paths_of_the_index_and_of_other_commits(clone: Clone) -> None:
    made = clone()
    for arguments, name, data in (
        (("checkout", "--", "."), A, FILES[A]),
        (("restore", "--source", "old", A), A, OLD),
        (("checkout", "-f"), A, FILES[A]),
        (("checkout", "old", "--", A), A, OLD),
        (("reset", "-q", "--hard"), A, FILES[A]),
    ):
        wipe(made)
        for path in FILES:
            (made.path / path).unlink(missing_ok=True)
        result = made.run(*arguments)
        assert warnings(result.stderr) == [], arguments
        assert (made.path / name).read_bytes() == data, arguments


@pytest.mark.parametrize("length", [0, 1])
def test_what_was_cut_short_with_the_power_is_fetched_again(clone: Clone, fetches: Fetches, length: int) -> None:
    made = clone()
    one = max(needed(made, "HEAD", name=A))
    whole = object_path(made, one).read_bytes()
    damage(made, one, whole[: len(whole) * length // 2])
    fetches.take()
    (made.path / A).unlink()
    made("checkout", "--", A)
    assert (made.path / A).read_bytes() == FILES[A]
    assert (fetches.take(), object_path(made, one).read_bytes()) == ([1], whole)


def test_what_was_cut_short_and_is_nowhere_else_is_corrupt(clone: Clone) -> None:
    made = clone()
    made("remote", "remove", "origin")
    one = max(needed(made, "HEAD", name=A))
    damage(made, one, b"")
    (made.path / A).unlink()  # what is in it is not read from objects
    failed = subprocess.run(["git", "theta", "checkout", A], cwd=made.path, capture_output=True, check=False)
    assert failed.returncode == 1
    assert f"object {one} is shorter than expected" in failed.stderr.decode()
    assert not (made.path / A).exists()


def test_archives_and_filtered_blobs_fetch_too(clone: Clone) -> None:
    made = clone()
    wipe(made)
    shown = subprocess.run(["git", "cat-file", "--filters", f"old:{A}"], cwd=made.path, capture_output=True, check=True)
    assert shown.stdout == OLD
    wipe(made)
    archive = subprocess.run(["git", "archive", "main", A], cwd=made.path, capture_output=True, check=True)
    assert FILES[A] in archive.stdout
