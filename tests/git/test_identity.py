"""The same values are stored once, wherever they are known from."""

from __future__ import annotations

import json

import numpy as np
import torch

from tests.conftest import GitSandbox
from tests.git.checkpoints import Entry, bias, model, noise, pytorch, safetensors, safetensors_of, tensors
from tests.git.checks import assert_quiet, digests, manifest_of, manifest_text, objects, theta_dir

# Values of more than 64 bytes, so none of them stands in the manifest itself.
_W = np.arange(400, dtype=np.float32).reshape(20, 20)


def _value_objects(repo: GitSandbox, name: str, rev: str = "") -> set[str]:
    """Objects that hold the tensors of a checkpoint; its layout and skeleton are its own."""
    manifest = manifest_of(repo, name, rev)
    values = (manifest.value_of(entry) for entry in manifest.entries)
    return {ref.oid for value in values for ref in value.chunks if ref.oid}


def test_the_same_tensors_under_another_file_name_write_no_object(repository: GitSandbox) -> None:
    repository.write("a.safetensors", model())
    repository.commit_all("a")
    before = objects(repository)
    repository.write("dir/b.safetensors", model())
    repository.commit_all("b")
    assert objects(repository) == before
    assert manifest_text(repository, "a.safetensors") == manifest_text(repository, "dir/b.safetensors")


def test_renamed_tensors_keep_their_values(repository: GitSandbox) -> None:
    repository.write("m.safetensors", safetensors(tensors()))
    repository.commit_all("plain")
    before = _value_objects(repository, "m.safetensors")
    repository.write("m.safetensors", safetensors(tensors(prefix="module.")))
    repository.commit_all("with a prefix")
    assert _value_objects(repository, "m.safetensors") == before
    old, new = (digests(repository, "m.safetensors", rev) for rev in ("HEAD~1", "HEAD"))
    assert new == {f"module.{name}": digest for name, digest in old.items()}


def test_pytorch_and_safetensors_share_their_values(repository: GitSandbox) -> None:
    named = tensors()
    repository.write("m.pt", pytorch({name: torch.from_numpy(array) for name, array in named.items()}))
    repository.commit_all("pytorch")
    before = _value_objects(repository, "m.pt")
    repository.write("m.safetensors", safetensors(named))
    repository.commit_all("converted")
    assert _value_objects(repository, "m.safetensors") == before
    assert digests(repository, "m.safetensors") == digests(repository, "m.pt")


def test_a_checkpoint_that_is_split_over_two_files_writes_no_value(repository: GitSandbox) -> None:
    named = tensors()
    repository.write("m.safetensors", safetensors(named))
    repository.commit_all("whole")
    before = _value_objects(repository, "m.safetensors")
    names = sorted(named)
    for i, part in enumerate((names[:2], names[2:])):
        repository.write(f"m-{i}-of-2.safetensors", safetensors({name: named[name] for name in part}))
    repository("rm", "-q", "--cached", "m.safetensors")
    repository("add", "m-0-of-2.safetensors", "m-1-of-2.safetensors")
    split = _value_objects(repository, "m-0-of-2.safetensors") | _value_objects(repository, "m-1-of-2.safetensors")
    assert split <= before


def test_a_value_of_an_old_commit_is_not_written_again(repository: GitSandbox) -> None:
    repository.write("m.safetensors", model(0))
    repository.commit_all("one")
    first = manifest_text(repository, "m.safetensors")
    repository.write("m.safetensors", model(1))
    repository.commit_all("two")
    before = objects(repository)
    repository.write("m.safetensors", model(0))
    repository.commit_all("back")
    assert objects(repository) == before
    assert manifest_text(repository, "m.safetensors") == first


def test_tied_tensors_are_stored_once(repository: GitSandbox) -> None:
    w = torch.from_numpy(_W)
    repository.write("m.pt", pytorch({"embed.weight": w, "head.weight": w}))
    repository.write("twice.pt", pytorch({"embed.weight": w, "head.weight": w.clone()}))
    repository.commit_all("tied")
    for name in ("m.pt", "twice.pt"):
        manifest = manifest_of(repository, name)
        stored = {manifest.value_of(entry).digest for entry in ("embed.weight", "head.weight")}
        assert len(stored) == 1, f"{name} stores the value twice"
    assert manifest_of(repository, "m.pt").entries["head.weight"].owner == "embed.weight"
    assert manifest_of(repository, "twice.pt").entries["head.weight"].owner == ""


def test_slices_share_the_storage_they_view(repository: GitSandbox) -> None:
    w = torch.from_numpy(_W)
    repository.write("m.pt", pytorch({"q": w[:7], "k": w[7:14], "v": w[14:]}))
    repository.commit_all("fused")
    manifest = manifest_of(repository, "m.pt")
    assert {manifest.entries[name].owner for name in "qkv"} == {"@0"}
    assert len({digest for name, digest in digests(repository, "m.pt").items() if name in "qkv"}) == 3


def test_adding_again_changes_nothing(repository: GitSandbox) -> None:
    repository.write("m.safetensors", model())
    repository("add", "m.safetensors")
    text, stored = manifest_text(repository, "m.safetensors"), objects(repository)
    for _ in range(2):
        repository.write("m.safetensors", model())
        repository("add", "m.safetensors")
        assert manifest_text(repository, "m.safetensors") == text
        assert objects(repository) == stored


def test_values_staged_and_discarded_do_not_change_how_later_ones_are_stored(repository: GitSandbox) -> None:
    repository.write("m.safetensors", model())
    repository.commit_all("one")
    texts = []
    for value in (1.0, 2.0, 3.0, 1.0):
        repository.write("m.safetensors", model(layer_0_bias=bias(value)))
        repository("add", "m.safetensors")
        texts.append(manifest_text(repository, "m.safetensors"))
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


def test_small_tensors_share_an_object(repository: GitSandbox) -> None:
    repository.write("m.safetensors", safetensors({f"layer.{i}": _W + i for i in range(200)}))
    repository.commit_all("many small ones")
    assert len(objects(repository)) == 1


def test_values_of_at_most_64_bytes_stand_in_the_manifest(repository: GitSandbox) -> None:
    repository.write("m.safetensors", safetensors_of([Entry(f"b{n}", "U8", (n,), noise(n, n)) for n in (63, 64, 65)]))
    repository.commit_all("around the limit")
    manifest = manifest_of(repository, "m.safetensors")
    inline = {name: not manifest.value_of(name).chunks[0].oid for name in manifest.entries}
    assert inline == {"b63": True, "b64": True, "b65": False}


def test_the_encoding_cache_may_be_lost_at_any_time(repository: GitSandbox) -> None:
    repository.write("m.safetensors", model())
    repository.commit_all("one")
    (theta_dir(repository) / "encodings.sqlite").unlink()
    assert_quiet(repository)
    repository.write("copy.safetensors", model())
    repository.commit_all("two")
    (repository.path / "copy.safetensors").unlink()
    repository("checkout", "copy.safetensors")
    assert (repository.path / "copy.safetensors").read_bytes() == model()


# --- recipes of merges ------------------------------------------------------------------------------------------------


def _with_recipe(repo: GitSandbox, name: str, recipe: str) -> str:
    """Commit the manifest of a checkpoint as the result of a merge."""
    head, _, rest = manifest_text(repo, name).partition("\n\n")
    text = f"{head}\nrecipe {recipe}\n\n{rest}"
    oid = repo.run("hash-object", "-w", "--stdin", data=text.encode()).stdout.strip()
    repo("update-index", "--cacheinfo", f"100644,{oid},{name}")
    repo("commit", "-qm", "merged")
    return text


def test_the_recipe_of_a_merge_stays_until_the_first_change(repository: GitSandbox) -> None:
    repository.write("m.safetensors", model())
    repository.commit_all("one")
    text = _with_recipe(repository, "m.safetensors", json.dumps({"method": "linear", "weights": [0.5, 0.5]}))
    assert_quiet(repository)
    repository.write("m.safetensors", model())
    repository("add", "m.safetensors")
    assert manifest_text(repository, "m.safetensors") == text

    repository.write("m.safetensors", model(layer_0_bias=bias(1.0)))
    repository("add", "m.safetensors")
    assert "\nrecipe" not in manifest_text(repository, "m.safetensors")
    # Back to what the merge made: HEAD still knows the recipe.
    repository.write("m.safetensors", model())
    repository("add", "m.safetensors")
    assert manifest_text(repository, "m.safetensors") == text
