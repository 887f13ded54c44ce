"""git theta log, show and blame on real repositories, and what Repository returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import theta_nb
from tests.commands.running import json_of, said, theta
from tests.conftest import GitSandbox
from tests.git.checkpoints import safetensors
from tests.history.conftest import NAME, folder, weights
from theta_nb.commands.blame import blame
from theta_nb.commands.log import log
from theta_nb.git.places import find_places


def subjects(repo: GitSandbox, *argv: str) -> list[str]:
    [history] = json.loads(theta(repo.path, "log", "--json", *argv).out)["histories"]
    return [step["commit"]["subject"] for step in history["steps"]]


FULL = ["train block 1", "better name", "Merge branch 'tuning'", "tune the head", "train block 0", "first weights"]


# --- log --------------------------------------------------------------------------------------------------------------


def test_the_history_follows_renames_and_branches(grown: GitSandbox) -> None:
    history = log(find_places(grown.path), NAME)
    found = [step.commit.subject for step in history]
    assert sorted(found) == sorted(FULL)
    assert found[0] == "train block 1"
    assert found[-1] == "first weights"
    steps = {step.commit.subject: step for step in history}
    assert steps["better name"].renamed_from == "old.safetensors"
    assert steps["better name"].state == "unchanged"
    assert steps["better name"].new_bytes == 0
    assert steps["train block 0"].path == "old.safetensors"
    assert steps["train block 1"].names() == ("encoder.1.bias", "encoder.1.weight")
    assert steps["Merge branch 'tuning'"].is_merge
    assert steps["Merge branch 'tuning'"].names() == ("head.bias", "head.weight"), "what the merge brought to main"
    assert history.metrics["val_loss"][0] == 0.5
    assert history.metrics["val_loss"][-1] == 0.125


def test_only_first_parents(grown: GitSandbox) -> None:
    assert subjects(grown, "--first-parent") == [s for s in FULL if s != "tune the head"]


def test_refs_stand_at_the_version_that_they_have(grown: GitSandbox) -> None:
    steps = {step.commit.subject: step.commit for step in log(find_places(grown.path), NAME)}
    assert steps["train block 1"].head
    assert steps["train block 1"].branches == ("main",)
    assert steps["tune the head"].branches == ("tuning",)
    assert steps["first weights"].tags == ("v1",)
    assert steps["better name"].tags == (), "the version of v2 stands at two commits: neither is named"


def test_what_was_stored_adds_up(grown: GitSandbox) -> None:
    history = log(find_places(grown.path), NAME)
    objects = grown.path / ".git" / "theta" / "objects"
    assert history.stored == sum(path.stat().st_size for path in objects.rglob("*") if path.is_file())


def test_a_version_takes_what_its_updates_are_applied_to(repository: GitSandbox) -> None:
    values = np.random.default_rng(1).standard_normal((300, 300)).astype(np.float32)
    sizes = []
    for step in range(2):
        repository.write(NAME, safetensors({"w": values * np.float32(1 + step / 4096)}))
        repository.commit_all(str(step))
        stored = json.loads(theta(repository.path, "show", "--json", f"HEAD:{NAME}").out)["stored"]
        history = log(find_places(repository.path), NAME)
        assert stored == history.stored
        sizes.append(stored)
    assert sizes[0] < sizes[1] < 2 * sizes[0], "an update was stored"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-n", "1"], FULL[:1]),
        (["v2..HEAD"], FULL[:1]),
        (["v1", "--", NAME, "old.safetensors"], None),
        (["tuning", "--", "old.safetensors"], ["tune the head", "first weights"]),
        (["v1..tuning", "--", "old.safetensors"], ["tune the head"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_parts_of_the_history(argv: list[str], expected: list[str] | None, grown: GitSandbox) -> None:
    if expected is None:
        assert theta(grown.path, "log", *argv).status == 1, f"{NAME} did not exist at v1"
    else:
        assert subjects(grown, *argv) == expected


def test_a_step_at_the_edge_of_a_range_is_compared_with_what_lies_before(grown: GitSandbox) -> None:
    [history] = json_of(grown.path, "log", "v2..HEAD")["histories"]
    assert [change["name"] for change in history["steps"][0]["changes"]] == ["encoder.1.bias", "encoder.1.weight"]


def test_all_branches(grown: GitSandbox) -> None:
    grown("switch", "-q", "-c", "aside", "v2")
    grown.write(NAME, weights(head=9.0))
    grown.commit_all("aside")
    grown("switch", "-q", "main")
    assert "aside" in subjects(grown, "--all")
    assert "aside" not in subjects(grown)


def test_the_table_is_aligned_and_names_what_matters(grown: GitSandbox) -> None:
    lines = said(grown.path, "log", NAME).splitlines()
    assert lines[0].startswith(f"{NAME}: 6 commits, 1 merge, ")
    assert lines[2].split() == ["commit", "date", "what", "changed", "stored", "val_loss", "message"]
    assert "2 of 6 changed" in lines[3]
    assert lines[3].endswith("train block 1 (HEAD, main)")
    column = lines[2].index("message")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[3:])


def test_from_a_subdirectory_and_for_folders(grown: GitSandbox) -> None:
    sub = folder(grown, "models")
    (sub / "a.pt").write_bytes(weights())
    (sub / "b.pt").write_bytes(weights(head=1.0))
    grown.commit_all("more")
    below = json_of(sub, "log", f"../{NAME}")["histories"]
    assert [history["path"] for history in below] == [NAME]
    assert [history["path"] for history in json_of(grown.path, "log", "models")["histories"]] == [
        "models/a.pt",
        "models/b.pt",
    ]
    assert len(json_of(sub, "log")["histories"]) == 3, "all, wherever one is"


def test_deleted_and_added_again(grown: GitSandbox) -> None:
    grown("rm", "-q", NAME)
    grown.commit_all("gone")
    assert subjects(grown, "--", NAME)[0] == "gone"
    grown.write(NAME, weights(head=3.0))
    grown.commit_all("back")
    [history] = json_of(grown.path, "log")["histories"]
    assert [step["state"] for step in history["steps"][:3]] == ["added", "deleted", "modified"]
    assert subjects(grown)[-1] == "first weights", "also what lies before the deletion"


def test_an_older_file_of_the_same_name_is_another_file(repository: GitSandbox) -> None:
    repository.write(NAME, weights(head=5.0))
    repository.commit_all("unrelated")
    repository("rm", "-q", NAME)
    repository.commit_all("unrelated ends")
    repository.write("old.safetensors", weights())
    repository.commit_all("begin")
    repository("mv", "old.safetensors", NAME)
    repository.commit_all("take the name")
    assert subjects(repository) == ["take the name", "begin"]


def test_raw_and_broken_versions_are_steps_like_others(repository: GitSandbox) -> None:
    repository("config", "--unset", "filter.theta.process")
    repository("config", "filter.theta.required", "false")
    repository.write("m.pt", b"not by theta")
    repository.commit_all("raw")
    repository.write("m.pt", b"theta-manifest 1\nnonsense\n")
    repository.commit_all("broken")
    repository("config", "filter.theta.process", "git-theta filter-process")
    repository.write("m.pt", weights())
    repository("add", "m.pt")
    repository("commit", "-qm", "stored")
    [history] = json_of(repository.path, "log")["histories"]
    assert [step["state"] for step in history["steps"]] == ["added", "broken", "raw"]
    assert "nonsense" in history["steps"][1]["problem"]
    out = said(repository.path, "log")
    assert "cannot be read" in out
    assert "a whole file in git" in out


def test_names_from_elsewhere_cannot_command_the_terminal(repository: GitSandbox) -> None:
    repository.write("m.pt", weights())
    repository("add", "m.pt")
    repository.run("commit", "-q", "-F", "-", data=b"evil\x1b[2J\n\nTheta-Metric: a\x1b[1m=1\n")
    for argv in (["log"], ["show", "m.pt"], ["blame", "m.pt"]):
        assert "\x1b" not in said(repository.path, *argv), argv
    history = log(find_places(repository.path), "m.pt")
    assert "\x1b" not in history.to_html()


@pytest.mark.parametrize(
    "name", ["two words.pt", "q'uo\"te.pt", "line\nbreak.pt", "-dash.pt", "ä.pt", "a:b.pt", ":(glob)*.pt"]
)
def test_odd_names(name: str, repository: GitSandbox) -> None:
    repository.write(name, weights())
    repository.commit_all("one")
    repository.write(name, weights(head=1.0))
    repository.commit_all("two")
    history = log(find_places(repository.path), name)
    assert [step.commit.subject for step in history] == ["two", "one"]
    assert history[0].names() == ("head.bias", "head.weight")


def test_configuration_of_log_changes_nothing(grown: GitSandbox) -> None:
    before = subjects(grown)
    for key, value in (("log.follow", "true"), ("log.showSignature", "true"), ("color.ui", "always"),
                       ("log.date", "relative"), ("format.pretty", "oneline"), ("diff.renames", "false"),
                       ("i18n.logOutputEncoding", "ISO-8859-1"), ("log.mailmap", "true")):  # fmt: skip
        grown("config", key, value)
    assert subjects(grown) == before


def test_a_bare_and_a_sha256_repository(grown: GitSandbox, new_repository: object, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--bare", grown.path, tmp_path / "bare.git"], check=True)
    [history] = json_of(tmp_path / "bare.git", "log")["histories"]
    assert len(history["steps"]) == 6
    [history] = json_of(tmp_path / "bare.git", "log", "v2..main")["histories"]
    assert len(history["steps"]) == 1
    sandbox = new_repository("sha256", "--object-format=sha256")  # type: ignore[operator]
    sandbox.write("m.pt", weights())
    sandbox.commit_all("one")
    assert subjects(sandbox) == ["one"]


def test_an_empty_repository_is_no_error(repository: GitSandbox) -> None:
    assert "No checkpoint is stored yet." in said(repository.path, "log")


# --- show -------------------------------------------------------------------------------------------------------------


def test_a_version_with_its_parameters(grown: GitSandbox) -> None:
    out = said(grown.path, "show", f"HEAD:{NAME}")
    assert "train block 1" in out
    assert "HEAD, main, val_loss 0.125" in out
    assert "safetensors, 6 parameters, 456 elements" in out
    assert "encoder.0.bias    float32  [24]" in out
    only = said(grown.path, "show", "v1:old.safetensors", "head.*")
    assert "2 shown" in only
    assert "encoder" not in only


def test_show_takes_the_index_and_relative_paths(grown: GitSandbox) -> None:
    grown.write(NAME, weights(head=7.0))
    grown("add", NAME)
    staged = json_of(grown.path, "show", f":{NAME}")
    assert staged["commit"] is None
    assert staged["digest"] != json_of(grown.path, "show", NAME)["digest"]
    sub = folder(grown, "sub")
    assert json_of(sub, "show", f"HEAD:../{NAME}") == json_of(sub, "show", f"HEAD:./../{NAME}")
    assert json_of(sub, "show", f"HEAD@{{0}}:{NAME}")["path"] == NAME


# --- blame ------------------------------------------------------------------------------------------------------------


def test_blame_finds_the_commit_through_merges_and_renames(grown: GitSandbox) -> None:
    found = blame(find_places(grown.path), NAME)
    origin = {line.parameter.name: (line.commit.subject, line.status) for line in found}
    assert origin["head.weight"] == ("tune the head", "modified")
    assert origin["encoder.0.weight"] == ("train block 0", "modified")
    assert origin["encoder.1.bias"] == ("train block 1", "modified")
    assert [line.parameter.name for line in blame(find_places(grown.path), NAME, ["encoder.0.*"])] == [
        "encoder.0.bias",
        "encoder.0.weight",
    ]
    earlier = blame(find_places(grown.path), "old.safetensors", revision="v1")
    assert {line.commit.subject for line in earlier} == {"first weights"}


def test_blame_in_words(grown: GitSandbox) -> None:
    lines = said(grown.path, "blame", NAME).splitlines()
    assert len(lines) == 6
    assert lines[1].strip().startswith("modified"), "the same commit is not named twice in a row"
    assert lines[0].endswith("encoder.0.bias")
    data = json_of(grown.path, "blame", NAME)
    assert len(data["commits"]) == 3
    assert len(data["parameters"]) == 6


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["log", "nope"], "'nope' is neither a commit nor a file here"),
        (["log", "nope", "--", NAME], "'nope' is no commit here"),
        (["log", "main...v1", NAME], "has three dots"),
        (["log", "main..nope", NAME], "neither a commit nor"),
        (["log", "--", "never.pt"], "no commit has never.pt"),
        (["log", "--", "../out.pt"], "outside"),
        (["log", "notes.txt"], "notes.txt is not tracked by theta"),
        (["log", "both"], "'both' is both a commit and a file here"),
        (["show", "nope:m.pt"], "'nope' is no commit here"),
        (["show", "HEAD:nope.pt"], "nope.pt does not exist at HEAD"),
        (["show", "HEAD:"], "names no file"),
        (["show", "HEAD"], "'HEAD' is a commit and names no file. Write 'HEAD:PATH'."),
        (["show", "HEAD:notes.txt"], "not stored by theta-nb"),
        (["show", NAME, "decoder.*"], "no parameter of model.safetensors matches 'decoder.*'"),
        (["blame", "nope.pt"], "no commit has nope.pt"),
        (["blame", "notes.txt"], "not stored by theta-nb in any commit"),
        (["blame", "-s", "nope", NAME], "'nope' is no commit here"),
        (["blame", NAME, "decoder.*"], "no parameter of model.safetensors matches"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(argv: list[str], words: str, grown: GitSandbox) -> None:
    grown.write("both", b"a file\n")
    grown("branch", "both")
    result = theta(grown.path, *argv)
    assert (result.status, result.out) == (1, "")
    assert words in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("argv", [["log", "-n", "0"], ["log", "-n", "-3"], ["log", "-n", "many"], ["show"], ["blame"]])
def test_arguments_that_make_no_sense(argv: list[str], grown: GitSandbox) -> None:
    assert theta(grown.path, *argv).status == 2


def test_a_broken_manifest_is_an_error_for_show_and_blame(repository: GitSandbox) -> None:
    repository("config", "--unset", "filter.theta.process")
    repository("config", "filter.theta.required", "false")
    repository.write("m.pt", b"theta-manifest 1\nnonsense\n")
    repository.commit_all("broken")
    for argv in (["show", "HEAD:m.pt"], ["blame", "m.pt"]):
        result = theta(repository.path, *argv)
        assert result.status == 1
        assert "m.pt at HEAD: header 'nonsense' is not known" in result.err


def test_nothing_but_manifests_is_read(grown: GitSandbox) -> None:
    for path in (grown.path / ".git" / "theta" / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    assert len(subjects(grown)) == 6
    assert said(grown.path, "show", NAME)
    assert said(grown.path, "blame", NAME)


# --- the pager --------------------------------------------------------------------------------------------------------


def test_a_terminal_gets_the_pager_of_git(grown: GitSandbox, tmp_path: Path) -> None:
    from tests.commands.test_cli import on_terminal

    seen = tmp_path / "seen"
    pager = {"GIT_PAGER": f"tee {seen}"}
    out = on_terminal(grown.path, "log", env=pager)
    assert "train block 1" in seen.read_text()
    assert "\x1b[33m" in seen.read_text(), "colours reach the pager"
    assert "train block 1" in out
    seen.unlink()
    grown("config", "pager.theta", "false")
    assert "train block 1" in on_terminal(grown.path, "log", env=pager)
    assert not seen.exists()


def test_no_pager_in_a_pipe(grown: GitSandbox) -> None:
    env = {**os.environ, "GIT_PAGER": "false"}
    command = [sys.executable, "-m", "theta_nb", "log"]
    out = subprocess.run(command, cwd=grown.path, env=env, capture_output=True, text=True, check=True).stdout
    assert "train block 1" in out


# --- Python -----------------------------------------------------------------------------------------------------------


def test_the_repository_returns_the_same(grown: GitSandbox) -> None:
    repo = theta_nb.Repository(grown.path)
    history = repo.history(NAME)
    assert [step.commit.subject for step in history] == [
        step["commit"]["subject"] for step in json_of(grown.path, "log")["histories"][0]["steps"]
    ]
    assert len(repo.history(grown.path / NAME, "v2..HEAD")) == 1
    assert repo.blame(NAME, "head.*")["head.bias"].commit.subject == "tune the head"
