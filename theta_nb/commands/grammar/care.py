"""Commands that look after a repository: fsck, gc, compact, hooks, env, help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from theta_nb.commands.grammar.arguments import Commands, command, json_option, paths_argument

__all__ = ["compact", "env", "fsck", "gc", "help_", "hooks"]


def fsck(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta fsck``."""
    parser = command(
        commands,
        "fsck",
        """
        Read every object that the commits refer to, and rebuild every tensor from them.
        The exit status is 1 if anything is missing or corrupt.
        """,
        """
        git theta fsck                       what HEAD and the index refer to
        git theta fsck v1.0 main~20          some commits
        git theta fsck --all                 everything that any branch, tag or reflog refers to
        """,
    )
    parser.add_argument("revisions", nargs="*", metavar="REV", help="commits to check; HEAD and the index by default")
    parser.add_argument("--all", dest="all_", action="store_true", help="all branches, tags, stashes and reflogs")
    json_option(parser)
    return "fsck", "prove that everything stored can be rebuilt"


def compact(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta compact``."""
    parser = command(
        commands,
        "compact",
        """
        Store checkpoints whole again that are stored as chains of updates, and stage them, to be committed.
        Their content stays the same; reading them touches fewer bytes. Earlier commits keep what they need.
        """,
        """
        git theta compact                    every checkpoint of the index
        git theta compact --depth 2 model.pt    only chains of more than two updates
        """,
    )
    paths_argument(parser, "checkpoints or folders (default: all)")
    parser.add_argument(
        "--depth", type=int, default=0, metavar="N", help="updates that may stay in a chain (default: 0)"
    )
    json_option(parser)
    return "compact", "shorten chains of updates"


def gc(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta gc``."""
    parser = command(
        commands,
        "gc",
        """
        Delete stored objects that no branch, tag, reflog, stash, index or work tree refers to
        and that are older than a grace period. What was never pushed but is referred to stays.
        """,
        """
        git theta gc --dry-run               only say what would be deleted
        git theta gc --grace 12h             unreachable objects older than twelve hours
        git theta gc --verify-remote         and of old commits, what the default remote confirms to have
        """,
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="delete nothing")
    parser.add_argument(
        "--grace",
        dest="grace_days",
        metavar="AGE",
        type=_age,
        default=14.0,
        help="keep what is younger: 14d (the default), 12h, 30m, 2w, 0",
    )
    parser.add_argument(
        "--verify-remote",
        metavar="REMOTE",
        nargs="?",
        const="",
        help="also delete what only commits that are not in use need, if the remote confirms to have each object",
    )
    json_option(parser)
    return "gc", "delete objects that nothing refers to"


def hooks(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta hooks``."""
    parser = command(
        commands,
        "hooks",
        """
        Install or repair the hooks of this repository, or take them out: pre-push uploads weights,
        post-checkout, post-merge, post-commit and post-rewrite write checkpoints that are too large for git
        itself, prepare-commit-msg notes in the message of a merge how checkpoints were merged.
        Hooks that are there already are kept and run first. The filter does this by itself on first use.
        """,
        """
        git theta hooks                      install what is missing
        git theta hooks --remove             and do not install them again
        """,
    )
    parser.add_argument("--remove", action="store_true", help="take them out and restore what was there before")
    parser.add_argument("-f", "--force", action="store_true", help="also in a folder that other repositories share")
    json_option(parser)
    return "hooks", "install, repair or remove hooks"


def env(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta env``."""
    parser = command(
        commands,
        "env",
        """
        Show versions, git's configuration of theta and where it is set, and the state of the repository.
        Passwords and tokens in URLs are struck out.
        """,
        """
        git theta env
        git theta env --json
        """,
    )
    json_option(parser)
    return "env", "describe the installation, for reports of bugs"


def help_(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta help``."""
    parser = command(
        commands,
        "help",
        "Explain a command. ('git theta --help' shows the manual page, where 'man' is installed; -h works everywhere.)",
        """
        git theta help track
        """,
    )
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="a command; the overview by default")
    return "help", "explain a command"


_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([mhdw]?)")
_DAYS: dict[str, Callable[[float], float]] = {
    "m": lambda n: n / 1440,
    "h": lambda n: n / 24,
    "d": lambda n: n,
    "": lambda n: n,
    "w": lambda n: n * 7,
}


def _age(text: str) -> float:
    """Days of an age such as ``12h``.

    Examples
    --------
    >>> _age("12h"), _age("2w"), _age("0")
    (0.5, 14.0, 0.0)
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write 14d, 12h, 30m, 2w or 0")
    return _DAYS[match[2]](float(match[1]))
