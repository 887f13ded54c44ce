"""Commands of every day: add, commit, status, ls-files, checkout."""

from __future__ import annotations

import argparse

from theta_nb.commands.grammar.arguments import Commands, command, json_option, paths_argument

__all__ = ["add", "checkout", "commit", "ls_files", "status"]


def add(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta add``."""
    parser = command(
        commands,
        "add",
        """
        Stage checkpoints. Plain 'git add' does the same for files that are tracked;
        this command also says which of the files are not tracked, and takes git's ignored files with --force.
        With --update-data an update is applied to the committed version: the file is rewritten and staged.
        With --update-type alone, what changed is stored by that type, exactly, or refused where that does not pay.
        """,
        """
        git theta add model.pt
        git theta add --renormalize model.pt      a file that was committed before it was tracked
        git theta add model.pt --update-data lora/        merge a PEFT adapter into it
        git theta add model.pt --update-type low-rank     find the factors of what changed
        git theta add model.pt --update-type sparse --update-data changes.safetensors
        """,
    )
    paths_argument(parser, "checkpoints to stage", "+")
    parser.add_argument("-f", "--force", action="store_true", help="also files that git ignores")
    parser.add_argument("--renormalize", action="store_true", help="store committed files anew, by the current rules")
    update = parser.add_argument_group("updates of the committed version")
    update.add_argument(
        "--update-type", metavar="TYPE", help="low-rank, sparse or ia3; without data also delta or dense"
    )
    update.add_argument(
        "--update-data",
        "--update-path",
        metavar="FILE",
        help="apply the update in a .safetensors, .pt or .bin file, or in the folder of a PEFT adapter",
    )
    update.add_argument("--rank", type=int, metavar="N", help="without data, for low-rank: at most so many ranks")
    update.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="likewise: leave singular values below this share of the largest to an exact correction",
    )
    return "add", "stage checkpoints, as 'git add' does"


def commit(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta commit``."""
    parser = command(
        commands,
        "commit",
        """
        Commit what is staged. Plain 'git commit' does the same; this command also keeps metrics with the commit,
        as trailers of its message, where 'git theta log' shows them.
        """,
        """
        git theta commit -m "fine-tune the head" --metric val_loss=0.31 --metric accuracy=0.92
        """,
    )
    parser.add_argument(
        "-m",
        "--message",
        dest="messages",
        metavar="TEXT",
        action="append",
        required=True,
        help="a paragraph of the message",
    )
    parser.add_argument(
        "--metric",
        dest="metrics",
        metavar="NAME=VALUE",
        type=_metric,
        action="append",
        default=[],
        help="a number to keep with the commit",
    )
    json_option(parser)
    return "commit", "commit what is staged, with metrics"


def _metric(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, int(value) if value.lstrip("-").isdecimal() else float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a number") from None


def status(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta status``."""
    parser = command(
        commands,
        "status",
        """
        Show for each tracked checkpoint which tensors differ from the last commit,
        and how many bytes storing them takes at most.
        """,
        """
        git theta status
        git theta status --json models/
        """,
    )
    paths_argument(parser, "only these files or folders")
    json_option(parser)
    return "status", "which tensors have changed"


def ls_files(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta ls-files``."""
    parser = command(
        commands,
        "ls-files",
        """
        List the checkpoints in the index. The remark behind a path says where the work tree has
        only the manifest, or nothing, or where git holds the whole file because it was never stored by theta.
        """,
        """
        git theta ls-files
        git theta ls-files -l                digest, format, number of tensors and size
        git theta ls-files -l --source v1.0  the same of another commit
        git theta ls-files -z | xargs -0 ls -l
        """,
    )
    paths_argument(parser, "only these files or folders")
    parser.add_argument("-s", "--source", metavar="REV", help="list those of a commit; HEAD in a bare repository")
    parser.add_argument("-l", "--long", action="store_true", help="with digest, format, number of tensors and size")
    parser.add_argument("-n", "--name-only", action="store_true", help="paths without remarks")
    parser.add_argument("-z", dest="nul", action="store_true", help="only paths, unquoted, each ended by NUL")
    json_option(parser)
    return "ls-files", "list the stored checkpoints"


def checkout(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta checkout``."""
    parser = command(
        commands,
        "checkout",
        """
        Turn manifests in the work tree into checkpoints, straight to the disk: for what was checked out with
        skip-smudge, above theta.smudgeLimit, or while objects were missing. Files with changes of yours are kept.
        What a sparse checkout leaves out is written only where the file itself is named.
        """,
        """
        git theta checkout                        all manifests of the work tree
        git theta checkout models/large.pt
        git theta checkout --source v1.0 model.pt      the file as it was at another commit
        """,
    )
    paths_argument(parser, "only these files or folders")
    parser.add_argument("-s", "--source", metavar="REV", help="take the content from a commit instead of the index")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite changes in the work tree")
    json_option(parser)
    return "checkout", "write checkpoints into the work tree"
