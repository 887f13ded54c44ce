from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from theta_nb.checkpoints import detection
from theta_nb.checkpoints.formats import FORMATS, FileFormat
from theta_nb.checkpoints.layout import FileSource, Layout, Storage
from theta_nb.errors import CheckpointError, ThetaError, UnsafeFileError

SAFETENSORS = safetensors.numpy.save({"w": np.ones(3, "float32")})


@pytest.mark.parametrize("size", range(13))
@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "m"])
def test_tiny_files(size, name, locate):
    for data in (bytes(size), b"PK\3\4"[:size].ljust(size, b"\0"), SAFETENSORS[:size]):
        layout = locate(data, name)
        assert layout.storages == (Storage(0, size),) or layout.format == "safetensors"
        assert layout.warnings or layout.format == "safetensors"


def test_content_decides_not_the_name(locate, saved):
    assert locate(SAFETENSORS, "model.pt").format == "safetensors"
    assert locate(SAFETENSORS, "model").format == "safetensors"
    assert locate(saved({"a": 1}), "model.safetensors").format == "pytorch"


def test_legacy_pytorch_files_are_kept_whole(locate, saved):
    layout = locate(saved({"a": 1}, _use_new_zipfile_serialization=False), "model.pt")
    assert layout.format == "opaque"
    assert "before 1.6" in layout.warnings[0]


def test_the_warning_says_what_is_wrong(locate):
    assert "empty" in locate(b"", "a.pt").warnings[0]
    assert "ending .pt" in locate(b"text that is long enough", "a.pt").warnings[0]
    assert "not known" in locate(b"text that is long enough", "a.xyz").warnings[0]
    broken = SAFETENSORS.replace(b'"F32"', b'"F64"')
    assert "does not fill" in locate(broken, "a.safetensors").warnings[0]


def test_other_zips(locate):
    file = io.BytesIO()
    np.savez(file, w=np.ones(3))
    assert locate(file.getvalue(), "a.npz").format == "opaque"


class Unsafe:
    def locate(self, source):
        raise UnsafeFileError("a trap")


def test_an_unsafe_file_is_not_even_stored_whole(monkeypatch, source):
    trap = FileFormat("trap", (), lambda head, size: True, Unsafe().locate)
    monkeypatch.setitem(FORMATS._loaded, "safetensors", trap)
    with pytest.raises(UnsafeFileError):
        detection.locate(source(b"x"), "a")


def test_formats_of_outsiders_are_asked_last(monkeypatch, source):
    plain = FileFormat("plain", (".txt",), lambda head, size: True, lambda s: Layout("plain", s.size, ()))
    monkeypatch.setattr(FORMATS, "_external", {"plain": None})
    monkeypatch.setitem(FORMATS._loaded, "plain", plain)
    assert detection.locate(source(b"x"), "a").format == "plain"
    assert detection.locate(source(SAFETENSORS), "a.txt").format == "safetensors"
    assert detection.format_for_name("A.TXT").name == "plain"


def test_format_for_name():
    names = {
        name: detection.format_for_name(name).name for name in ("a.safetensors", "b/c.pt", "x.PTH", "x.bin", "x.ckpt")
    }
    assert list(names.values()) == ["safetensors", *["pytorch"] * 4]
    for name in ("a", "a.npz", ".pt", "pt"):
        with pytest.raises(CheckpointError):
            detection.format_for_name(name)
    with pytest.raises(ThetaError):
        FORMATS["unheard-of"]


def test_a_file_that_shrinks_is_an_error_or_whole(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": np.ones(3)}, {"note": "x" * 2000}))
    fd = os.open(path, os.O_RDONLY)
    try:
        source = FileSource(fd)
        os.truncate(path, 1000)
        assert detection.locate(source, "m.safetensors").format == "opaque"
        os.truncate(path, 0)
        with pytest.raises(CheckpointError):
            detection.locate(source, "m.safetensors")
    finally:
        os.close(fd)


def test_locating_imports_nothing_heavy(tmp_path, saved):
    path = tmp_path / "m.pt"
    path.write_bytes(saved({"w": np.ones(2)}))
    program = (
        "import os, sys\n"
        "from theta_nb.checkpoints import detection, formats, layout, writers\n"
        "for name in formats.FORMATS: formats.FORMATS[name]\n"
        f"detection.locate(layout.FileSource(os.open({str(path)!r}, os.O_RDONLY)), 'm.pt')\n"
        "heavy = {'torch', 'numpy', 'ml_dtypes', 'safetensors', 'IPython', 'ipywidgets', 'git'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
