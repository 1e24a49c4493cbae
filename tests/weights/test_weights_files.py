"""Reading tensors from files that are sound, odd, cut off or hostile; and remembered hashes."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ex4d.errors import MissingDependencyError, WeightsError
from ex4d.weights.files import describe_weights, read_tensors, sha256_file, tensor_shapes, weight_files

STATE = {"blocks.0.weight": torch.arange(6.0).reshape(2, 3), "blocks.1.weight": torch.ones(4, dtype=torch.bfloat16)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))


class Payload:
    """Pickled, it writes a file when it is loaded by an unsafe reader."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def assert_same(read: dict[str, torch.Tensor]) -> None:
    assert read.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.ckpt", "a.pt", "a.bin", "A.PTH", "legacy.pth"])
def test_each_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=not name.startswith("legacy"))
    assert_same(read_tensors(path))
    assert tensor_shapes(str(path)) == {"blocks.0.weight": (2, 3), "blocks.1.weight": (4,)}


def test_nested_checkpoints_are_unwrapped_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    torch.save({"module": {"state_dict": STATE}, "epoch": 3, "optimizer": {}}, tmp_path / "a.ckpt")
    assert_same(read_tensors(tmp_path / "a.ckpt", note=notes.append))
    assert notes == [
        f"{tmp_path}/a.ckpt: took the weights from its 'module', left epoch, optimizer",
        f"{tmp_path}/a.ckpt: took the weights from its 'state_dict'",
    ]


def test_folders_and_shards(tmp_path: Path) -> None:
    first, second = tmp_path / "m-00001-of-00002.safetensors", tmp_path / "m-00002-of-00002.safetensors"
    save_file({"blocks.0.weight": STATE["blocks.0.weight"]}, first)
    save_file({"blocks.1.weight": STATE["blocks.1.weight"]}, second)
    assert_same(read_tensors(tmp_path))
    assert_same(read_tensors([second, first]))
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"blocks.0.weight": first.name, "blocks.1.weight": second.name}}))
    save_file({"other": torch.ones(1)}, tmp_path / "another.safetensors")
    assert weight_files(tmp_path) == [first, second], "the index decides"
    with pytest.raises(WeightsError, match=r"every tensor once.*blocks\.0\.weight"):
        read_tensors([first, first])
    second.unlink()
    with pytest.raises(WeightsError, match=r"2 shards.*1 missing: m-00002-of-00002\.safetensors"):
        read_tensors(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(WeightsError, match="weight_map"):
        read_tensors(tmp_path)


def test_a_folder_without_safetensors_falls_back_to_pickles(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    assert_same(read_tensors(tmp_path))
    (tmp_path / "a.pth").unlink()
    with pytest.raises(WeightsError, match=r"files of weights .*none"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    torch.save({**STATE, "x": Payload(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"evil\.ckpt; got Python objects \((posix|nt)\.mkdir\).*do not load"):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(WeightsError, match=r"evil\.ckpt"):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    big = {**STATE, "big": torch.zeros(5000)}
    save_file(big, path) if suffix == ".safetensors" else torch.save(big, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    for read in (read_tensors, tensor_shapes):
        with pytest.raises(WeightsError, match=rf"cut{suffix}.*cut off.*download it again"):
            read(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b'{"error":"Repository not found"}', "an error message of a server"),
        (b"Entry not found", "another kind"),
        (bytes(range(7, 71)), "another kind"),
    ],
)
def test_what_downloads_leave_instead(tmp_path: Path, suffix: str, content: bytes, said: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"a{suffix}.*({said})"):
        read_tensors(path)


def test_damaged_safetensors_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for header, data, said in (
        ({"a": entry}, b"x" * 20, "16 bytes of tensors.*got 20"),
        ({"a": entry | {"shape": [2, 3]}}, b"x" * 16, r"damaged one \(a: F32 \[2, 3\]"),
        ({"a": entry | {"shape": [-2, -2]}}, b"x" * 16, "damaged"),
        ({"a": {}}, b"", "damaged one .*dtype"),
        ([1], b"", "another kind"),
    ):
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        with pytest.raises(WeightsError, match=said):
            tensor_shapes(path)


def test_values_that_are_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for content, said in (
        ({**STATE, "step": 3}, "other values: step"),
        ({0: torch.ones(1)}, "other values: 0"),
        ([torch.ones(1)], "a list"),
        ({}, "none"),
    ):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=rf"a\.pth.*{said}"):
            read_tensors(path)


def test_missing_files_and_unknown_kinds(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no\.safetensors; got nothing"):
        read_tensors(tmp_path / "no.safetensors")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"weights as \.safetensors, \.pth.*a\.onnx"):
        read_tensors(tmp_path / "a.onnx")


def test_shapes_of_safetensors_need_no_torch(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    code = (
        "import sys; from ex4d.weights import registry, strict, verify; from ex4d.weights.files import tensor_shapes;"
        "print(sorted(tensor_shapes(sys.argv[1]).items()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "[('blocks.0.weight', (2, 3)), ('blocks.1.weight', (4,))] False\n"


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    save_file(STATE, tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(MissingDependencyError, match=r"ex4d\[gen\]"):
            read_tensors(tmp_path / name)


def test_hashes_of_large_files_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    data = bytes(1 << 24)
    path.write_bytes(data)
    stat = path.stat()
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()
    path.write_bytes(b"x" + data[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sha256_file(path) == hashlib.sha256(data).hexdigest(), "same file, size and time: not read again"
    assert sha256_file(path, remembered=False) == hashlib.sha256(b"x" + data[1:]).hexdigest()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    path.write_bytes(data[:-1] + b"y")
    assert sha256_file(path) == hashlib.sha256(data[:-1] + b"y").hexdigest()


def test_hashing_needs_no_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way of the cache")
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "file"))
    (tmp_path / "a.pth").write_bytes(bytes(1 << 24))
    assert sha256_file(tmp_path / "a.pth") == hashlib.sha256(bytes(1 << 24)).hexdigest()
    with pytest.raises(WeightsError, match="to be able to read"):
        sha256_file(tmp_path / "none")


def test_describe_weights(tmp_path: Path) -> None:
    for name in ("b/config.json", "a.safetensors", ".partial/x.part", ".cache/y.json", "weights.json", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    told = describe_weights(tmp_path)
    assert list(told) == ["a.safetensors", "b/config.json"]
    assert told["a.safetensors"] == hashlib.sha256(b"a.safetensors").hexdigest()
    assert describe_weights(tmp_path / "a.safetensors") == {"a.safetensors": told["a.safetensors"]}
    with pytest.raises(WeightsError, match="no such files"):
        describe_weights(tmp_path / ".partial")
