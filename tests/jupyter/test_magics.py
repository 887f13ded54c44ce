"""The magic %theta in a real IPython shell: values, display, variables, errors, settings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GitSandbox
from tests.history.conftest import NAME, folder, weights
from tests.jupyter.conftest import Shell
from theta_nb.commands.dispatch import command_names
from theta_nb.errors import NotTrackedError, ThetaError
from theta_nb.jupyter.completion import complete
from theta_nb.report.blame import Blame
from theta_nb.report.checkpoint_diff import CheckpointDiff
from theta_nb.report.history import History

# --- loading ----------------------------------------------------------------------------------------------------------


def test_importing_registers_nothing(new_shell: Callable[..., Shell], tmp_path: Path) -> None:
    shell = new_shell(tmp_path, load=False)
    shell("import theta_nb; theta_nb.Repository")
    assert "theta" not in shell.ip.magics_manager.magics["line"]
    matchers = len(shell.ip.Completer.custom_matchers)
    shell("%load_ext theta_nb")
    assert "theta" in shell.ip.magics_manager.magics["line"]
    shell("%reload_ext theta_nb")
    assert len(shell.ip.Completer.custom_matchers) == matchers + 1, "loaded twice, registered once"
    shell("%unload_ext theta_nb")
    assert "theta" not in shell.ip.magics_manager.magics["line"]
    assert len(shell.ip.Completer.custom_matchers) == matchers
    assert not [item for item in shell.ip.configurables if type(item).__name__ == "Theta"]


def test_loading_is_light() -> None:
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S; ip = S.instance();"
        "before = set(sys.modules); ip.run_line_magic('load_ext', 'theta_nb');"
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before} & "
        "{'torch', 'git', 'matplotlib', 'ipywidgets', 'pandas'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_session_from_nothing(new_shell: Callable[..., Shell], tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path / "new"], check=True)
    shell = new_shell(tmp_path / "new")
    shell("%theta install --local")
    shell('%theta track "*.safetensors"')
    (tmp_path / "new" / NAME).write_bytes(weights())
    [status] = shell("%theta status")
    assert (status.path, status.state) == (NAME, "not stored yet")
    added = shell(f"%theta add {NAME}")
    assert added.added == (NAME,)
    assert shell.shown(added)["text/plain"] == f"added {NAME}"
    made = shell('%theta commit -m "first weights" --metric val_loss=0.5')
    assert (made.branch, made.subject, made.metrics, made.checkpoints) == (
        "main",
        "first weights",
        {"val_loss": 0.5},
        (NAME,),
    )
    assert "val_loss = 0.5" in shell.shown(made)["text/plain"]
    (tmp_path / "new" / NAME).write_bytes(weights(head=1.0))
    [status] = shell("%theta status")
    assert status.changed == ("head.bias", "head.weight")
    assert "~ head.bias" in shell.shown(shell("%theta status"))["text/html"]
    diff = shell("%theta diff")
    assert isinstance(diff, CheckpointDiff)
    assert [change.name for change in diff] == ["head.bias", "head.weight"]
    shell(f"%theta add {NAME}")
    shell("%%theta commit\ntune the head\n\nbecause it helps")
    history = shell("%theta log")
    assert isinstance(history, History)
    assert [step.commit.subject for step in history] == ["tune the head", "first weights"]
    assert not shell("%theta fsck --all").problems
    shell(f"%theta checkout --source HEAD~1 {NAME}")
    assert (tmp_path / "new" / NAME).read_bytes() == weights()


def test_assignment_and_the_last_value(shell: Shell) -> None:
    shell("x = %theta log -n 2")
    assert shell("len(x)") == 2
    assert shell(f"y = %theta blame {NAME} head.*\ny")["head.bias"].commit.subject == "tune the head"
    assert isinstance(shell.ip.user_ns["y"], Blame)


def test_the_same_words_as_the_command_line(shell: Shell) -> None:
    for name in command_names():
        shell(f"%theta {name} --help")
        assert f"%theta {name}" in shell.printed
        assert "git theta" not in shell.printed.replace("'git theta --help'", "")
    assert shell("%theta --version") is None
    assert "theta-nb" in shell.printed


def test_help_does_not_end_the_kernel_and_docstrings_explain(shell: Shell) -> None:
    for line in ("%theta", "%theta -h", "%theta help", "%theta help diff", "%theta diff -h"):
        assert shell(line) is None
        assert "usage: %theta" in shell.printed
    assert "a first session:" in shell.ip.inspector.info(shell.ip.find_magic("theta"))["docstring"]
    example = [
        line for line in shell.ip.find_magic("theta").__doc__.splitlines() if "first weights" in line or "once" in line
    ]
    assert len({line.rindex("  ") for line in example}) == 1, "columns stay aligned"


def test_programs_get_dictionaries(shell: Shell) -> None:
    assert shell("%theta status --json")["checkpoints"][0]["path"] == NAME
    assert shell("%theta diff HEAD~1 HEAD --json")["diffs"][0]["new"]["path"] == NAME


def test_pages_and_markdown(shell: Shell, grown: GitSandbox) -> None:
    assert "| ~ | `encoder.1.bias` |" in shell("%theta diff HEAD~1 HEAD --markdown").data
    assert shell("%theta diff HEAD~1 HEAD --html changes.html").path == "changes.html"
    page = (grown.path / "changes.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "encoder.1.bias" in page
    assert "<script" not in page


def test_from_a_subdirectory(new_shell: Callable[..., Shell], grown: GitSandbox) -> None:
    shell = new_shell(folder(grown, "sub"))
    assert f"../{NAME}" in shell.shown(shell("%theta ls-files"))["text/plain"]
    assert shell(f"%theta diff HEAD~1 HEAD ../{NAME}").new.path == NAME


def test_inside_a_running_event_loop(shell: Shell) -> None:
    cell = """
async def inside():
    import asyncio
    asyncio.get_running_loop()
    return get_ipython().run_line_magic("theta", "log -n 1")

history = await inside()
"""
    shell(cell)
    assert len(shell.ip.user_ns["history"]) == 1


# --- display ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["status", "ls-files", "track", "log", "diff HEAD~1 HEAD", f"blame {NAME}", f"show {NAME}", "fsck", "gc -n", "env",
     "hooks", "checkout", "push -n", "fetch -n", "install --local"],
)  # fmt: skip
def test_every_result_shows_itself(line: str, shell: Shell, grown: GitSandbox, tmp_path: Path) -> None:
    grown("remote", "add", "origin", str(tmp_path / "remote.git"))
    grown("init", "-q", "--bare", str(tmp_path / "remote.git"))
    bundle = shell.shown(shell(f"%theta {line}"))
    assert bundle["text/plain"].strip()
    assert "<object" not in bundle["text/plain"]
    assert "(path=" not in bundle["text/plain"], "no raw data class"
    assert bundle["text/html"].startswith("<div class=")
    assert "\x1b" not in bundle["text/plain"] + bundle["text/html"]


def test_html_is_escaped(new_shell: Callable[..., Shell], repository: GitSandbox) -> None:
    repository.write("<b>x&y.pt", weights())
    repository("add", "-A")
    repository("commit", "-qm", "<script>alert(1)</script>")
    shell = new_shell(repository.path)
    for line in ("status", "ls-files", "log", 'show "HEAD:<b>x&y.pt"', 'blame "<b>x&y.pt"', "diff HEAD"):
        html = shell.shown(shell(f"%theta {line}"))["text/html"]
        assert "<script" not in html
        assert "<b>x" not in html


def test_problems_stand_in_a_table(new_shell: Callable[..., Shell], grown: GitSandbox) -> None:
    for path in (grown.path / ".git" / "theta" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    shell = new_shell(grown.path)
    report = shell("%theta fsck")
    assert report.problems
    assert "<table>" in shell.shown(report)["text/html"]
    assert "missing" in shell.shown(report)["text/plain"]


def test_nothing_to_show_says_so(shell: Shell) -> None:
    listing = shell("%theta diff")
    assert len(listing) == 0
    assert shell.shown(listing)["text/plain"] == "Nothing to show."


# --- variables --------------------------------------------------------------------------------------------------------


def test_variables_and_expressions(shell: Shell) -> None:
    shell("rev = 'HEAD~1'; names = ['encoder.1.*']; i = 1")
    assert shell("%theta diff $rev HEAD --stat").old.label == "HEAD~1"
    assert shell("%theta diff {rev} HEAD --filter {names[0]} --stat").old.label == "HEAD~1"
    assert len(shell("%theta diff HEAD~1 HEAD --stat --filter 'encoder.{i}.*'").parameters) == 2
    assert len(shell("%theta log -n {1 + 1}")) == 2
    shell("message = 'two words'")
    shell("open('model.safetensors', 'ab').close()")
    assert shell("%theta show HEAD@{0}:model.safetensors").path == NAME, "git's braces stay"
    assert shell("%theta show HEAD^{commit}:model.safetensors").path == NAME


def test_variables_within_a_function(shell: Shell) -> None:
    shell("def f(version):\n    return get_ipython().run_line_magic('theta', 'log -n 1 $version')")
    assert shell("f('v2')")[0].commit.subject == "better name"
    shell("def g(version):\n    x = %theta log -n 1 {version}\n    return x")
    assert shell("g('v2')")[0].commit.subject == "better name"


def test_a_value_is_one_word(shell: Shell, grown: GitSandbox) -> None:
    grown.write(NAME, weights(head=4.0))
    shell(f"%theta add {NAME}")
    shell('message = "it\'s two words"')
    assert shell("%theta commit -m {message}").subject == "it's two words"


def test_what_is_being_trained_against_what_is_committed(shell: Shell, grown: GitSandbox) -> None:
    shell(
        "import torch\n"
        "from collections import OrderedDict\n"
        "class Part(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.zeros(8, 16))\n"
        "        self.bias = torch.nn.Parameter(torch.zeros(24))\n"
        "net = torch.nn.ModuleDict({'encoder': torch.nn.ModuleList([Part(), Part()]), 'head': Part()})\n"
        "import theta_nb; net.load_state_dict(theta_nb.Repository('.').load('model.safetensors', rev='HEAD'))\n"
        "with torch.no_grad(): net['head'].bias += 0.5"
    )
    diff = shell("%theta diff HEAD net")
    assert [change.name for change in diff] == ["head.bias"]
    assert diff["head.bias"].statistics.max_abs_delta == pytest.approx(0.5)
    assert [change.name for change in shell("%theta diff net")] == ["head.bias"]
    assert "%theta diff HEAD model" in (shell("%theta diff -h"), shell.printed)[1]
    shell("state = {k: v.clone() for k, v in net.state_dict().items()}")
    assert [change.name for change in shell(f"%theta diff HEAD state {NAME}")] == ["head.bias"]
    assert [change.name for change in shell("%theta diff HEAD {net.state_dict()}")] == ["head.bias"]
    grown.write("other.pt", weights())
    grown("add", "other.pt")
    _, shown = shell.fails("%theta diff HEAD net")
    assert "2 checkpoints could be compared" in shown
    grown("branch", "net")
    _, shown = shell.fails(f"%theta diff HEAD net -- {NAME}")
    assert "'net' is a variable and also a commit here" in shown


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("foo", ThetaError, "'foo' is no command of %theta. '%theta -h' lists"),
        ("stat", ThetaError, "Did you mean '%theta status'?"),
        ("log --foo", ThetaError, "'--foo' is no argument of '%theta log'"),
        ("diff nope", ThetaError, "'nope' is neither a commit nor a file here"),
        ("diff 'open", ThetaError, "open quote"),
        ("diff {undefined}", ThetaError, "{undefined} cannot be put in: NameError"),
        ("add notes.txt", NotTrackedError, "Run '%theta track notes.txt' first."),
        ("commit -m x", ThetaError, "nothing is staged to commit"),
        ("commit", ThetaError, "-m/--message"),
        ("commit -m x --metric a=b", ThetaError, "'a=b' is not NAME=VALUE"),
        ("diff a b c", ThetaError, "'a' is neither"),
        ("diff HEAD HEAD HEAD", ThetaError, "more than two versions"),
        ("diff --html /nowhere/x.html HEAD", ThetaError, "/nowhere/x.html: No such file or directory"),
    ],
)
def test_an_error_is_one_line_and_tb_shows_the_rest(
    line: str, kind: type[ThetaError], words: str, shell: Shell
) -> None:
    error, shown = shell.fails(f"%theta {line}")
    assert isinstance(error, kind)
    assert words in shown
    assert len(shown.strip().splitlines()) == 1, shown
    assert "Traceback" not in shown
    shell("%tb")
    assert "Traceback" in shell.printed
    assert "magics.py" in shell.printed


def test_a_variable_that_holds_no_tensors_is_named(shell: Shell) -> None:
    shell("num = 3")
    _, shown = shell.fails("%theta diff HEAD num")
    assert "The variable num (int) is no module or state dict; '$num' is its text." in shown


def test_errors_can_be_caught(shell: Shell) -> None:
    shell(
        "import theta_nb\n"
        "try:\n    get_ipython().run_line_magic('theta', 'add notes.txt')\n"
        "except theta_nb.ThetaError as error:\n    caught = error.hint"
    )
    assert "git theta track" in shell.ip.user_ns["caught"]


def test_only_a_commit_takes_a_cell(shell: Shell) -> None:
    assert (
        "only '%%theta commit' (the message) and '%%theta evaluate' take a cell" in shell.fails("%%theta status\nx")[1]
    )


def test_outside_of_a_repository(new_shell: Callable[..., Shell], tmp_path: Path) -> None:
    shell = new_shell(tmp_path)
    assert "is not inside a git repository" in shell.fails("%theta status")[1]
    assert shell("%theta env") is not None
    assert complete("diff ma", ".", {}) == ("ma", [])


def test_a_defect_keeps_its_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theta_nb.commands.env.env", lambda *_, **__: 1 / 0)
    error, shown = shell.fails("%theta env")
    assert isinstance(error, ZeroDivisionError)
    assert "Traceback" in shown


# --- settings ---------------------------------------------------------------------------------------------------------


def test_config_sets_defaults(shell: Shell) -> None:
    shell("%config Theta")
    assert "Theta.sort" in shell.printed
    shell("%config Theta.top = 1\n%config Theta.sort = 'size'")
    assert [change.name for change in shell("%theta diff HEAD~1 HEAD")] == ["encoder.1.weight"]
    assert len(shell("%theta diff HEAD~1 HEAD --top 9")) == 2, "what is typed wins"
    shell("%config Theta.measure = False")
    assert shell("%theta diff HEAD~1 HEAD").measured == "structure"
    shell("%config Theta.first_parent = True")
    assert len(shell("%theta log")) == 5
    shell.ip.run_cell("%config Theta.sort = 'colour'")
    assert shell("%theta diff HEAD~1 HEAD --top 9") is not None, "and nothing is broken by it"


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%theta st", ["status"]),
        ("x = %theta sta", ["status"]),
        ("x, y = %theta sta", ["status"]),
        ("%%theta comm", ["commit"]),
        ("1 + 1\n%theta sta", ["status"]),
        ("%theta help unt", ["untrack"]),
        ("%theta diff --so", ["--sort"]),
        ("%theta diff --sort rel", ["relative"]),
        ("%theta diff HEAD~1 tun", ["tuning"]),
        ("%theta diff HEAD~1 mod", [NAME]),
        ("%theta diff v1..tun", ["v1..tuning"]),
        ("%theta diff my_", ["my_model"]),
        ("%theta log v", ["v2", "v1"]),
        ("%theta show v1:ol", ["v1:old.safetensors"]),
        ("%theta show tun", ["tuning:"]),
        (f"%theta show HEAD:{NAME} hea", ["head.bias", "head.weight"]),
        (f"%theta blame {NAME} head.b", ["head.bias"]),
        ("%theta diff HEAD --filter head.b", ["head.bias"]),
        ("%theta checkout --source v1 m", [NAME]),
        ("%theta checkout --source v", ["v2", "v1"]),
        ("%theta push or", ["origin"]),
        ("%theta fsck tu", ["tuning"]),
        ("%theta add new", ["new.pt"]),
        ("%theta untrack '*.p", ["'*.pt'"]),
    ],
)
def test_completion(text: str, expected: list[str], shell: Shell, grown: GitSandbox) -> None:
    grown.write("new.pt", weights())
    grown("remote", "add", "origin", "/nowhere")
    shell("import numpy as np\nmy_model = {'w': np.zeros(3)}\nmy_number = 3")
    found = shell.completions(text)
    assert found == expected


@pytest.mark.parametrize(
    "typed", ["diff HEAD -- my_", "nonsense x", "diff 'open quo", "diff HEAD x.pt --html ch", "zzz"]
)
def test_nothing_is_made_up(typed: str, shell: Shell) -> None:
    """IPython then asks its own matchers."""
    shell("import numpy as np\nmy_model = {'w': np.zeros(3)}")
    assert complete(typed, ".", shell.ip.user_ns)[1] == []


def test_other_lines_complete_as_ever(shell: Shell) -> None:
    shell("thetaspace = 1")
    assert "print(thetaspace" in shell.completions("print(thetas")
    assert "%theta" in shell.completions("%thet")


def test_all_options_of_a_command_are_offered(shell: Shell) -> None:
    found = shell.completions("%theta gc --")
    assert set(found) >= {"--dry-run", "--grace", "--verify-remote", "--json", "--help"}


def test_the_json_of_a_magic_is_that_of_the_command_line(shell: Shell, grown: GitSandbox) -> None:
    command = [sys.executable, "-m", "theta_nb", "log", "--json"]
    out = subprocess.run(command, cwd=grown.path, capture_output=True, text=True, check=True).stdout
    assert shell("%theta log --json") == json.loads(out)
