"""``%theta merge``, ``%%theta evaluate`` and ``%theta sweep`` in a real IPython shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checks import assert_quiet
from tests.jupyter.conftest import Shell, new_shell
from tests.merging.conftest import AVERAGE, NAME, content, recipe_of, repo, same
from theta_nb.engine.merging.session import MergeSession

__all__ = ["new_shell", "repo"]

EVALUATION = """%%theta evaluate closeness
import numpy as np

def closeness(state):
    return {"norm": float(np.linalg.norm(np.asarray(state["layer.2.weight"]))), "count": len(state)}
"""


@pytest.fixture
def shell(new_shell: Callable[..., Shell], repo: GitSandbox) -> Shell:
    return new_shell(repo.path)


def test_open_look_choose_sweep_and_commit(shell: Shell, repo: GitSandbox) -> None:
    session = shell(f"%theta merge theirs {NAME}")
    assert isinstance(session, MergeSession)
    shown = shell.shown(session)
    assert "1 wait for a choice" in shown["text/plain"]
    assert "<td><code>layer.2.weight</code></td>" in shown["text/html"]
    assert shell("%theta merge --method ties --density 0.5") is session
    shell(EVALUATION)
    assert "closeness is the evaluation 'closeness'" in shell.printed
    made = shell("%theta sweep closeness density=0.2,0.5,1 --metric norm --smallest --use-best")
    assert [one.settings.default.parameters["density"] for one in made] == [0.2, 0.5, 1]
    best = min(made, key=lambda one: one.metrics["norm"])
    assert session.settings == best.settings
    assert f"{best.number} *" in shell.shown(made)["text/plain"]
    assert "count" in shell.shown(made)["text/html"]
    [one] = shell("%theta evaluate closeness")
    assert one.number == 4
    shell("%theta merge --method average")
    result = shell("%theta merge --continue -m 'Merge theirs'")
    assert (result.action, result.subject) == ("merged", "Merge theirs")
    assert "layer" not in shell.shown(result)["text/plain"]
    assert same(content(repo), AVERAGE)
    assert repo("log", "-1", "--format=%P").split() == repo("rev-parse", "HEAD~1", "theirs").split()
    assert "no merge is open" in shell.fails("%theta evaluate closeness")[1]
    assert_quiet(repo)


def test_measured_results_are_kept_with_the_commit(shell: Shell, repo: GitSandbox) -> None:
    shell("%theta merge theirs --method linear")
    shell(EVALUATION)
    shell("%theta evaluate closeness")
    shell("%theta merge -m 'Merge theirs'")
    assert "Theta-Metric: count=6.0" in repo("log", "-1", "--format=%(trailers)")
    assert f"Theta-Merge: {NAME}: linear(" in repo("log", "-1", "--format=%(trailers)")


def test_at_once(shell: Shell, repo: GitSandbox) -> None:
    result = shell("%theta merge theirs others --method linear -m 'All of them'")
    assert result.action == "merged"
    assert len(repo("log", "-1", "--format=%P").split()) == 3


def test_a_conflict_of_git_is_resumed(shell: Shell, repo: GitSandbox) -> None:
    repo.run("merge", "theirs", check=False)
    session = shell("%theta merge")
    assert session.open == ("layer.2.weight",)
    assert shell("%theta merge --method linear") is session
    result = shell("%theta merge --continue")
    assert result.action == "merged"
    assert same(content(repo), AVERAGE)
    assert recipe_of(repo)
    assert "Merge branch 'theirs'" in result.subject


def test_what_is_wrong_is_one_line(shell: Shell, repo: GitSandbox) -> None:
    for line, said in {
        "%theta merge": "no merge is open",
        "%theta sweep x t=1": "no merge is open",
        "%theta merge nowhere": "neither a commit nor a file",
        "%theta merge theirs --method tise": "Did you mean 'ties'",
        "%theta merge theirs --density 0.3": "without a method",
        "%theta merge main": "part of HEAD already",
        "%%theta evaluate f\nx = 1": "defines no function",
    }.items():
        text = shell.fails(line)[1]
        assert said in text
        assert "Traceback" not in text
    shell("%theta merge theirs --method slerp")
    assert "no evaluation is called 'f'" in shell.fails("%theta sweep f t=0,1")[1]
    shell("%%theta evaluate f\ndef f(state): return 'good'")
    assert "must return a number" in shell.fails("%theta sweep f t=0,1")[1]
    assert "is no NAME=VALUE" in shell.fails("%theta sweep f t")[1]
    assert "'model' is no model" in shell.fails("%theta evaluate f --into model")[1]
    assert shell("%theta merge").settings.default.method == "slerp"


def test_a_cell_that_is_no_python_is_shown_once(shell: Shell) -> None:
    text = shell.fails("%%theta evaluate f\ndef f(:\n    return 1")[1]
    assert "SyntaxError" in text
    assert "During handling" not in text


def test_a_session_of_another_head_is_not_gone_on_with(shell: Shell, repo: GitSandbox) -> None:
    shell("%theta merge theirs --method linear")
    repo.write("notes.txt", b"more\n")
    repo.commit_all("more")
    assert "no merge is open" in shell.fails("%theta merge")[1]


def test_a_model_takes_the_results(shell: Shell, tmp_path: Path) -> None:
    shell("import numpy as np, theta_nb\nstate = theta_nb.Repository('.').load('m.safetensors')")
    shell("%theta merge theirs --method slerp")
    shell("%%theta evaluate mean\ndef mean(state): return float(state['layer.2.weight'].mean())")
    made = shell("%theta sweep mean t=0,1 --into state")
    assert len({one.metrics["score"] for one in made}) == 2


def test_an_interrupted_sweep_keeps_what_it_has_and_everything_else_as_it_was(shell: Shell) -> None:
    shell("import signal, numpy as np, theta_nb\nstate = theta_nb.Repository('.').load('m.safetensors')")
    session = shell("%theta merge theirs --method slerp --t 0.5")
    shell(
        "%%theta evaluate mean\ncalls = []\ndef mean(state):\n    calls.append(1)\n"
        "    if len(calls) == 3: signal.raise_signal(signal.SIGINT)\n"
        "    return float(state['layer.2.weight'].mean())"
    )
    before = session.settings
    error, shown = shell.fails("%theta sweep mean t=0,0.1,0.2,0.3,0.4 --into state")
    assert isinstance(error, KeyboardInterrupt)
    *table, last = shown.strip().splitlines()
    assert last.endswith(" stopped after 2 of 5 evaluations, which are kept; what is chosen is as before")
    assert [line.split()[:2] for line in table if "slerp" in line] == [["1", "slerp(t=0)"], ["2", "slerp(t=0.1)"]]
    assert session.settings is before
    assert len(session.tries) == 2
    state, chosen = shell("state"), session.arrays()
    assert all(np.array_equal(state[name].numpy(), x) for name, x in chosen.items()), "the model holds what is chosen"
    made = shell("%theta sweep mean t=0,0.1 --into state --use-best")
    assert [one.number for one in made] == [3, 4]
    chosen = session.arrays()
    assert session.settings is not before
    assert all(np.array_equal(state[name].numpy(), x) for name, x in chosen.items())


def test_evaluations_that_diverged_are_never_the_best(shell: Shell) -> None:
    shell("%theta merge theirs --method slerp")
    shell(
        "%%theta evaluate gain\ncalls = []\ndef gain(state): calls.append(1); return 1e400 if len(calls) == 2 else 0.5"
    )
    made = shell("%theta sweep gain t=0,0.1,0.2")
    assert made.best == 1
    shell("%%theta evaluate gain\ndef gain(state): return float('nan')")
    assert "none of 2 tries gave a finite score" in shell.fails("%theta sweep gain t=0,0.1")[1]


def test_completion(shell: Shell) -> None:
    assert "theirs" in shell.completions("%theta merge th")
    assert "ties" in shell.completions("%theta merge theirs --method ti")
    assert "sweep" in shell.completions("%theta sw")
