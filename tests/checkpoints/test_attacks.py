"""Each way in which a file can lie, as a file. Every attack runs in a process with little memory and little time.

The process may answer with a layout (whose own checks have passed) or with a CheckpointError, nothing else.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

MEMORY = 1 << 30
SECONDS = 20

# Imports once, then forks for each file: the child is confined, and a signal that kills it is reported.
JAIL = """
import json, os, resource, signal, sys
from theta_nb.checkpoints.detection import locate
from theta_nb.checkpoints.formats import FORMATS
from theta_nb.checkpoints.layout import FileSource
from theta_nb.errors import CheckpointError

for name in FORMATS: FORMATS[name]

def answer(path):
    before = set(sys.modules)
    layout = locate(FileSource(os.open(path, os.O_RDONLY)), "model.pt")
    loaded = {{name for name in set(sys.modules) - before if not name.startswith("encodings.")}}
    assert not loaded, loaded
    return [layout.format, len(layout.storages), [t.name[:100] for t in layout.tensors[:50]], layout.warnings]

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
        resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
        signal.alarm(3 * {seconds})
        try:
            result = answer(line.rstrip("\\n"))
        except BaseException as error:
            result = repr(error)
        print(json.dumps(result), flush=True)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status:
        print(json.dumps(f"killed by signal {{status}}"), flush=True)
"""


@pytest.fixture(scope="module")
def jail(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jail")
    process = subprocess.Popen(
        [sys.executable, "-c", JAIL.format(memory=MEMORY, seconds=SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PWNED": str(folder / "pwned")},
    )
    with process:
        yield process, folder
        process.stdin.close()


@pytest.fixture
def attacked(jail):
    """Locate a file in a confined process; gives ``[format, number of storages, names, warnings]``."""

    def run(data: bytes) -> list:
        process, folder = jail
        path = folder / "attack.pt"
        path.write_bytes(data)
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert isinstance(answer, list), answer
        assert not (folder / "pwned").exists()
        return answer

    return run


def archive(records: dict[str, bytes], **lies: int) -> bytes:
    """A stored zip archive. ``lies`` overwrite a field of the last record, or of the end record."""
    body, directory = b"", b""
    for number, (name, content) in enumerate(records.items()):
        raw = name.encode()
        last = lies if number == len(records) - 1 else {}
        crc, size = zlib.crc32(content), len(content)
        offset = last.get("offset", len(body))
        local_size = last.get("local_size", size)
        body += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, last.get("local_method", 0), 0, 0, crc, local_size,
                            local_size, len(raw), 0)  # fmt: skip
        body += last.get("local_name", raw) + content
        central_size = last.get("size", size)
        method = last.get("method", 0)
        flags = last.get("flags", 0)
        extra = last.get("extra", b"")
        directory += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, flags, method, 0, 0, crc, central_size,
                                 central_size, len(raw), len(extra), 0, last.get("disk", 0), 0, 0, offset)  # fmt: skip
        directory += raw + extra
    count, start, size = (
        lies.get("count", len(records)),
        lies.get("start", len(body)),
        lies.get("length", len(directory)),
    )
    end64 = lies.get("end64", b"")
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, start, 0)
    return body + directory + end64 + end


def checkpoint(program: bytes, **lies: int) -> bytes:
    """An archive with this pickle and one storage of 16 bytes."""
    return archive({"m/data.pkl": program, "m/byteorder": b"little", "m/data/0": bytes(16)}, **lies)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<i", len(raw)) + raw


def storage(key: bytes = text("0"), numel: int = 4, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + kind + key + text("cpu") + number(numel) + b"tQ"


def tensor(
    offset: int = 0, shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), of: bytes | None = None
) -> bytes:
    sizes = b"(" + b"".join(map(number, shape)) + b"t"
    steps = b"(" + b"".join(map(number, strides)) + b"t"
    refer = storage() if of is None else of
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + refer + number(offset) + sizes + steps + b"\x89}tR"


def test_the_archive_of_these_tests_is_sound(attacked):
    answer = attacked(checkpoint(b"\x80\x02}" + text("w") + tensor() + b"s."))
    assert answer == ["pytorch", 1, ["w"], []]


class Reduced:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


TOUCH = "touch $PWNED"
CODE = {
    "os.system": pickle.dumps(Reduced(os.system, (TOUCH,))),
    "eval": pickle.dumps(Reduced(eval, (f"__import__('os').system({TOUCH!r})",))),
    "import": b"\x80\x02cantigravity\nfly\n.",
    "nested attribute": b"\x80\x04" + text("os") + text("path.join.__globals__") + b"\x93.",
    "state": b"cos\nsystem\n(" + text(TOUCH) + b"tR" + text(TOUCH) + b"b.",
    "inst": b"(S'touch $PWNED'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\n" + text(TOUCH) + b"o.",
    "newobj": b"cos\nsystem\n(" + text(TOUCH) + b"t\x81.",
    "newobj_ex": b"cos\nsystem\n(" + text(TOUCH) + b"t}\x92.",
    "extension": b"\x80\x02\x82\x01.",
    "call of a call": b"cbuiltins\ngetattr\n(cos\nsystem\n" + text("__call__") + b"tR(" + text(TOUCH) + b"tR.",
    "persistent id": b"cos\nsystem\nQ.",
    "persistent name": b"Ptouch\n.",
    "storage class": storage(kind=b"cos\nsystem\n") + b".",
    "call of a string": text("x") + b")R.",
    "setstate of a class": b"cbuiltins\nint\n}" + text("real") + b"K\1sb.",
    "out of band": b"\x80\x05\x97\x98.",
}


@pytest.mark.parametrize("program", CODE.values(), ids=CODE)
def test_nothing_in_a_pickle_runs(program, attacked):
    answer = attacked(checkpoint(program))
    assert answer[:2] == ["pytorch", 1]


def dag(levels: int) -> bytes:
    """``a = [a, a]``, again and again: 2 ** levels paths to one tensor."""
    program = b"\x80\x02" + tensor() + b"q\0"
    for _ in range(levels):
        program += b"0](h\0h\0eq\0"
    return program + b"."


def colliding_keys(count: int) -> bytes:
    """Integers with one hash: in a dict, each is compared with all before it."""
    keys = b"".join(number(n * ((1 << 61) - 1)) + b"N" for n in range(1, count))
    return b"}(" + keys + b"u."


WIDE = b"}(" + b"".join(b"M" + struct.pack("<H", n) + b"N" for n in range(60_000)) + b"uq\0"
LONG = b"](" + b"NN\x86" * 100_000 + b"e\x85q\1"

BOMBS = {
    "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "memo of protocol 0": b"Np9999999999999999999\n.",
    "bytes of 2**62": b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "bytes of 2**31": b"B" + struct.pack("<I", 1 << 31) + b"x.",
    "string of 2**31": b"T" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "string of -1": b"T" + struct.pack("<i", -1) + b"x.",
    "text of 2**62": b"\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "text of 2**31": b"X" + struct.pack("<I", 1 << 31) + b"x.",
    "bytearray of 2**62": b"\x96" + struct.pack("<Q", 1 << 62) + b"x.",
    "bytearray of 2**33": b"\x96" + struct.pack("<Q", 1 << 33) + b"x.",
    "frame of 2**62": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "integer of 2**31 bytes": b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "integer of -1 bytes": b"\x8b" + struct.pack("<i", -1) + b"x.",
    "decimal of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "endless": b"\x80\x02" + b"N0" * 6_000_000,
    "empty dicts": b"}" * 12_000_000,
    "marks": b"(" * 12_000_000,
    "deep lists": b"]" * 3_000_000 + b"a" * 2_999_999 + b".",
    "deep tuples": b")" + b"\x85" * 3_000_000 + b".",
    "deep marks": b"(" * 9_000 + b"l" * 9_000 + b".",
    "deep calls": b"cx\ny\n" + b")R" * 1_000_000 + b".",
    "deep subclass tensors": b"ctorch._tensor\n_rebuild_from_type_v2\n" * 1000 + b"." ,
    "hash of a tuple DAG": b"}" + b")" + b"2\x86" * 60 + b"Ns.",
    "set of a tuple DAG": b"\x8f(" + b")" + b"2\x86" * 60 + b"\x90.",
    "frozenset of a tuple DAG": b"(" + b")" + b"2\x86" * 60 + b"\x91.",
    "keys of one hash": colliding_keys(100_000),
    "copies of a state": b"cx\ny\n)R" + WIDE + b"bh\0" * 500_000 + b"b.",
    "copies of a state in many objects": WIDE + b"](" + b"cx\ny\n)Rh\0N\x86b" * 100_000 + b"e.",
    "copies of pairs": LONG + b"0ccollections\nOrderedDict\nh\1R" * 100_000 + b".",
    "copies of a set": LONG + b"0cbuiltins\nset\nh\1R" * 100_000 + b".",
    "copies of bytes": text("x" * 100_000) + text("latin1") + b"\x86q\1" + b"0c_codecs\nencode\nh\1R" * 100_000 + b".",
    "copies of keywords": b"(" + b"N" * 100_000 + b"tq\1" + b"}NNsq\2" + b"0cx\ny\nh\1h\2\x92" * 100_000 + b".",
    "DAG": dag(60),
    "cycle": b"\x80\x02]q\0(h\0h\0}q\1" + text("x") + b"h\1sh\1e.",
    "long names": b"}" + text("k" * 1_900_000) + tensor() + b"s.",
    "deep names": b"".join(b"}" + text("k" * 1000) for _ in range(3000)) + tensor() + b"s" * 3000 + b".",
    "a million names": tensor() + b"q\0](" + b"h\0" * 1_000_000 + b"e.",
    "a huge integer as name": b"}" + number(1 << 800_000) + tensor() + b"s.",
    "no stop": b"\x80\x02N",
    "nothing": b"",
    "unknown opcode": b"\xff",
    "stack underflow": b"R.",
    "mark underflow": b"t.",
    "protocol 250": b"\x80\xfaN.",
    "bad UTF-8": b"X\1\0\0\0\xff.",
    "bad escape": b"S'\\d'\n.",
    "unquoted": b"Sx\n.",
    "odd items": b"}(NNNu.",
    "unhashable": b"}]Ns.",
    "append to a number": b"K\1Na.",
    "entry of a tensor": tensor() + b"NNs.",
    "entry of a list": b"]NNs.",
}  # fmt: skip


@pytest.mark.parametrize("program", BOMBS.values(), ids=BOMBS)
def test_bombs_do_not_explode(program, attacked):
    answer = attacked(checkpoint(program))
    assert answer[:2] == ["pytorch", 1]


def test_a_dag_lists_its_tensor_at_the_first_container_that_holds_it(attacked):
    answer = attacked(checkpoint(dag(20)))
    assert answer[2] == ["/".join(["[0]"] * 20), "/".join([*["[0]"] * 19, "[1]"])]


LYING_TENSORS = {
    "storage that is not there": (tensor(of=storage(text("2"))), False),
    "storage outside the folder": (tensor(of=storage(text("../data.pkl"))), False),
    "key that is no text": (tensor(of=storage(b"K\0")), False),
    "more elements than the record": (tensor(of=storage(numel=5)), False),
    "negative number of elements": (tensor(of=storage(numel=-1)), False),
    "2**80 elements": (tensor(of=storage(numel=1 << 80)), False),
    "shape behind the end": (tensor(shape=(5,)), True),
    "offset behind the end": (tensor(offset=1), True),
    "offset far away": (tensor(offset=1 << 62), True),
    "negative offset": (tensor(offset=-1), True),
    "negative size": (tensor(shape=(-4,)), True),
    "negative stride": (tensor(strides=(-1,)), True),
    "huge stride": (tensor(strides=(1 << 62,)), True),
    "size beyond 64 bits": (tensor(shape=(1 << 80,), strides=(0,)), True),
    "a petabyte in 16 bytes": (tensor(shape=(1 << 50,), strides=(0,)), True),
    "a petabyte by overlap": (tensor(shape=(2, 1 << 25, 1 << 25), strides=(1, 0, 0)), True),
    "fewer strides than sizes": (tensor(shape=(2, 2), strides=(1,)), True),
    "65 dimensions": (tensor(shape=(1,) * 65, strides=(1,) * 65), True),
    "storage of unknown type": (tensor(of=storage(text("1"), kind=b"ctorch\nNewStorage\n")), True),
    "storage that is a number": (tensor(of=b"K\1"), True),
}


@pytest.mark.parametrize(("lie", "good_survives"), LYING_TENSORS.values(), ids=LYING_TENSORS)
def test_lying_tensors_are_not_listed(lie, good_survives, attacked):
    program = b"\x80\x02}(" + text("good") + tensor() + text("bad") + lie + b"u."
    answer = attacked(archive({"m/data.pkl": program, "m/data/0": bytes(16), "m/data/1": bytes(16)}))
    assert answer[:2] == ["pytorch", 2]
    assert answer[2] == (["good"] if good_survives else [])


PKL = b"\x80\x02}" + text("w") + tensor() + b"s."
RECORDS = {"m/data.pkl": PKL, "m/byteorder": b"little", "m/data/0": bytes(16)}


def end64(**fields: int) -> bytes:
    size, start, count = fields["size"], fields["start"], fields["count"]
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", fields.get("nbytes", 44), 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, fields.get("at", start + size), fields.get("disks", 1))
    return record + locator


SOUND = archive(RECORDS)
DIRECTORY_START = SOUND.index(b"PK\1\2")
DIRECTORY_SIZE = SOUND.index(b"PK\5\6") - DIRECTORY_START
GOOD64 = {"size": DIRECTORY_SIZE, "start": DIRECTORY_START, "count": 3}


def zip64_extra(*values: int) -> bytes:
    return struct.pack("<HH", 1, 8 * len(values)) + struct.pack(f"<{len(values)}Q", *values)


ZIPS = {
    "overlapping records": archive(RECORDS, offset=0),
    "record inside another": archive({**RECORDS, "m/data/1": SOUND[:100]}, offset=DIRECTORY_START + 38),
    "offset behind the end": archive(RECORDS, offset=1 << 30),
    "offset in the directory": archive(RECORDS, offset=DIRECTORY_START),
    "local name differs": archive(RECORDS, local_name=b"m/data/9"),
    "local size differs": archive(RECORDS, local_size=8),
    "local method differs": archive(RECORDS, local_method=8),
    "central size differs": archive(RECORDS, size=8),
    "both sizes wrong": archive(RECORDS, size=1 << 20, local_size=1 << 20),
    "central method differs": archive(RECORDS, method=8),
    "compressed storage": archive(RECORDS, method=8, local_method=8),
    "compressed pickle": archive({"m/data/0": bytes(16), "m/data.pkl": PKL}, method=8, local_method=8),
    "unknown method": archive(RECORDS, method=99, local_method=99),
    "encrypted": archive(RECORDS, flags=1),
    "descriptor promised": archive(RECORDS, flags=8),
    "another volume": archive(RECORDS, disk=3),
    "more records than listed": archive(RECORDS, count=2),
    "fewer records than listed": archive(RECORDS, count=60_000),
    "directory elsewhere": archive(RECORDS, start=0),
    "directory of no length": archive(RECORDS, length=0, count=0),
    "directory longer": archive(RECORDS, length=DIRECTORY_SIZE + 1),
    "duplicate name": archive({**RECORDS, "m/data/1": bytes(16)}).replace(b"m/data/1", b"m/data/0"),
    "no folder": archive({"data.pkl": PKL}),
    "no records": archive({}),
    "two folders": archive({"m/x": b"", "n/data.pkl": PKL}),
    "zip64 field missing": archive(RECORDS, size=0xFFFFFFFF, local_size=0xFFFFFFFF),
    "zip64 field short": archive(RECORDS, size=0xFFFFFFFF, extra=zip64_extra(16)),
    "zip64 field lies": archive(RECORDS, size=0xFFFFFFFF, extra=zip64_extra(1 << 62, 1 << 62)),
    "zip64 offset lies": archive(RECORDS, offset=0xFFFFFFFF, extra=zip64_extra(1 << 62)),
    "zip64 end elsewhere": archive(RECORDS, end64=end64(**GOOD64, at=0)),
    "zip64 end far away": archive(RECORDS, end64=end64(**GOOD64, at=1 << 62)),
    "zip64 end of other length": archive(RECORDS, end64=end64(**GOOD64, nbytes=1 << 62)),
    "zip64 with volumes": archive(RECORDS, end64=end64(**GOOD64, disks=7)),
    "zip64 with more records": archive(RECORDS, end64=end64(**{**GOOD64, "count": 1 << 60}), count=0xFFFF),
    "zip64 with other records": archive(RECORDS, end64=end64(**{**GOOD64, "count": 2})),
    "zip64 with a huge directory": archive(RECORDS, end64=end64(**{**GOOD64, "size": 1 << 60}), length=0xFFFFFFFF),
    "text behind the end": SOUND + b"x",
    "comment of another length": SOUND[:-2] + b"\1\0",
}


@pytest.mark.parametrize("data", ZIPS.values(), ids=ZIPS)
def test_lying_archives_are_kept_whole(data, attacked):
    answer = attacked(data)
    assert answer[0] == "opaque"
    assert len(answer[3]) == 1


def test_sound_zip64(attacked):
    sizes = {"size": 0xFFFFFFFF, "extra": zip64_extra(16, 16)}
    end = archive(RECORDS, end64=end64(**GOOD64), count=0xFFFF, start=0xFFFFFFFF, length=0xFFFFFFFF)
    for data in (end, archive(RECORDS, **sizes)):
        assert attacked(data) == ["pytorch", 1, ["w"], []]


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


HEADERS = {
    "nested lists": safetensors(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "many lists": safetensors(b'{"a":[' + b"[]," * 20_000_000 + b"0]}"),
    "many numbers": safetensors(b'{"a":[' + b"1234," * 18_000_000 + b"0]}"),
    "endless number": safetensors(b'{"a":' + b"9" * 5_000_000 + b"}"),
    "huge shape": safetensors(b'{"a":{"dtype":"U8","shape":[' + b"9," * 1_000_000 + b'9],"data_offsets":[0,1]}}'),
    "duplicates": safetensors(b'{"b":0,' + b",".join(b'"%d":0' % n for n in range(200_000)) + b',"199999":1}'),
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_lying_headers_are_kept_whole(data, attacked):
    answer = attacked(data)
    assert answer[0] == "opaque"


# The loops over mutated files run inside one confined process, which checks each layout itself.
MUTATIONS = """
import json, random, resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
from theta_nb.checkpoints.detection import locate
from theta_nb.errors import CheckpointError

class Bytes:
    def __init__(self, data): self.data, self.size = data, len(data)
    def read(self, offset, nbytes):
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size: raise CheckpointError("outside")
        return self.data[offset:offset + nbytes]

def check(data):
    layout = locate(Bytes(data), "model.pt")
    position = 0
    for _, _, offset, nbytes in layout.segments():
        assert offset == position
        position += nbytes
    assert position == len(data)
    for tensor in layout.tensors:
        assert tensor.end() <= layout.storages[tensor.storage].nbytes
    return layout.format

data = open(sys.argv[1], "rb").read()
seen = {{}}
if sys.argv[2] == "prefixes":
    for length in range(len(data)):
        seen[check(data[:length])] = 1
elif sys.argv[2] == "flips":
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            mutant = bytearray(data)
            mutant[at] ^= mask
            seen[check(bytes(mutant))] = 1
else:
    dice = random.Random(7)
    for _ in range(4000):
        mutant = bytearray(data)
        for _ in range(dice.randrange(1, 6)):
            at, many = dice.randrange(len(mutant)), dice.randrange(1, 9)
            mutant[at:at + many] = dice.choice((b"", bytes(many), dice.randbytes(many), mutant[:many], b"\\xff" * many))
        seen[check(bytes(mutant))] = 1
print(json.dumps(sorted(seen)))
"""


@pytest.mark.parametrize("kind", ["prefixes", "flips", "splices"])
@pytest.mark.parametrize("format_name", ["pytorch", "pytorch by another writer", "safetensors"])
def test_mutated_files(kind, format_name, tmp_path, saved):
    import safetensors.torch
    import torch

    state = {"w": torch.ones(2, 3), "n": {"x": [torch.ones(2, dtype=torch.float16).t(), 3]}}
    data = {
        "pytorch": lambda: saved(state),
        "pytorch by another writer": lambda: archive(
            {**RECORDS, "m/data/1": b"x" * 8, "m/.data/serialization_id": b"0" * 40}
        ),
        "safetensors": lambda: safetensors.torch.save({"w": state["w"], "e": torch.empty(0)}, {"format": "pt"}),
    }[format_name]()
    path = tmp_path / "model"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", MUTATIONS.format(memory=MEMORY), str(path), kind],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    formats = json.loads(done.stdout)
    assert formats == ["opaque"] if kind == "prefixes" else "opaque" in formats


def test_random_programs(attacked):
    """Any sequence of opcodes gives a layout; most fail in the machine, none outside it."""
    dice = random.Random(11)
    opcodes = [getattr(pickle, name) for name in dir(pickle) if type(getattr(pickle, name)) is bytes]
    opcodes = [code for code in opcodes if len(code) == 1]
    pieces = [*opcodes, *opcodes, tensor(), storage(), text("w"), number(3), b"K\1", b"cx\ny\n", b"h\0", b"q\0"]
    for _ in range(500):
        program = b"".join(dice.choices(pieces, k=dice.randrange(1, 30))) + b"."
        assert attacked(checkpoint(program))[:2] == ["pytorch", 1]
