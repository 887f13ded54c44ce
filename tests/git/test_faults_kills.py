"""Commands that are killed at any moment leave the old or the new state, and the next command works.

What is killed (the filter, git, everything), by which signal and when, follows from a seed. The moments are spread over
the duration of an undisturbed run, measured once, or come with the n-th new object in the store.
"""

from __future__ import annotations

import functools
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.git.checks import age, objects
from tests.git.killing import Ended, Moment, command_of, filters, group, leader, run_and_kill
from tests.git.objects import assert_sound

NAME = "m.safetensors"
TENSORS = 16
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
QUICK = 30


@functools.cache
def version(seed: int) -> bytes:
    """A checkpoint of 8 MB in tensors that are an object each."""
    rng = np.random.default_rng(seed)
    return safetensors({f"layer.{i}": rng.normal(size=(128, 1024)).astype(np.float32) for i in range(TENSORS)})


@dataclass(frozen=True)
class Command:
    """What is run and killed.

    Parameters
    ----------
    arguments
        Of git.
    stages
        Whether it cleans new content from the work tree; else it brings the version of ``next`` there.
    prepared
        What to do with a fresh copy before.
    """

    arguments: tuple[str, ...]
    stages: bool


COMMANDS = {
    "add": Command(("add", NAME), stages=True),
    "commit": Command(("commit", "-q", "-a", "-m", "third"), stages=True),
    "checkout": Command(("checkout", "-q", "next"), stages=False),
    "theta-checkout": Command(("theta", "checkout", "--source", "next", NAME), stages=False),
}


@dataclass(frozen=True)
class World:
    """A repository to copy: ``main`` has the first version, ``next`` the second; the third is in no commit."""

    template: Path
    first: bytes
    second: bytes
    third: bytes

    def copy(self, path: Path, command: Command) -> GitSandbox:
        """A copy with the stage set for a command; objects are shared, as nobody writes to them."""

        def link(source: str, target: str) -> None:
            (os.link if "/objects/" in source else shutil.copy2)(source, target)

        shutil.copytree(self.template, path, copy_function=link)
        repo = GitSandbox(path)
        if command.stages:
            repo.write(NAME, self.third)
            age(repo, [NAME])
        return repo

    def after(self, command: Command) -> bytes:
        """What the work tree should hold after the command."""
        return self.third if command.stages else self.second

    def before(self, command: Command) -> bytes:
        """What it holds before."""
        return self.third if command.stages else self.first


@pytest.fixture
def world(new_repository: Callable[..., GitSandbox], tmp_path_factory: pytest.TempPathFactory) -> World:
    first, second, third = (version(seed) for seed in range(3))
    template = tmp_path_factory.getbasetemp() / "kills-template"
    if not template.exists():
        repo = new_repository("kills")
        repo("config", "core.checkStat", "minimal")
        for branch, data in (("next", second), ("main", first)):
            repo("checkout", "-q", "-B", branch, "HEAD~0")
            repo.write(NAME, data)
            age(repo, [NAME, ".gitattributes"])
            repo.commit_all(branch)
        repo("status")
        repo.path.rename(template)
    return World(template, first, second, third)


@pytest.fixture
def duration(world: World, tmp_path: Path) -> Callable[[str], float]:
    """Seconds that each command takes undisturbed; measured once."""

    def measure(name: str) -> float:
        if name not in _DURATIONS:
            repo = world.copy(tmp_path / f"measured-{name}", COMMANDS[name])
            start = time.monotonic()
            repo(*COMMANDS[name].arguments)
            _DURATIONS[name] = time.monotonic() - start
        return _DURATIONS[name]

    return measure


_DURATIONS: dict[str, float] = {}


@dataclass(frozen=True)
class Plan:
    """One kill, made from a seed."""

    seed: int
    command: str
    victim: str
    signal: signal.Signals
    objects: int
    share: float

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        command = tuple(COMMANDS)[seed % len(COMMANDS)]
        victim = "filter" if seed // len(COMMANDS) % 2 else rng.choice(("git", "group"))
        counted = COMMANDS[command].stages and rng.random() < 0.5
        return cls(
            seed=seed,
            command=command,
            victim=victim,
            signal=rng.choice(SIGNALS),
            objects=rng.randrange(1, TENSORS + 1) if counted else 0,
            share=rng.choice((rng.uniform(0, 1), rng.uniform(0.6, 1.1))),
        )

    def __str__(self) -> str:
        when = f"{self.objects}objects" if self.objects else f"{self.share:.2f}"
        return f"{self.seed}-{self.command}-{self.victim}-{self.signal.name}-{when}"

    def victims(self, session: int) -> list[int]:
        if self.victim == "filter":
            return filters(session)
        if self.victim == "group":
            return group(session)
        return command_of(b"checkout")(session) if self.command == "theta-checkout" else leader(session)

    def moment(self, repo: GitSandbox, seconds: float) -> Moment:
        if not self.objects:
            return lambda elapsed: elapsed >= self.share * seconds
        have = len(objects(repo))
        return lambda elapsed: len(objects(repo)) >= have + self.objects


def check_what_is_left(repo: GitSandbox, world: World, plan: Plan, ended: Ended) -> None:
    """Nothing half done is to be seen."""
    # Ctrl-C may catch Python itself while it starts (its "site" has a function called "main"), before any of ours.
    assert not re.search(r"__main__\.py\", line \d+, in main", ended.stderr), ended.stderr
    assert_sound(repo)
    git_was_killed = plan.victim != "filter" and ended.killed
    locks = [path for path in (repo.path / ".git").rglob("*.lock") if "/objects/" not in str(path)]
    if not (git_was_killed and plan.signal == signal.SIGKILL):
        assert not locks, "git leaves locks only if it is killed outright"
    for lock in locks:  # as its user would
        lock.unlink()
    repo("fsck", "--strict")
    command = COMMANDS[plan.command]
    path = repo.path / NAME
    if not path.exists():
        assert plan.command == "checkout", "only git unlinks a file before it has the new one"
        assert ended.killed
    elif not (git_was_killed and plan.command == "checkout" and world.second.startswith(path.read_bytes())):
        # git writes the files of a checkout in place; dying there it leaves the beginning.
        assert path.read_bytes() in (world.before(command), world.after(command)), "the file is half written"
    for other in repo.path.iterdir():
        if other.name not in (".git", ".gitattributes", NAME):
            assert other.read_bytes() == world.second, f"{other.name} was left behind"


def check_that_it_goes_on(repo: GitSandbox, world: World, plan: Plan) -> None:
    """The same command, given again, does what it should have done."""
    command = COMMANDS[plan.command]
    for other in repo.path.glob(f".{NAME}.theta-*"):
        other.unlink()
    if plan.command == "theta-checkout":
        repo(*command.arguments[:2], "--force", *command.arguments[2:])
    elif plan.command == "checkout":
        repo("checkout", "--", NAME)  # the version of the index, old or new
        assert (repo.path / NAME).read_bytes() in (world.first, world.second)
        repo(*command.arguments)
    elif plan.command == "add":
        repo(*command.arguments)
    else:
        repo("add", NAME)
        repo("commit", "-q", "--allow-empty", "-m", "third")
    assert (repo.path / NAME).read_bytes() == world.after(command)
    (repo.path / NAME).unlink()
    repo("checkout", "--", NAME)
    assert (repo.path / NAME).read_bytes() == world.after(command)
    staged = {"add": f"M  {NAME}\n", "theta-checkout": f"M  {NAME}\n"}.get(plan.command, "")
    assert repo("status", "--porcelain") == staged
    assert_sound(repo)


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan.of(seed), marks=[pytest.mark.slow] if seed >= QUICK else [], id=str(Plan.of(seed)))
        for seed in range(200)
    ],
)
def test_a_killed_command_leaves_the_old_or_the_new_state(
    world: World, duration: Callable[[str], float], tmp_path: Path, plan: Plan
) -> None:
    seconds = duration(plan.command)
    command = COMMANDS[plan.command]
    repo = world.copy(tmp_path / "repo", command)
    ended = run_and_kill(["git", *command.arguments], repo.path, plan.moment(repo, seconds), plan.victims, plan.signal)
    if not ended.killed:
        assert ended.returncode == 0, ended.stderr
    check_what_is_left(repo, world, plan, ended)
    check_that_it_goes_on(repo, world, plan)
    shutil.rmtree(repo.path)
