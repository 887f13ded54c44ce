"""The filter against a git that dies, talks nonsense, or sends something else than the file on the disk."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import model, noise, pytorch, safetensors
from tests.git.checks import theta_dir
from tests.git.filter_client import FilterClient
from tests.git.objects import assert_sound, flip, largest
from theta_nb.manifest.text import parse

BIG = 3 * 2**20
"""More than the pipes between git and the filter hold: who has sent this much knows that the filter has read some."""


def big_safetensors(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    return safetensors({"a": rng.normal(size=(300, 1000)).astype(np.float32), "b": rng.normal(size=(1000, 500))})


def big_pytorch(seed: int = 0) -> bytes:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return pytorch(
        {"a": torch.randn(300, 1000, generator=generator), "b": torch.randn(1000, 1000, generator=generator)}
    )


def big_opaque(seed: int = 0) -> bytes:
    return noise(5 * 2**20, seed)


FILES: dict[str, Callable[[int], bytes]] = {
    "m.safetensors": big_safetensors,
    "m.pt": big_pytorch,
    "opaque.pt": big_opaque,
}


def assert_rebuilds(repo: GitSandbox, name: str, *pairs: tuple[bytes, bytes]) -> None:
    """Each manifest gives back what was sent, and no more than that is asked of it."""
    with FilterClient(repo.path) as client:
        client.shake_hands()
        for manifest, sent in pairs:
            answer = client.request("smudge", name, manifest)
            assert answer.status == "success"
            assert len(answer.content) == len(sent)
            assert answer.content == sent, "the manifest rebuilds to something else than git sent"


# --- what is sent is not what lies there ------------------------------------------------------------------------------

DIFFERENCES: dict[str, Callable[[bytes], bytes]] = {
    "the same": lambda data: data,
    "a byte in the middle": lambda data: data[: len(data) // 2] + b"?" + data[len(data) // 2 + 1 :],
    "the last byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "a byte in the last kilobyte": lambda data: data[:-900] + bytes([data[-900] ^ 1]) + data[-899:],
    "one byte longer": lambda data: data + b"!",
    "much longer": lambda data: data + data,
    "one byte shorter": lambda data: data[:-1],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut behind the first buffer": lambda data: data[: 64 * 1024],
    "another beginning": lambda data: b"!" + data[1:],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("name", FILES)
def test_the_content_that_was_sent_is_stored_not_the_file(repository: GitSandbox, name: str) -> None:
    data = FILES[name](0)
    repository.write(name, data)
    manifests = {}
    with FilterClient(repository.path) as client:
        client.shake_hands()
        for what, change in DIFFERENCES.items():
            answer = client.request("clean", name, change(data))
            assert answer.status == "success", f"{what}: {client.stderr}"
            manifests[what] = answer.content
    assert_rebuilds(repository, name, *((manifests[what], change(data)) for what, change in DIFFERENCES.items()))
    assert manifests["nothing"] == b""
    assert len(set(manifests.values())) == len(manifests)


@pytest.mark.parametrize("place", ["missing", "folder", "link", "dangling link", "fifo", "empty"])
def test_a_path_that_is_no_file_is_no_hindrance(repository: GitSandbox, tmp_path: Path, place: str) -> None:
    path, data = repository.path / "m.safetensors", big_safetensors()
    if place == "folder":
        path.mkdir()
    elif place == "link":
        (tmp_path / "other").write_bytes(big_safetensors(1))
        path.symlink_to(tmp_path / "other")
    elif place == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif place == "fifo":
        os.mkfifo(path)
    elif place == "empty":
        path.write_bytes(b"")
    with FilterClient(repository.path) as client:
        client.shake_hands()
        answer = client.request("clean", "m.safetensors", data)
    assert answer.status == "success", client.stderr
    assert set(parse(answer.content).entries) == {"a", "b"}
    assert_rebuilds(repository, "m.safetensors", (answer.content, data))


CHANGES: dict[str, Callable[[Path, bytes], object]] = {
    "cut to nothing": lambda path, data: os.truncate(path, 0),
    "cut in the middle": lambda path, data: os.truncate(path, len(data) // 2),
    "grown": lambda path, data: path.write_bytes(data + b"more"),
    "overwritten": lambda path, data: path.write_bytes(noise(len(data), 9)),
    "replaced": lambda path, data: path.with_name("new").write_bytes(b"x") and path.with_name("new").replace(path),
    "deleted": lambda path, data: path.unlink(),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changes_while_it_is_sent(repository: GitSandbox, name: str) -> None:
    """Whoever writes the file meanwhile, the manifest is that of what came."""
    data = FILES[name](0)
    answers = {}
    with FilterClient(repository.path) as client:
        client.shake_hands()
        for what, change in CHANGES.items():
            path = repository.write(name, data)
            client.begin("clean", name)
            client.send(data[:BIG])
            change(path, data)
            client.send(data[BIG:])
            client.end()
            answers[what] = client.answer()
    assert {what: answer.status for what, answer in answers.items()} == dict.fromkeys(CHANGES, "success")
    assert_rebuilds(repository, name, *((answer.content, data) for answer in answers.values()))


def pickle_last(name: str) -> bytes:
    """A PyTorch file whose pickle comes behind the data, with one tensor called ``name``."""
    import torch

    buffer = io.BytesIO(pytorch({name: torch.arange(BIG // 2, dtype=torch.float32)}))
    out = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(out, "w") as target:
        for info in sorted(source.infolist(), key=lambda info: info.filename.endswith("data.pkl")):
            target.writestr(zipfile.ZipInfo(info.filename), source.read(info))
    return out.getvalue()


def test_names_are_those_of_what_was_sent_even_if_the_file_becomes_it_meanwhile(repository: GitSandbox) -> None:
    old, new = pickle_last("alpha"), pickle_last("omega")
    assert len(old) == len(new)
    assert old[:BIG] == new[:BIG]
    path = repository.write("m.pt", old)
    with FilterClient(repository.path) as client:
        client.shake_hands()
        client.begin("clean", "m.pt")
        client.send(new[:BIG])
        path.write_bytes(new)
        client.send(new[BIG:])
        client.end()
        answer = client.answer()
    assert answer.status == "success", client.stderr
    assert set(parse(answer.content).entries) >= {"omega"}
    assert_rebuilds(repository, "m.pt", (answer.content, new))


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_what_cannot_be_read_back_is_not_stored_wrongly(repository: GitSandbox, damage: str) -> None:
    """The content turns out longer than the file, and a chunk that was consumed already is damaged in the store."""
    data = big_safetensors()
    repository.write("m.safetensors", data)
    repository("add", "m.safetensors")
    oid = largest(repository)
    with FilterClient(repository.path) as client:
        client.shake_hands()
        client.begin("clean", "m.safetensors")
        client.send(data)
        if damage == "flipped":
            flip(repository, oid, -100)
        else:
            Path(theta_dir(repository), "objects", oid[:2], oid[2:4], oid).unlink()
        client.send(b"and more")
        client.end()
        answer = client.answer()
        again = client.request("clean", "m.safetensors", model())
    assert again.status == "success", "the filter does not go on after an error"
    if answer.status == "success":
        assert_rebuilds(repository, "m.safetensors", (answer.content, data + b"and more"))
    else:
        assert answer.status == "error"
        assert "m.safetensors" in client.stderr
        assert "Traceback" not in client.stderr


# --- git dies or talks nonsense ---------------------------------------------------------------------------------------


def serve(repo: GitSandbox, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """What becomes of a filter whose input is ``data`` and then ends."""
    return subprocess.run(
        [sys.executable, "-m", "theta_nb", "filter-process"],
        cwd=repo.path,
        input=data,
        capture_output=True,
        check=False,
    )


HELLO = b"0016git-filter-client\n000eversion=2\n0000"
ABILITIES = b"0015capability=clean\n0016capability=smudge\n0000"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(b"", "started by git", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "not the header of a packet", id="http"),
        pytest.param(b"\0" * 5000, "not the header of a packet", id="zeros"),
        pytest.param(b"ffff" + bytes(70000), "not the header of a packet", id="too-long"),
        pytest.param(b"0001", "not the header of a packet", id="delimiter"),
        pytest.param(b"-001", "not the header of a packet", id="negative"),
        pytest.param(b"0016git-filter-server\n0000", "version 2", id="a-server"),
        pytest.param(b"0016git-filter-client\n000eversion=1\n0000", "version 2", id="version-1"),
        pytest.param(HELLO + ABILITIES + b"000ecommand=x\n0000", "no path name", id="no-path"),
        pytest.param(HELLO + ABILITIES + b"0000", "no command", id="empty-request"),
        pytest.param(HELLO + ABILITIES + b"zzzz", "not the header of a packet", id="nonsense-later"),
    ],
)
def test_nonsense_ends_with_one_sentence(repository: GitSandbox, sent: bytes, said: str) -> None:
    result = serve(repository, sent)
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, f"one sentence, not {lines}"
    assert said in lines[0]
    assert result.returncode == 1


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(HELLO, id="after-hello"),
        pytest.param(HELLO[:10], id="inside-hello"),
        pytest.param(HELLO + ABILITIES + b"0012command=cl", id="inside-a-header"),
        pytest.param(HELLO + ABILITIES + b"0012command=clean\n0012pathname=m.pt\n", id="before-the-content"),
        pytest.param(HELLO + ABILITIES + b"0012command=clean\n0012pathname=m.pt\n00001000abc", id="inside-a-packet"),
        pytest.param(
            HELLO + ABILITIES + b"0012command=clean\n0012pathname=m.pt\n0000" + 80 * (b"1004" + bytes(4096)),
            id="between-packets",
        ),
        pytest.param(HELLO + ABILITIES + b"0013command=smudge\n0012pathname=m.pt\n00001000abc", id="smudge"),
    ],
)
def test_a_git_that_was_killed_is_not_complained_about(repository: GitSandbox, sent: bytes) -> None:
    result = serve(repository, sent)
    assert result.stderr == b"", "nobody is there to read it"
    assert_sound(repository)


def test_an_end_between_requests_is_the_normal_one(repository: GitSandbox) -> None:
    result = serve(repository, HELLO + ABILITIES)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", HELLO + ABILITIES], ids=["nothing", "http", "git"])
def test_outside_of_a_repository_what_git_was_asked_is_not_left_behind(
    isolated_home: Path, tmp_path: Path, sent: bytes
) -> None:
    program = [sys.executable, "-X", "dev", "-m", "theta_nb", "filter-process"]
    result = subprocess.run(program, cwd=tmp_path, input=sent, capture_output=True, check=False)
    (line,) = result.stderr.decode().splitlines()  # no ResourceWarning
    assert line.startswith("theta: ")
    assert result.returncode == 1


def test_a_command_that_was_not_offered_is_an_error_and_the_next_works(repository: GitSandbox) -> None:
    with FilterClient(repository.path) as client:
        client.shake_hands()
        assert client.request("compress", "m.pt", b"").status == "error"
        assert client.request("clean", "m.pt", noise(1000)).status == "success"


def test_empty_packets_within_the_content_are_nothing(repository: GitSandbox) -> None:
    data = noise(200_000)
    with FilterClient(repository.path) as client:
        client.shake_hands()
        client.begin("clean", "m.pt")
        for start in range(0, len(data), 50_000):
            client._all(b"0004")
            client.send(data[start : start + 50_000])
        client._all(b"0004")
        client.end()
        answer = client.answer()
    assert_rebuilds(repository, "m.pt", (answer.content, data))


def test_without_anything_to_complain_to_the_filter_still_works(repository: GitSandbox) -> None:
    content = noise(1000)
    sent = HELLO + ABILITIES + b"0012command=clean\n0012pathname=m.pt\n0000" + b"%04x" % 1004 + content + b"0000"
    result = subprocess.run(
        [sys.executable, "-m", "theta_nb", "filter-process"],
        cwd=repository.path,
        input=sent,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
        check=False,
    )
    assert result.returncode == 0
    assert b"status=success" in result.stdout
    assert b"theta-manifest 1\nformat opaque\n" in result.stdout


def smudging(repo: GitSandbox) -> FilterClient:
    """A filter in the middle of writing a checkpoint that its reader has not begun to read."""
    repo.write("m.pt", noise(20 * 2**20))
    repo("add", "m.pt")
    manifest = repo("cat-file", "blob", ":m.pt").encode()
    client = FilterClient(repo.path)
    client.shake_hands()
    client.begin("smudge", "m.pt")
    client.send(manifest)
    client.end()
    assert client._text() == ["status=success"]
    return client


def test_a_reader_that_leaves_ends_the_filter_quietly(repository: GitSandbox) -> None:
    client = smudging(repository)
    client.stdout.close()
    client.stdin.close()
    assert client.process.stderr is not None
    with client.process.stderr as stderr:
        assert stderr.read() == b""
    client.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("when", ["idle", "cleaning", "smudging"])
def test_a_signal_ends_the_filter_quietly(repository: GitSandbox, number: signal.Signals, when: str) -> None:
    if when == "smudging":
        client = smudging(repository)
    else:
        client = FilterClient(repository.path)
        client.shake_hands()
        if when == "cleaning":
            client.begin("clean", "m.pt")
            client.send(noise(BIG))
    client.process.send_signal(number)
    assert client.process.wait() != 0
    client.close()
    assert client.stderr == ""
    assert_sound(repository)
