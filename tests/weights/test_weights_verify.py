"""What verification finds in folders that are whole, incomplete, damaged, or of another model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ex4d.errors import WeightsError
from ex4d.weights.manifest import manifest_of, write_manifest
from ex4d.weights.verify import check_base_config, verify_folder

BASE: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel", "in_channels": 36, "out_channels": 16, "num_layers": 40,
    "num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "text_dim": 4096, "image_dim": 1280,
    "added_kv_proj_dim": 5120, "pos_embed_seq_len": None,
}  # fmt: skip
SHARDS = ("diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base folder in form, with tensors too small to be one, and its manifest."""
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "base"
    parts = ("transformer", "vae", "text_encoder", "image_encoder", "tokenizer", "scheduler")
    for part in parts:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(BASE if part == "transformer" else {}))
    for part in ("vae", "text_encoder", "image_encoder"):
        save_file({"a": torch.zeros(2, 2)}, folder / part / "model.safetensors")
    for number, name in enumerate(SHARDS):
        save_file({f"blocks.{number}": torch.zeros(4)}, folder / "transformer" / name)
    write_index(folder, {"blocks.0": SHARDS[0], "blocks.1": SHARDS[1]})
    (folder / "model_index.json").write_text(json.dumps({part: ["diffusers", "Class"] for part in parts}))
    write_manifest(folder, manifest_of(folder, sources={}))
    return folder


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def without_manifest(folder: Path) -> Path:
    """So that only the structure is looked at."""
    (folder / "weights.json").unlink()
    return folder


def test_a_whole_folder(base: Path) -> None:
    hashed: list[str] = []
    report = verify_folder(base, on_file=hashed.append)
    assert report.problems == ()
    assert (report.kind, report.num_tensors) == ("base", 5)
    assert report.num_hashed == report.num_files == len(hashed) == 13


def test_every_fault_against_the_manifest_is_told(base: Path) -> None:
    shard = base / "transformer" / SHARDS[0]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + b"x")
    (base / "vae" / "model.safetensors").unlink()
    (base / "tokenizer" / "config.json").write_text("longer than before")
    problems = " | ".join(verify_folder(base).problems)
    assert f"{SHARDS[0]} has another content" in problems
    assert "model.safetensors is missing" in problems
    assert "has 18 bytes, not 2" in problems


def test_a_remembered_hash_does_not_hide_damage(base: Path) -> None:
    big = base / "vae" / "model.safetensors"
    save_file({"a": torch.zeros(1 << 22)}, big)
    write_manifest(base, manifest_of(base, sources={}))
    stat = big.stat()
    with big.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    __import__("os").utime(big, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert any("another content" in problem for problem in verify_folder(base).problems)


def test_shards_and_index(base: Path) -> None:
    without_manifest(base)
    assert verify_folder(base).problems == ()
    write_index(base, {"blocks.0": SHARDS[0], "blocks.1": SHARDS[0]})
    problems = verify_folder(base).problems
    assert len(problems) == 1
    assert f"{SHARDS[0]} lacks 1 of the index's tensors, e.g. blocks.1" in problems[0]
    write_index(base, {"blocks.0": SHARDS[0], "blocks.1": SHARDS[1]})
    save_file({"blocks.1": torch.zeros(4), "more": torch.zeros(1)}, base / "transformer" / SHARDS[1])
    assert "more" in verify_folder(base).problems[0]
    (base / "transformer" / SHARDS[1]).unlink()
    assert "a shard that" in verify_folder(base).problems[0]


def test_truncated_shards_and_web_pages(base: Path) -> None:
    without_manifest(base)
    shard = base / "transformer" / SHARDS[0]
    shard.write_bytes(shard.read_bytes()[:-3])
    (base / "vae" / "model.safetensors").write_text("<html>")
    problems = " | ".join(verify_folder(base).problems)
    assert "cut off" in problems
    assert "a web page" in problems


def test_parts_of_the_pipeline(base: Path) -> None:
    without_manifest(base)
    (base / "model_index.json").write_text("{}")
    (base / "image_encoder" / "model.safetensors").unlink()
    (base / "vae" / "config.json").unlink()
    (base / "tokenizer" / "config.json").unlink()
    (base / "transformer" / "config.json").write_text("[]")
    problems = " | ".join(verify_folder(base).problems)
    for said in ("names no scheduler", "image_encoder has no safetensors", "vae/config.json is missing",
                 "tokenizer is missing or empty", "a JSON object in"):  # fmt: skip
        assert said in problems


def test_the_base_of_another_model_is_a_problem(base: Path) -> None:
    without_manifest(base)
    (base / "transformer" / "config.json").write_text(json.dumps(BASE | {"in_channels": 16, "image_dim": None}))
    assert "T2V-14B" in verify_folder(base).problems[0]


def test_adapters_and_single_files(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "lora" / "lora.safetensors")
    report = verify_folder(tmp_path)
    assert report.kind == "adapter"
    assert [problem.rpartition("/")[2] for problem in report.problems] == [
        "config.json is missing", "diffusion_pytorch_model.safetensors is missing", "lora.json is missing",
    ]  # fmt: skip
    single = verify_folder(tmp_path / "lora" / "lora.safetensors")
    assert (single.kind, single.num_files, single.num_tensors, single.problems) == ("tensors", 1, 1, ())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="neither safetensors nor a manifest"):
        verify_folder(tmp_path)
    with pytest.raises(WeightsError, match="neither"):
        verify_folder(tmp_path / "none")


def test_a_damaged_manifest_is_a_problem(base: Path) -> None:
    (base / "weights.json").write_text("{")
    report = verify_folder(base)
    assert report.num_hashed == 0
    assert "JSON in" in report.problems[0]


def test_the_right_base_passes() -> None:
    check_base_config(BASE)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (BASE | {"in_channels": 16, "image_dim": None}, "T2V-14B"),
        (BASE | {"in_channels": 16, "image_dim": None, "num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
         "T2V-1.3B"),
        (BASE | {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}, "a 1.3B model"),
        (BASE | {"in_channels": 48, "out_channels": 48, "image_dim": None, "num_attention_heads": 24}, "TI2V-5B"),
        (BASE | {"image_dim": None}, "I2V-A14B"),
        (BASE | {"pos_embed_seq_len": 514}, "FLF2V-14B"),
        (BASE | {"_class_name": "WanVACETransformer3DModel", "in_channels": 16}, "VACE"),
        (BASE | {"num_layers": 39}, "another model"),
        ({"hidden_size": 1}, "another kind of model"),
    ],
)  # fmt: skip
def test_other_bases_are_named(config: dict[str, Any], name: str) -> None:
    with pytest.raises(WeightsError, match=rf"Wan2\.1-I2V-14B.*{name}.*ex4d weights pull 480p"):
        check_base_config(config)
