"""Commands that merge: merge, replay; and sweep and evaluate, which exist in notebooks only."""

from __future__ import annotations

import argparse

from theta_nb.commands.grammar.arguments import Commands, command, json_option

__all__ = ["PARAMETERS", "evaluate", "merge", "replay", "sweep"]

PARAMETERS = {
    "weight": "weight of each input",
    "normalize": "divide by the sum of the weights",
    "scale": "factor of the merged task vector",
    "density": "share of the entries of each task vector that is kept",
    "t": "0 is ours, 1 is theirs",
    "seed": "seed of the random draws",
    "rescale": "how the kept entries make up for the dropped",
    "epsilon": "spread of the probabilities around the density",
    "gamma": "share of the largest entries that is dropped",
    "scope": "whether the largest entries are those of each tensor, or of the model",
    "space": "whether weights are merged, or differences to the ancestor",
    "axis": "what is one vector: the tensor, each row, or each column",
    "max-iter": "largest number of iterations",
    "tol": "length of a step that ends the iteration",
    "r": "how much unique entries grow with the share of shared ones",
    "alpha": "share of ours, or another share; see --methods",
    "alpha1": "share of ours",
    "alpha2": "share of theirs",
    "tall": "how far a task vector must outweigh the others to count",
    "agreement": "number of tasks that must need an entry",
    "task": "0 for the unified model, k for the one rebuilt for input k",
    "above": "multiple of the mean rank from which a column counts",
    "calibration": "score of important columns",
    "floor": "least Fisher information of an entry",
    "which": "which of the others, counted from 1",
    "lines-alpha": "factor of the task vectors in the first layer, for lines:METHOD",
    "lines-beta": "how much it grows until the last layer",
}
"""Parameters of all merge methods, written down: reading the methods themselves would make every command wait."""


def merge(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta merge``."""
    parser = command(
        commands,
        "merge",
        """
        Merge commits into HEAD, checkpoints by parameter: what one side changed is taken from it, what both changed is
        merged by a method. The result is one merge commit with all parents, in which the recipe is kept; other files
        are merged by git. Without a method, a terminal asks for one. Nothing changes if something goes wrong.
        """,
        """
        git theta merge feature --method ties --density 0.3
        git theta merge feature --method linear --weight "{ours: 0.7, theirs: 0.3}" --dry-run
        git theta merge a b c --method task_arithmetic --scale 0.4      several at once
        git theta merge feature --override "lm_head.*" ours --method slerp --t "[0, 0.5, 1]"
        git theta merge --continue --method linear      after a conflict of 'git merge'
        git theta merge --methods                       the methods and their parameters
        """,
    )
    parser.usage = "%(prog)s [-h] [REV ...] [--method METHOD] [--NAME VALUE ...] [OPTION ...] [PATH ...]"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="REV | PATH",
        help="commits to merge, then the checkpoints to be merged by parameter",
    )
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="message of the merge commit")
    parser.add_argument(
        "-M",
        "--method",
        metavar="METHOD",
        default="",
        help="method for what both sides changed, as METHOD or METHOD:NAME=VALUE,NAME=VALUE",
    )
    parser.add_argument(
        "--set",
        dest="assignments",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter of the method: a number, a word, [0, 0.5, 1] over the depth of the model, or {theirs: 0.7}",
    )
    parser.add_argument(
        "--override",
        dest="overrides",
        nargs=2,
        metavar=("GLOB", "METHOD"),
        action="append",
        default=[],
        help="another method for some parameters, as METHOD or METHOD:NAME=VALUE,NAME=VALUE",
    )
    parser.add_argument("--recipe", metavar="FILE", help="choose what a recipe, or a configuration of mergekit, says")
    parser.add_argument(
        "--statistics",
        metavar="FILE",
        action="append",
        default=[],
        help="statistics of the training data for fisher and regmean: once for each input, ours first",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show what would come out")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--continue", dest="continue_", action="store_true", help="merge what 'git merge' left open")
    doing.add_argument("--abort", action="store_true", help="give up the merge that is under way")
    doing.add_argument("--methods", action="store_true", help="list the methods and their parameters")
    json_option(parser)
    group = parser.add_argument_group("parameters of the methods")
    for name, meaning in PARAMETERS.items():
        group.add_argument(f"--{name}", dest=f"parameter_{name.replace('-', '_')}", metavar="VALUE", help=meaning)
    return "merge", "merge commits, checkpoints by parameter"


def replay(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``git theta replay``."""
    parser = command(
        commands,
        "replay",
        """
        Do a recorded merge of checkpoints again, from its recipe and its inputs, and compare the result with what is
        committed: bit for bit, or within the tolerance of a method that has one. Nothing is changed. The exit status
        is 1 if something differs.
        """,
        """
        git theta replay HEAD
        git theta replay 1b2c3d4 -- models/base.safetensors
        """,
    )
    parser.add_argument("words", nargs="*", metavar="COMMIT | PATH", help="a commit, HEAD by default; then files")
    json_option(parser)
    return "replay", "do a recorded merge again and compare"


def evaluate(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``%theta evaluate``."""
    parser = command(
        commands,
        "evaluate",
        """
        As a cell, '%%theta evaluate NAME' keeps the function that the cell defines under a name: it takes a state dict,
        or the model that --into names, and returns a dict of metrics, or one number. As a line, the merge that is open
        is evaluated as it is chosen now.
        """,
        """
        %%theta evaluate accuracy            above a cell that defines a function
        %theta evaluate accuracy
        %theta evaluate accuracy --into model
        """,
    )
    parser.add_argument("name", metavar="NAME", help="name of the evaluation")
    parser.add_argument("--into", metavar="MODEL", help="a model of the notebook that the result is put into")
    return "evaluate", "evaluate the merge that is open"


def sweep(commands: Commands[argparse.ArgumentParser]) -> tuple[str, str]:
    """Add ``%theta sweep``."""
    parser = command(
        commands,
        "sweep",
        """
        Evaluate the merge that is open for all combinations of some parameters' values. The choices stay as they were,
        unless the best is to be used; interrupting ends it, and what was evaluated until then stays.
        """,
        """
        %theta sweep accuracy density=0.1,0.3,0.5
        %theta sweep accuracy method=ties,dare_ties density=0.2,0.5 --use-best
        %theta sweep loss t=0,0.25,0.5,0.75,1 --metric val_loss --smallest --use-best
        """,
    )
    parser.add_argument("name", metavar="NAME", help="name of the evaluation, from '%%%%theta evaluate'")
    parser.add_argument("grid", nargs="+", metavar="PARAMETER=VALUE,VALUE", help="values; 'method' takes methods")
    parser.add_argument("--into", metavar="MODEL", help="a model of the notebook that results are put into")
    parser.add_argument("--metric", metavar="NAME", default="", help="the metric that counts; the first by default")
    parser.add_argument("--smallest", action="store_true", help="small values of it are good")
    parser.add_argument("--use-best", action="store_true", help="choose the best of them")
    return "sweep", "evaluate many values of parameters"
