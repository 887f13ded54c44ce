"""Commands that set things up: install, uninstall, track, untrack."""

from __future__ import annotations

import argparse

from theta_nb.commands.grammar.arguments import Commands, command, json_option

__all__ = ["install", "track", "uninstall", "untrack"]

_SCOPES = {"global": "global", "user": "global", "repository": "local", "local": "local", "system": "system",
           "worktree": "worktree"}  # fmt: skip


def install(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta install``."""
    parser = command(
        commands,
        "install",
        """
        Write the filter, the merge driver and the hunk headers of theta into git's configuration.
        Values that somebody else chose are left alone; running it again changes nothing.
        """,
        """
        git theta install                    for your account, once on every machine
        git theta install --local            for one repository only
        git theta install --skip-smudge      checkouts leave manifests; 'git theta checkout' fetches weights
        """,
    )
    _scope(parser)
    parser.add_argument(
        "--skip-smudge",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether checkouts leave the small manifests instead of the checkpoints",
    )
    parser.add_argument(
        "--rich-diff",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether 'git diff' lists changed tensors instead of showing manifests as text; git then writes both "
        "checkpoints to temporary files for every diff",
    )
    hooks = parser.add_mutually_exclusive_group()
    hooks.add_argument(
        "--no-hooks",
        dest="no_hooks",
        action="store_const",
        const=True,
        help="leave the hooks of repositories alone: 'git push' then uploads no weights, 'git theta push' does",
    )
    hooks.add_argument("--hooks", dest="no_hooks", action="store_const", const=False, help="take --no-hooks back")
    parser.add_argument("-f", "--force", action="store_true", help="replace values that somebody else chose")
    return "install", "tell git about theta"


def uninstall(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta uninstall``."""
    parser = command(
        commands,
        "uninstall",
        """
        Remove from git's configuration exactly what 'git theta install' wrote there.
        The .gitattributes files, the commits and the stored weights stay as they are.
        """,
        """
        git theta uninstall                  for your account
        git theta uninstall --local          for one repository only
        """,
    )
    _scope(parser)
    return "uninstall", "take theta out of git's configuration"


def track(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta track``."""
    parser = command(
        commands,
        "track",
        """
        Write a line for each pattern into the .gitattributes file of the current folder, and stage that file.
        A pattern without a slash holds for all folders below, too. Quote patterns, or the shell expands them.
        If git knows no theta filter yet, it is installed into this repository.
        """,
        """
        git theta track                      what is tracked, and where it says so
        git theta track model.pt
        git theta track "*.safetensors" "checkpoints/**/*.bin"
        git add --renormalize model.pt       afterwards, for a file that was committed before
        """,
    )
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="a pattern, a file or a folder")
    parser.add_argument(
        "--pointers",
        action="store_true",
        help="also commit a Git LFS pointer file for each stored object, below .git_theta/: for servers that delete "
        "LFS objects without one, and for mirrors by 'git lfs fetch --all'",
    )
    json_option(parser)
    return "track", "store the files of a pattern by theta; without one, list what is tracked"


def untrack(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta untrack``."""
    parser = command(
        commands,
        "untrack",
        """
        Take the lines of these patterns out of the .gitattributes file of the current folder, and stage that file.
        Earlier commits stay as they are; from the next 'git add' on, git stores the whole file.
        """,
        """
        git theta untrack "*.pt"
        git add --renormalize model.pt       store the whole file with the next commit
        """,
    )
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="as it was given to 'git theta track'")
    return "untrack", "stop storing the files of a pattern by theta"


def _scope(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    for name, meaning in (
        ("global", "your account, in ~/.gitconfig (the default)"),
        ("local", "this repository only"),
        ("worktree", "this work tree only"),
        ("system", "every account of this machine"),
    ):
        group.add_argument(f"--{name}", dest="scope", action="store_const", const=name, help=meaning)
    group.add_argument(
        "--scope",
        dest="scope",
        metavar="SCOPE",
        type=_scope_named,
        help="the same by name: " + ", ".join(_SCOPES),
    )
    parser.set_defaults(scope="global")


def _scope_named(word: str) -> str:
    if word not in _SCOPES:
        raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(_SCOPES)}")
    return _SCOPES[word]
