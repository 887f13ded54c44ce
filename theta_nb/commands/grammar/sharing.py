"""Commands that move weights between repositories: push, fetch, pull."""

from __future__ import annotations

import argparse

from theta_nb.commands.grammar.arguments import Commands, command, json_option

__all__ = ["fetch", "pull", "push"]


def push(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta push``."""
    parser = command(
        commands,
        "push",
        """
        Upload the stored weights that commits refer to and that the remote lacks. 'git push' does so by itself;
        this is for what it left out, and for a second remote. Commits are not sent.
        """,
        """
        git theta push                       what HEAD needs and the default remote may lack
        git theta push backup --all          everything, whatever the remote is thought to have
        git theta push --dry-run origin main
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REMOTE | REF", help="a remote, then branches, tags or commits")
    parser.add_argument("--all", dest="all_", action="store_true", help="all branches and tags; trust nothing")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only ask the remote what it lacks")
    json_option(parser)
    return "push", "upload weights, without commits"


def fetch(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta fetch``."""
    parser = command(
        commands,
        "fetch",
        """
        Download weights into the store, whole checkpoints or some of their parameters. Files stay as they are.
        By default for HEAD and the index, from the default remote or whichever has them.
        """,
        """
        git theta fetch                      what HEAD needs
        git theta fetch origin v1.0          a commit, from one remote
        git theta fetch --parameters "encoder.layer.11.*"
        git theta fetch --all                everything that any branch or tag refers to
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REMOTE | REF", help="a remote, then branches, tags or commits")
    parser.add_argument("--all", dest="all_", action="store_true", help="all branches, tags and remote branches")
    parser.add_argument("--recent", action="store_true", help="also branches that changed of late")
    parser.add_argument("-I", "--include", metavar="GLOB", action="append", default=[], help="only these paths")
    parser.add_argument("-X", "--exclude", metavar="GLOB", action="append", default=[], help="not these paths")
    parser.add_argument(
        "-p", "--parameters", metavar="GLOB", action="append", default=[], help="only parameters of these names"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only count what is not here")
    json_option(parser)
    return "fetch", "download weights into the store"


def pull(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta pull``."""
    parser = command(
        commands,
        "pull",
        """
        Download the weights that the index needs and write the checkpoints that are still manifests:
        what completes a clone that was made without theta or without its weights.
        What a sparse checkout leaves out is fetched and written only where the file itself is named.
        """,
        """
        git theta pull
        git theta pull origin models/large.pt
        """,
    )
    parser.add_argument("words", nargs="*", metavar="REMOTE | PATH", help="a remote, then files or folders")
    json_option(parser)
    return "pull", "download weights and write checkpoints"
