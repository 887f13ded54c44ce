"""``git theta env``: what a report of a bug holds, and what it must not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.running import checkpoint, json_of, said
from tests.conftest import GitSandbox
from theta_nb import __version__
from theta_nb.commands.env import mask_credentials


def test_it_describes_machine_configuration_and_repository(repository: GitSandbox) -> None:
    repository.write("m.pt", checkpoint())
    repository.commit_all("one")
    repository("config", "theta.workers", "3")
    report = json_of(repository.path, "env")
    assert report["versions"]["theta-nb"] == __version__
    assert report["versions"]["git"] in repository("version")
    assert {"python", "git-lfs", "numpy", "numcodecs", "blake3", "torch"} <= set(report["versions"])
    entry = next(e for e in report["configuration"] if e["key"] == "filter.theta.process")
    assert entry["value"] == "git-theta filter-process"
    assert (entry["scope"], entry["origin"]) == ("local", "file:.git/config")
    about = report["repository"]
    assert about["work_tree"] == str(repository.path)
    assert about["store"] == str(repository.path / ".git" / "theta" / "objects")
    assert about["objects"] == sum(p.is_file() for p in Path(about["store"]).rglob("*")) > 0
    assert about["nbytes"] == sum(p.stat().st_size for p in Path(about["store"]).rglob("*") if p.is_file())
    assert about["settings"]["workers"] == 3
    assert [p["pattern"] for p in about["patterns"]] == ["*.safetensors", "*.pt"]
    out = said(repository.path, "env")
    for words in (__version__, "filter.theta.process", ".git/config", "*.safetensors", about["store"], "workers = 3"):
        assert words in out


def test_outside_of_a_repository_it_says_what_it_can(tmp_path: Path) -> None:
    report = json_of(tmp_path, "env")
    assert report["repository"] is None
    assert any("git theta install" in problem for problem in report["problems"])


def test_what_looks_wrong_is_listed(repository: GitSandbox) -> None:
    repository("config", "filter.theta.required", "false")
    repository("config", "theta.workers", "many")
    problems = " ".join(json_of(repository.path, "env")["problems"])
    assert "filter.theta.required is 'false'" in problems
    assert "theta.workers = 'many' is not a size" in problems, "a setting that cannot be read does not end the report"


def test_no_password_leaves_the_machine(repository: GitSandbox) -> None:
    repository("remote", "add", "one", "https://ada:hunter2@example.org/models.git")
    repository("remote", "add", "two", "https://ada:hunter2/with@slash@example.org/models.git")
    repository("remote", "add", "three", "https://hunter2@example.org/m.git?access_token=hunter2&x=1")
    repository("config", "lfs.url", "https://hunter2:x-oauth@example.org/lfs")
    repository("config", "url.https://ada:hunter2@example.org/.insteadOf", "ex:")
    repository("remote", "add", "four", "ex:models.git")
    for out in (said(repository.path, "env"), said(repository.path, "env", "--json")):
        assert "hunter2" not in out
        assert "example.org" in out, "the host is needed"
    assert "https://***@example.org/models.git" in said(repository.path, "env")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("git@example.org:models.git", "git@example.org:models.git"),
        ("/srv/models.git", "/srv/models.git"),
        ("file:///srv/models.git", "file:///srv/models.git"),
        ("ssh://git@example.org:22/m", "ssh://***@example.org:22/m"),
        ("two https://a:b@c/ and https://d:e@f/", "two https://***@c/ and https://***@f/"),
    ],
)
def test_what_masking_does(text: str, expected: str) -> None:
    assert mask_credentials(text) == expected


def test_a_bare_repository(tmp_path: Path) -> None:
    GitSandbox(tmp_path)("init", "-q", "--bare", "bare")
    assert json_of(tmp_path / "bare", "env")["repository"]["work_tree"] is None
    assert "none (bare)" in said(tmp_path / "bare", "env")
