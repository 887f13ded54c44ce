"""What is no tensor, and files whose set of tensors changes on both sides: nothing that a side brought is lost."""

from __future__ import annotations

import io
import json
import pickletools
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests.commands.running import said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import pytorch, safetensors
from tests.git.checks import assert_quiet, warnings
from tests.merging.conftest import BASE, recipe_of

PT, ST = "m.pt", "m.safetensors"
Make = Callable[[str], Any]


def values(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def flat(**changed: Any) -> OrderedDict[str, Any]:
    """A state dict as ``Module.state_dict`` makes it, with the versions of its modules."""
    state: OrderedDict[str, Any] = OrderedDict(
        (name, values(i, 8, 6)) for i, name in enumerate(("a.weight", "b.weight"))
    )
    for name, value in changed.items():
        state[name.replace("_", ".")] = value
    modules = dict.fromkeys(name.rpartition(".")[0] for name in state)
    state._metadata = OrderedDict([("", {"version": 1}), *((name, {"version": 2}) for name in modules)])  # type: ignore[attr-defined]
    return state


def three(repo: GitSandbox, name: str, base: bytes, ours: bytes, theirs: bytes) -> GitSandbox:
    """``main`` (ours) and ``theirs``, both from one base."""
    repo.write(name, base)
    repo.commit_all("base")
    repo("switch", "-qc", "theirs")
    repo.write(name, theirs)
    repo.commit_all("theirs")
    repo("switch", "-q", "main")
    repo.write(name, ours)
    repo.commit_all("ours")
    return repo


def merge(repo: GitSandbox, **env: str) -> subprocess.CompletedProcess[str]:
    return repo.run("merge", "-q", "--no-edit", "theirs", check=False, env=env)


def loaded(repo: GitSandbox) -> Any:
    """The file as PyTorch reads it with nothing but tensors and plain values allowed; also mapped into memory."""
    data = (repo.path / PT).read_bytes()
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    torch.load(repo.path / PT, weights_only=True, mmap=True)
    return torch.load(io.BytesIO(data), weights_only=True)


def equal(left: Any, right: Any) -> bool:
    """Whether two loaded files are alike, in the order of their keys as well."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.stride() == right.stride() and torch.equal(left, right)
    if isinstance(left, dict):
        attributes = [getattr(one, "_metadata", None) for one in (left, right)]
        return equal(*attributes) and list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and bool(left == right)


# --- the set of tensors -----------------------------------------------------------------------------------------------


def test_a_flat_state_dict_to_which_both_add(drivers: GitSandbox) -> None:
    c, d, changed = values(3, 4), values(4, 5), values(9, 8, 6)
    three(drivers, PT, pytorch(flat()), pytorch(flat(c_bias=c)), pytorch(flat(a_weight=changed, d_bias=d)))
    result = merge(drivers)
    assert (result.returncode, warnings(result.stderr)) == (0, [])
    assert equal(loaded(drivers), flat(a_weight=changed, c_bias=c, d_bias=d))
    assert_quiet(drivers)
    assert "4 parameters the same" in said(drivers.path, "replay")


def nested(epoch: int = 1, lr: float = 0.1, **changed: Any) -> dict[str, Any]:
    model = flat(**changed)
    moments = {i: {"step": torch.tensor(float(epoch)), "exp_avg": values(i + 20, 8, 6)} for i in range(len(model))}
    groups = [{"lr": lr, "betas": (0.9, 0.999), "params": list(range(len(model)))}]
    return {"model": model, "optimizer": {"state": moments, "param_groups": groups}, "epoch": epoch, "note": "run"}


def test_a_nested_checkpoint_to_which_both_add(drivers: GitSandbox) -> None:
    base = nested()
    ours, theirs = nested(), nested()
    ours["model"]["c.bias"] = values(3, 4)
    ours["ema"] = {"decay": 0.99}
    theirs["model"]["d.bias"] = values(4, 5)
    theirs["scaler"] = {"scale": 65536.0, "_growth_tracker": 7}
    del theirs["optimizer"]["state"][1]
    three(drivers, PT, pytorch(base), pytorch(ours), pytorch(theirs))
    assert merge(drivers).returncode == 0
    wanted = nested()
    wanted["model"] = flat()
    wanted["model"]["c.bias"], wanted["model"]["d.bias"] = values(3, 4), values(4, 5)
    wanted["ema"], wanted["scaler"] = ours["ema"], theirs["scaler"]
    del wanted["optimizer"]["state"][1]
    assert equal(loaded(drivers), wanted)
    assert_quiet(drivers)
    said(drivers.path, "replay")


def tied(**changed: Any) -> OrderedDict[str, Any]:
    state = flat(**changed)
    state["head.weight"] = state["a.weight"]
    return state


def test_shared_memory_stays_shared(drivers: GitSandbox) -> None:
    changed = values(9, 8, 6)
    three(
        drivers,
        PT,
        pytorch(tied()),
        pytorch(tied(c_bias=values(3, 4))),
        pytorch(tied(a_weight=changed, d_bias=values(4, 5))),
    )
    assert merge(drivers).returncode == 0
    found = loaded(drivers)
    assert found["head.weight"].data_ptr() == found["a.weight"].data_ptr()
    assert torch.equal(found["head.weight"], changed)
    assert equal(found["c.bias"], values(3, 4))
    assert equal(found["d.bias"], values(4, 5))


def test_slices_of_one_memory_are_one_unit_whatever_its_number(drivers: GitSandbox) -> None:
    """The storage that no tensor covers is the second one in ours, and the third one in theirs."""

    def sliced(first: Any, block: int) -> bytes:
        memory = values(block, 12)
        return pytorch({**first, "left": memory[:5], "right": memory[5:]})

    before, after = {"a": values(3, 4)}, {"a": values(3, 4), "b": values(4, 5)}
    three(drivers, PT, sliced(before, 1), sliced({"c": values(5, 2), **before}, 1), sliced(after, 2))
    assert merge(drivers).returncode == 0
    found = loaded(drivers)
    assert list(found) == ["c", "a", "left", "right", "b"]
    assert torch.equal(torch.cat([found["left"], found["right"]]), values(2, 12))
    assert found["left"].untyped_storage().data_ptr() == found["right"].untyped_storage().data_ptr()


def test_a_tie_that_theirs_brings_is_not_lost(drivers: GitSandbox) -> None:
    three(drivers, PT, pytorch(flat()), pytorch(flat(a_weight=values(9, 8, 6))), pytorch(tied()))
    assert merge(drivers).returncode == 0
    found = loaded(drivers)
    assert found["head.weight"].data_ptr() == found["a.weight"].data_ptr()
    assert torch.equal(found["head.weight"], values(9, 8, 6))


def test_what_one_side_removed_is_gone(drivers: GitSandbox) -> None:
    less = flat()
    del less["b.weight"]
    three(drivers, PT, pytorch(flat()), pytorch(flat(c_bias=values(3, 4))), pytorch(less))
    assert merge(drivers).returncode == 0
    assert list(loaded(drivers)) == ["a.weight", "c.bias"]


def test_an_embedding_that_both_extend(drivers: GitSandbox) -> None:
    """Rows that both have are averaged, the others kept, and the pickle says the new shape."""
    rows = values(1, 10, 3)
    three(
        drivers,
        PT,
        pytorch({"e": rows[:6], "x": 1}),
        pytorch({"e": rows[:8].clone(), "x": 1}),
        pytorch({"e": rows.clone(), "x": 1}),
    )
    assert merge(drivers, GIT_THETA_MERGE="linear").returncode == 0
    assert torch.equal(loaded(drivers)["e"], rows)


def test_parameters_and_kinds_of_values_stay_what_they_are(drivers: GitSandbox) -> None:
    def odd(**more: Any) -> bytes:
        state = {
            "p": torch.nn.Parameter(values(1, 3)), "half": values(2, 4).to(torch.bfloat16), "t": values(3, 4, 5).t(),
            "size": torch.Size([2, 3]), "dtype": torch.float16, "set": {1, 2}, "bytes": b"\0\xff", "none": None,
            "big": 2**70, "complex": values(5, 2).to(torch.complex64), "empty": torch.empty(0, 3),
            "zero": torch.tensor(7), "text": "line\nbreak \u2603", 3: "integer key", "nothing": {}, "list": [], **more,
        }  # fmt: skip
        return pytorch(state)

    three(drivers, PT, odd(), odd(ours=values(7, 2)), odd(theirs=values(8, 2)))
    assert merge(drivers).returncode == 0
    found = torch.load(io.BytesIO((drivers.path / PT).read_bytes()), weights_only=True)
    wanted = torch.load(io.BytesIO(odd(ours=values(7, 2), theirs=values(8, 2))), weights_only=True)
    assert type(found["p"]) is torch.nn.Parameter
    assert found["t"].stride() == (1, 5)
    assert found["size"] == wanted["size"]
    assert type(found["size"]) is torch.Size
    assert equal({**found, "p": found["p"].data}, {**wanted, "p": wanted["p"].data})


def test_a_program_that_theirs_brings_is_refused(drivers: GitSandbox) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return print, ("never",)

    three(
        drivers,
        PT,
        pytorch(flat()),
        pytorch(flat(c_bias=values(3, 4))),
        pytorch({**flat(d_bias=values(4, 5)), "x": Attack()}),
    )
    before = (drivers.path / PT).read_bytes()
    result = merge(drivers)
    assert result.returncode == 1
    assert "__builtin__.print" in result.stderr
    assert "Traceback" not in result.stderr
    assert (drivers.path / PT).read_bytes() == before


def test_the_new_pickle_has_nothing_but_what_the_old_ones_had(drivers: GitSandbox) -> None:
    ours, theirs = pytorch(nested(c_bias=values(3, 4))), pytorch(nested(d_bias=values(4, 5)))
    three(drivers, PT, pytorch(nested()), ours, theirs)
    assert merge(drivers, GIT_THETA_MERGE="ours").returncode == 0

    def names(data: bytes) -> set[str]:
        archive = zipfile.ZipFile(io.BytesIO(data))
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        return {str(arg) for op, arg, _ in pickletools.genops(pickled) if op.name == "GLOBAL"}

    assert names((drivers.path / PT).read_bytes()) <= names(ours) | names(theirs)


def test_safetensors_to_which_both_add(drivers: GitSandbox) -> None:
    new, other = BASE["layer.0.weight"] + 1, BASE["layer.1.weight"] + 1
    three(drivers, ST, safetensors(BASE), safetensors({**BASE, "new": new}), safetensors({**BASE, "other": other}))
    assert merge(drivers).returncode == 0
    assert (drivers.path / ST).read_bytes() == safetensors({**BASE, "new": new, "other": other})
    assert_quiet(drivers)


# --- values -----------------------------------------------------------------------------------------------------------

ONE_SIDED = {
    "theirs": (nested(), nested(a_weight=values(9, 8, 6)), nested(epoch=12345, lr=0.5)),
    "ours": (nested(), nested(epoch=12345), nested(a_weight=values(9, 8, 6))),
    "each another one": (nested(), nested(lr=0.25), nested(epoch=300)),
}


@pytest.mark.parametrize("case", ONE_SIDED)
def test_values_come_from_the_side_that_changed_them(drivers: GitSandbox, case: str) -> None:
    base, ours, theirs = ONE_SIDED[case]
    for state in (base, ours, theirs):  # steps are tensors, which both sides would have changed
        for one in state["optimizer"]["state"].values():
            one["step"] = torch.tensor(1.0)
    three(drivers, PT, pytorch(base), pytorch(ours), pytorch(theirs))
    result = merge(drivers)
    assert (result.returncode, warnings(result.stderr)) == (0, [])
    found = loaded(drivers)
    epochs, rates = (
        {one["epoch"] for one in (ours, theirs)},
        {one["optimizer"]["param_groups"][0]["lr"] for one in (ours, theirs)},
    )
    assert {found["epoch"]} == epochs - {1} or epochs == {1}
    assert {found["optimizer"]["param_groups"][0]["lr"]} == rates - {0.1} or rates == {0.1}
    assert_quiet(drivers)
    assert json.loads(recipe_of(drivers, name=PT))["choice"] is None
    said(drivers.path, "replay")


def both_changed(repo: GitSandbox) -> GitSandbox:
    ours, theirs = nested(epoch=7), nested(epoch=8, a_weight=values(9, 8, 6))
    for state in (ours, theirs):
        for one in state["optimizer"]["state"].values():
            one["step"] = torch.tensor(1.0)
    return three(repo, PT, pytorch(nested()), pytorch(ours), pytorch(theirs))


def test_a_value_that_both_changed_is_a_conflict_by_name(drivers: GitSandbox) -> None:
    both_changed(drivers)
    result = merge(drivers)
    assert result.returncode == 1
    assert "both sides changed epoch;" in warnings(result.stderr)[0]
    shown = said(drivers.path, "merge", "--continue", "--override", "epoch", "theirs")
    assert "epoch: theirs" in shown
    assert loaded(drivers)["epoch"] == 8
    assert json.loads(recipe_of(drivers, name=PT))["overrides"][0]["glob"] == "epoch"
    said(drivers.path, "replay")


def test_a_method_keeps_ours_and_says_so(drivers: GitSandbox) -> None:
    both_changed(drivers)
    result = merge(drivers, GIT_THETA_MERGE="linear")
    assert result.returncode == 0
    assert "both sides changed epoch, no tensor: ours is kept" in warnings(result.stderr)[0]
    assert loaded(drivers)["epoch"] == 7


def test_a_side_that_is_chosen_counts_for_values_as_well(drivers: GitSandbox) -> None:
    both_changed(drivers)
    result = merge(drivers, GIT_THETA_MERGE="theirs")
    assert (result.returncode, warnings(result.stderr)) == (0, [])
    assert loaded(drivers)["epoch"] == 8


def test_the_preview_shows_values(drivers: GitSandbox) -> None:
    both_changed(drivers)
    shown = said(drivers.path, "merge", "theirs", "--method", "ties", "--dry-run")
    [line] = [line for line in shown.splitlines() if " epoch " in line]
    assert "changed by both" in line
    assert "ours" in line
    assert "no tensor" in line
    refused = theta(drivers.path, "merge", "theirs")
    assert refused.status == 1
    assert "epoch" in refused.err
    said(drivers.path, "merge", "theirs", "--override", "epoch", "theirs")
    assert loaded(drivers)["epoch"] == 8


METADATA = {
    "one side": ({"step": "1"}, {"step": "1", "who": "me"}, {"step": "2"}, {"step": "2", "who": "me"}),
    "removed": ({"step": "1", "old": "x"}, {"step": "1"}, {"step": "2", "old": "x"}, {"step": "2"}),
    "alike": ({"step": "1"}, {"step": "2"}, {"step": "2"}, {"step": "2"}),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_safetensors_by_key(drivers: GitSandbox, case: str) -> None:
    base, ours, theirs, wanted = METADATA[case]
    changed = {**BASE, "layer.0.weight": BASE["layer.0.weight"] + 1}
    more = {**BASE, "layer.1.weight": BASE["layer.1.weight"] + 1}
    three(drivers, ST, safetensors(BASE, base), safetensors(changed, ours), safetensors(more, theirs))
    result = merge(drivers)
    assert (result.returncode, warnings(result.stderr)) == (0, [])
    with safe_open(drivers.path / ST, "np") as merged:
        assert merged.metadata() == wanted
        assert (merged.get_tensor("layer.0.weight") == changed["layer.0.weight"]).all()
        assert (merged.get_tensor("layer.1.weight") == more["layer.1.weight"]).all()
    assert_quiet(drivers)
    said(drivers.path, "replay")


def test_metadata_that_both_changed_wait_for_a_choice(drivers: GitSandbox) -> None:
    three(
        drivers,
        ST,
        safetensors(BASE, {"step": "1"}),
        safetensors(BASE, {"step": "2"}),
        safetensors(BASE, {"step": "3"}),
    )
    result = merge(drivers)
    assert result.returncode == 1
    assert "both sides changed __metadata__/step;" in warnings(result.stderr)[0]
    said(drivers.path, "merge", "--continue", "--method", "theirs")
    with safe_open(drivers.path / ST, "np") as merged:
        assert merged.metadata() == {"step": "3"}
