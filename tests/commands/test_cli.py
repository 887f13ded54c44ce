"""The edge: help texts, exit statuses, errors, colours, pipes, and what git starts by itself."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

import theta_nb.commands.env
from tests.commands.running import checkpoint, json_of, said, start, theta
from tests.conftest import GitSandbox
from theta_nb import __version__
from theta_nb.commands.dispatch import command_names
from theta_nb.commands.parser import CommandLineParser, UsageError, build_parser
from theta_nb.commands.terminal import Style, human_size, progress_bars

COMMANDS = [name for name in command_names() if name != "help"]

# --- learning from it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [("-h",), ("--help",), ("help",), ()], ids=lambda argv: " ".join(argv) or "nothing")
def test_the_overview_teaches_the_workflow(argv: tuple[str, ...], tmp_path: Path) -> None:
    out = said(tmp_path, *argv)
    session = out.partition("a first session:")[2]
    at = [session.index(words) for words in ("git theta install", "git theta track", "git add", "git commit")]
    assert at == sorted(at), "the first session stands in the order in which it is typed"
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\w", out, re.MULTILINE), f"{name} has a line of its own"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_explained_with_examples(name: str, tmp_path: Path) -> None:
    out = said(tmp_path, name, "-h")
    assert out == said(tmp_path, "help", name)
    description, _, examples = out.partition("examples:\n")
    assert len(description.split("\n\n")[1]) > 60, "a sentence or two say what it does"
    assert f"git theta {name}" in examples
    for example in re.findall(rf"^  git theta ({name}\b.*)$", examples, re.MULTILINE):
        words = shlex.split(re.split(r" {2,}| \| ", example)[0])
        assert build_parser().parse_args(words).command == name, "examples are valid"


def test_help_fits_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = said(tmp_path, "install", "-h").partition("options:")[2].partition("examples:")[0]
    assert max(map(len, options.splitlines())) <= 80


def test_version(tmp_path: Path) -> None:
    assert said(tmp_path, "--version") == f"theta-nb {__version__}\n"


@pytest.mark.parametrize(
    "argv", [["-h"], ["track", "-h"], ["--version"], ["trak"], ["install", "--local"]], ids=" ".join
)
def test_help_and_configuration_import_nothing_heavy(argv: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from theta_nb.commands.cli import run_command_line; run_command_line(sys.argv[1:]);"
        "print(*{'numpy', 'torch', 'IPython', 'git', 'numcodecs', 'tqdm'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stderr.splitlines()[-1] == "", f"{argv} imports what it does not need: {result.stderr}"


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trak", "*.pt"], ["'trak' is no command", "Did you mean 'git theta track'?"]),
        (["lsfiles"], ["Did you mean 'git theta ls-files'?"]),
        (["xyzzy"], ["'xyzzy' is no command", "'git theta -h' lists"]),
        (["help", "stat"], ["Did you mean 'git theta status'?"]),
        (["track", "--foo"], ["'--foo' is no argument of 'git theta track'", "'git theta track -h'"]),
        (["--foo"], ["'--foo' is no argument of 'git theta'"]),
        (["untrack"], ["'git theta untrack' needs PATTERN.", "'git theta untrack -h'"]),
        (["show"], ["'git theta show' needs [REV:]PATH."]),
        (["gc", "--grace", "soon"], ["'soon' is no age", "14d"]),
        (["gc", "--grace", "-1"], ["--grace"]),
        (["install", "--scope", "galaxy"], ["'galaxy' is not one of", "repository"]),
        (["install", "--local", "--global"], ["not allowed with"]),
        (["clean", "a", "b"], ["takes one path"]),
        (["merge-driver", "a"], ["%O %A %B %P"]),
        (["diff-driver"], ["started by git"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_status_two(argv: list[str], words: list[str], tmp_path: Path) -> None:
    result = theta(tmp_path, *argv)
    assert result.status == 2, result
    assert result.out == ""
    assert result.err.startswith("theta: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    "argv",
    [["track"], ["untrack", "x"], ["add", "x"], ["status"], ["ls-files"], ["checkout"], ["fsck"], ["gc"]],
    ids=lambda argv: argv[0],
)
def test_outside_of_a_repository(argv: list[str], tmp_path: Path) -> None:
    result = theta(tmp_path, *argv)
    assert (result.status, result.out) == (1, "")
    assert result.err == f"theta: {tmp_path} is not inside a git repository. Run 'git init' first.\n"


@pytest.mark.parametrize("argv", [["add", "x"], ["status"], ["checkout"]], ids=lambda argv: argv[0])
def test_in_a_bare_repository(argv: list[str], tmp_path: Path) -> None:
    GitSandbox(tmp_path)("init", "-q", "--bare", "bare")
    result = theta(tmp_path / "bare", *argv)
    assert result.status == 1
    assert "there is no work tree here" in result.err


def test_what_an_error_quotes_cannot_command_the_terminal(repository: GitSandbox) -> None:
    result = theta(repository.path, "add", "a\x1b[2J\nb.pt")
    assert result.status == 1
    assert "\x1b" not in result.err
    assert result.err.count("\n") == 1


def test_another_class_of_parser_decides_about_mistakes() -> None:
    class Loud(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise RuntimeError(f"{self.prog}: {message}")

    parser = build_parser(Loud)
    with pytest.raises(RuntimeError, match=r"git theta untrack: .*PATTERN"):
        parser.parse_args(["untrack"])
    with pytest.raises(UsageError, match="PATTERN"):
        build_parser(CommandLineParser).parse_args(["untrack"])


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["gc"], {"grace_days": 14.0, "dry_run": False}),
        (["gc", "--grace", "12h", "-n"], {"grace_days": 0.5, "dry_run": True}),
        (["gc", "--grace", "2w"], {"grace_days": 14.0}),
        (["gc", "--grace=0"], {"grace_days": 0.0}),
        (["gc", "--grace", "1.5d"], {"grace_days": 1.5}),
        (["gc", "--grace", "36m"], {"grace_days": 0.025}),
        (["fsck", "--all"], {"all_": True, "revisions": []}),
        (["fsck", "v1", "v2"], {"all_": False, "revisions": ["v1", "v2"]}),
        (["checkout", "-s", "v1", "-f", "a.pt"], {"source": "v1", "force": True, "paths": ["a.pt"]}),
        (["add", "--renormalize", "a.pt"], {"renormalize": True, "force": False, "paths": ["a.pt"]}),
        (["track", "--", "-x.pt"], {"patterns": ["-x.pt"]}),
        (["install"], {"scope": "global", "skip_smudge": None, "rich_diff": None, "force": False}),
        (["install", "--scope", "repository"], {"scope": "local"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_arguments(argv: list[str], expected: dict[str, object]) -> None:
    arguments = vars(build_parser().parse_args(argv))
    assert {name: arguments[name] for name in expected} == expected


# --- defects ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that stops for a reason nobody thought of, with a password in its message."""

    def broken(*_: object, **__: object) -> NoReturn:
        raise AssertionError("https://ada:hunter2@example.org/ is unthinkable")

    monkeypatch.setattr(theta_nb.commands.env, "env", broken)


@pytest.mark.usefixtures("defect")
def test_a_defect_leaves_a_log_in_the_repository(repository: GitSandbox) -> None:
    result = theta(repository.path, "env", "--json")
    assert result.status == 3
    assert result.err.count("\n") == 1, "no traceback on the terminal"
    log = Path(re.search(r"report (\S+\.log)", result.err)[1])
    assert log.parent == repository.path / ".git" / "theta" / "logs"
    text = log.read_text()
    assert "Traceback" in text
    assert "AssertionError" in text
    assert __version__ in text
    assert "['env', '--json']" in text
    assert "hunter2" not in text


@pytest.mark.usefixtures("defect")
def test_a_defect_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = theta(tmp_path, "env")
    assert result.status == 3
    assert str(tmp_path) in result.err
    assert [path.suffix for path in tmp_path.iterdir()] == [".log"]


# --- pipes and signals ------------------------------------------------------------------------------------------------


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(tmp_path, "-h", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert process.communicate()[1] == b""
    assert process.returncode == 141


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start(tmp_path, "env", stdout=full, stderr=subprocess.PIPE)
        err = process.communicate()[1].decode()
    assert err == "theta: [Errno 28] No space left on device\n"
    assert process.returncode == 1


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_defect(closing: str, tmp_path: Path) -> None:
    command = f'"{sys.executable}" -m theta_nb --version {closing}'
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result
    assert result.stderr == ""


def test_control_c_ends_quietly(repository: GitSandbox, tmp_path: Path) -> None:
    """Interrupted while it waits for git, which tells through a named pipe that it has been started."""
    started = tmp_path / "started"
    os.mkfifo(started)
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\necho now > {started}\nexec sleep 600\n")
    wrapper.chmod(0o755)
    process = start(
        repository.path,
        "status",
        env={"PATH": f"{wrapper.parent}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert started.read_text() == "now\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate()[1] == b"", "no traceback"
    assert process.returncode == 130


# --- terminals --------------------------------------------------------------------------------------------------------


def on_terminal(folder: Path, *argv: str, env: dict[str, str] | None = None) -> str:
    """What a command writes to a terminal that is its standard output and error."""
    master, slave = pty.openpty()
    process = start(folder, *argv, env={"TERM": "xterm", **(env or {})}, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    with contextlib.suppress(OSError):  # how Linux tells that the other side has closed
        while piece := os.read(master, 65536):
            text += piece
    os.close(master)
    process.wait()
    return text.decode()


@pytest.mark.parametrize(
    ("env", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
    ids=["terminal", "NO_COLOR", "empty NO_COLOR", "dumb"],
)
def test_colours_are_for_terminals_that_want_them(env: dict[str, str], coloured: bool, repository: GitSandbox) -> None:
    repository.write("m.pt", checkpoint())
    out = on_terminal(repository.path, "status", env=env)
    assert "m.pt" in out
    assert ("\x1b[31m" in out) == coloured
    assert ("\x1b[31mtheta:" in on_terminal(repository.path, "trak", env=env)) == coloured


@pytest.mark.parametrize(("name", "value"), [("color.ui", "false"), ("color.theta", "never")])
def test_colours_are_git_s_to_forbid(name: str, value: str, repository: GitSandbox) -> None:
    repository.write("m.pt", checkpoint())
    repository("config", name, value)
    assert "\x1b[" not in on_terminal(repository.path, "status")


def test_no_colours_in_pipes_and_json(repository: GitSandbox) -> None:
    repository.write("m.pt", checkpoint())
    process = start(repository.path, "status", stdout=subprocess.PIPE, env={"TERM": "xterm"})
    assert b"\x1b" not in process.communicate()[0]
    assert "\x1b" not in on_terminal(repository.path, "ls-files", "--json")


def test_progress_is_shown_to_a_terminal_only() -> None:
    with progress_bars(io.StringIO())("checking") as progress:
        assert progress is None, "nobody is there to see it"
    master, slave = pty.openpty()
    with open(slave, "w") as stream:
        with progress_bars(stream)("checking") as progress:
            assert progress is not None
            for done in (0, 50, 100):
                progress(done, 100)
        stream.write("end\n")
    out = os.read(master, 65536).decode()
    os.close(master)
    assert out.endswith("end\r\n"), "the line of the bar is free again"


def test_words_for_the_shell() -> None:
    style = Style(prefix="a")
    names = ["a/m.pt", "a/my model.pt", "a/$HOME.pt", "a/it's.pt", "a/line\nbreak.pt", 'a/"q".pt', "b/back\\slash.pt"]
    words = " ".join(style.word(name) for name in names)
    out = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True).stdout
    assert out.decode().split("\0")[:-1] == [os.path.relpath(name, "a") for name in names]


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (10**15, "1.0 PB"),
     (10**19, "10000.0 PB")],
)  # fmt: skip
def test_sizes(nbytes: int, text: str) -> None:
    assert human_size(nbytes) == text


@pytest.mark.parametrize(
    "argv", [["status"], ["ls-files"], ["track"], ["env"], ["fsck"], ["gc", "-n"], ["checkout"], ["merge", "--methods"]]
)
def test_json_is_one_object(argv: Sequence[str], repository: GitSandbox) -> None:
    repository.write(os.fsdecode(b"caf\xe9.pt"), checkpoint())
    repository.commit_all("one")
    assert isinstance(json_of(repository.path, *argv), dict)


# --- what git starts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.pt", "my model.pt", "-dash.pt", "sub/--base.pt", "quo'te.pt"])
def test_single_shot_filters(name: str, repository: GitSandbox) -> None:
    """As configured for programs that do not speak the protocol of long-running filters."""
    repository("config", "--unset", "filter.theta.process")
    repository("config", "filter.theta.clean", "git-theta clean %f")
    repository("config", "filter.theta.smudge", "git-theta smudge %f")
    data = repository.write(name, checkpoint()).read_bytes()
    repository.commit_all("one")
    assert repository("cat-file", "blob", f"HEAD:{name}").startswith("theta-manifest ")
    (repository.path / name).unlink()
    repository("checkout", "--", ".")
    assert (repository.path / name).read_bytes() == data


def test_a_failing_single_shot_filter_refuses_the_file(repository: GitSandbox) -> None:
    repository("config", "--unset", "filter.theta.process")
    repository("config", "filter.theta.clean", "git-theta clean %f")
    repository.write("broken.pt", b"theta-manifest 1\nnonsense\n")
    result = repository.run("add", "broken.pt", check=False)
    assert result.returncode != 0
    assert "theta: " in result.stderr
    assert "Traceback" not in result.stderr
    assert repository("ls-files", "broken.pt") == ""


def test_a_conflict_keeps_ours_and_says_what_to_do(repository: GitSandbox) -> None:
    said(repository.path, "install", "--local")
    repository.write("my model.pt", checkpoint())
    repository.commit_all("base")
    repository("checkout", "-q", "-b", "other")
    repository.write("my model.pt", checkpoint(shifts=(1.0,)))
    repository.commit_all("theirs")
    repository("checkout", "-q", "main")
    ours = repository.write("my model.pt", checkpoint(shifts=(2.0,))).read_bytes()
    repository.commit_all("ours")
    result = repository.run("merge", "other", check=False)
    assert result.returncode == 1
    assert "both sides changed encoder.layer.0.weight" in result.stderr
    assert (repository.path / "my model.pt").read_bytes() == ours


def test_words_may_stand_behind_options(repository: GitSandbox) -> None:
    repository.write("m.safetensors", checkpoint())
    repository.commit_all("first")
    assert repository("theta", "log", "HEAD", "-n", "1", "m.safetensors").startswith("m.safetensors: 1 commit")
    assert repository("theta", "status", "--json", "m.safetensors").count('"path"') == 1
    refused = repository.run("theta", "log", "m.safetensors", "-n", "1", "--foo", check=False)
    assert "'--foo' is no argument" in refused.stderr
