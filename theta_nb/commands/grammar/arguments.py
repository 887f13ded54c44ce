"""What the grammars of all commands are made of."""

from __future__ import annotations

import argparse
import shutil
import textwrap

__all__ = ["Commands", "Formatter", "command", "json_option", "paths_argument"]


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written, and room for the longest name beside its explanation."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(100, max(60, shutil.get_terminal_size().columns - 2)))


Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def command(
    commands: Commands[argparse.ArgumentParser], name: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command with its description and examples."""
    return commands.add_parser(
        name,
        description=textwrap.dedent(description).strip(),
        epilog="examples:\n" + textwrap.indent(textwrap.dedent(examples).strip(), "  "),
        formatter_class=Formatter,
        allow_abbrev=False,
    )


def json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that asks for JSON."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def paths_argument(parser: argparse.ArgumentParser, meaning: str, nargs: str = "*") -> None:
    """Add the argument that names files."""
    parser.add_argument("paths", nargs=nargs, metavar="PATH", help=meaning)
