"""The menu of ``git merge`` in a real terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pexpect
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import assert_quiet
from tests.merging.conftest import AVERAGE, BASE, NAME, OURS, THEIRS, content, recipe_of, same, weights

PROMPT, SCOPE = "theta> ", "or a pattern> "


@pytest.fixture
def terminal(repo: GitSandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., pexpect.spawn]]:
    """Starts git in a terminal of its own."""
    monkeypatch.delenv("GIT_TERMINAL_PROMPT")
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    started: list[pexpect.spawn] = []

    def start(*words: str, **env: str) -> Any:
        child = pexpect.spawn(
            "git",
            list(words),
            cwd=str(repo.path),
            env={**os.environ, "TERM": "xterm", **env},
            encoding="utf-8",
            timeout=120,
            dimensions=(50, 200),
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.close(force=True)


def _ended(child: Any) -> tuple[int, str]:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, child.before


def _three_contested(repo: GitSandbox) -> None:
    """Have both sides change the layers 1, 2 and 3."""
    repo("switch", "-q", "theirs")
    repo.write(NAME, safetensors(weights(1, 2, 3, seed=7)))
    repo("commit", "-qam", "three layers")
    repo("switch", "-q", "main")
    repo.write(NAME, safetensors(weights(0, 1, 2, 3, seed=8)))
    repo("commit", "-qam", "four layers")


def test_one_parameter_is_averaged(repo: GitSandbox, terminal: Callable[..., Any]) -> None:
    child = terminal("merge", "--no-edit", "theirs")
    child.expect("1 parameter changed by both sides")
    child.expect(r"\[1/1\] layer.2.weight  float32 \[16, 24\]")
    child.expect("cosine is .*disagree in sign at .*% of the entries")
    child.expect(PROMPT)
    child.sendline("a")
    status, _ = _ended(child)
    assert status == 0
    assert same(content(repo), AVERAGE)
    assert_quiet(repo)


def test_each_scope(repo: GitSandbox, terminal: Callable[..., Any]) -> None:
    _three_contested(repo)
    child = terminal("merge", "--no-edit", "theirs")
    child.expect(r"\[1/3\] layer.1.weight")
    child.sendline("o")
    child.expect(SCOPE)
    child.sendline("")
    child.expect(r"\[2/3\] layer.2.weight")
    child.sendline("t")
    child.expect(SCOPE)
    child.sendline("nothing.*")
    child.expect("matches none")
    child.expect(PROMPT)
    child.sendline("t")
    child.expect(SCOPE)
    child.sendline("*.2.*")
    child.expect(r"\[3/3\] layer.3.weight")
    child.sendline("ties:density=0.5")
    assert _ended(child)[0] == 0
    found = content(repo)
    assert found["layer.1.weight"].tobytes() == weights(0, 1, 2, 3, seed=8)["layer.1.weight"].tobytes()
    assert found["layer.2.weight"].tobytes() == weights(1, 2, 3, seed=7)["layer.2.weight"].tobytes()
    recipe = json.loads(recipe_of(repo))
    assert recipe["choice"]["method"] == "ties"
    assert [one["method"] for one in recipe["overrides"]] == ["ours", "theirs"]


def test_all_that_are_left(repo: GitSandbox, terminal: Callable[..., Any]) -> None:
    _three_contested(repo)
    child = terminal("merge", "--no-edit", "theirs")
    child.expect(PROMPT)
    child.sendline("m")
    child.expect("task_arithmetic")
    child.expect("method> ")
    child.sendline("task_arithmetic:scale=0.5")
    child.expect(SCOPE)
    child.sendline("*")
    assert _ended(child)[0] == 0
    assert json.loads(recipe_of(repo))["choice"]["parameters"]["scale"] == 0.5
    assert json.loads(recipe_of(repo))["overrides"] == []


def test_help_preview_and_mistakes_do_not_end_it(repo: GitSandbox, terminal: Callable[..., Any]) -> None:
    child = terminal("merge", "--no-edit", "theirs")
    for typed, answer in (
        ("?", "the merge stays a conflict"),
        ("p", r"\? layer.2.weight"),
        ("tise", "Did you mean 'ties'"),
        ("ties:density=7", "density is 7"),
    ):
        child.expect(PROMPT)
        child.sendline(typed)
        child.expect(answer)
    child.expect(PROMPT)
    child.sendline("b")
    assert _ended(child)[0] == 0
    assert content(repo)["layer.2.weight"].tobytes() == BASE["layer.2.weight"].tobytes()


@pytest.mark.parametrize("how", ["q", "end of input", "Ctrl-C"])
def test_leaving_is_a_conflict_with_ours_intact(repo: GitSandbox, terminal: Callable[..., Any], how: str) -> None:
    child = terminal("merge", "--no-edit", "theirs")
    child.expect(PROMPT)
    if how == "q":
        child.sendline("q")
    elif how == "Ctrl-C":
        child.sendintr()
    else:
        child.sendeof()
    status, said = _ended(child)
    assert same(content(repo), OURS)
    assert "Traceback" not in said
    assert status == 1
    assert "--continue" in said
    assert repo("status", "--porcelain") == f"UU {NAME}\nA  theirs.txt\n"


def test_review_asks_about_one_sided_changes(repo: GitSandbox, terminal: Callable[..., Any]) -> None:
    repo("config", "theta.merge.review", "always")
    child = terminal("merge", "--no-edit", "theirs")
    child.expect("4 parameters changed")
    child.expect(r"\[1/4\] layer.0.weight")
    child.expect(r"\[k\]eep it so")
    child.sendline("b")
    child.expect(SCOPE)
    child.sendline("")
    child.expect(r"\[2/4\] layer.1.weight")
    child.sendline("k")
    child.expect(SCOPE)
    child.sendline("")
    child.expect(r"\[3/4\] layer.2.weight")
    child.sendline("t")
    child.expect(SCOPE)
    child.sendline("*")
    assert _ended(child)[0] == 0
    wanted = {**THEIRS, "layer.1.weight": OURS["layer.1.weight"]}
    assert same(content(repo), wanted)


def test_a_configured_method_is_not_asked_about(repo: GitSandbox, terminal: Callable[..., Any]) -> None:
    status, said = _ended(terminal("merge", "--no-edit", "theirs", GIT_THETA_MERGE="linear"))
    assert status == 0
    assert "theta>" not in said
    assert same(content(repo), AVERAGE)


@pytest.mark.parametrize("variable", [{"GIT_TERMINAL_PROMPT": "0"}, {"JPY_PARENT_PID": "1"}], ids=str)
def test_nobody_is_asked_where_nobody_can_answer(
    repo: GitSandbox, terminal: Callable[..., Any], variable: dict[str, str]
) -> None:
    status, said = _ended(terminal("merge", "--no-edit", "theirs", **variable))
    assert status == 1
    assert "theta>" not in said
    assert repo("status", "--porcelain", NAME) == f"UU {NAME}\n"


def test_git_theta_merge_asks_as_well(repo: GitSandbox, terminal: Callable[..., Any]) -> None:
    child = terminal("theta", "merge", "theirs")
    child.expect(PROMPT)
    child.sendline("q")
    assert _ended(child)[0] == 1
    assert repo("status", "--porcelain") == ""
    child = terminal("theta", "merge", "theirs")
    child.expect(PROMPT)
    child.sendline("average")
    status, said = _ended(child)
    assert status == 0, said
    assert same(content(repo), AVERAGE)
    assert_quiet(repo)
