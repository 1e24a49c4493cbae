"""GGUF files: written and read back within the error of their type; anything else refused."""

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from small_transformer import CONFIG, LiveBytes, make_transformer, relative_error, save_transformer, velocity

from ex4d.errors import ConfigError, MissingDependencyError, OutputError, WeightsError
from ex4d.model import gguf_files
from ex4d.model.adapter import Lora, attach_lora, lora_shapes
from ex4d.model.gguf_files import KINDS, gguf_gib, load_gguf, write_gguf

ORIGINAL_NAMES = {
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_out.0": "cross_attn.o",
    "attn1.to_": "self_attn.",
    "attn2.to_": "cross_attn.",
    "attn1.": "self_attn.",
    "attn2.": "cross_attn.",
    "add_k_proj": "k_img",
    "add_v_proj": "v_img",
    "norm_added_k": "norm_k_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    ".norm2.": ".norm3.",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.0": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "proj_out": "head.head",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_transformer(tmp_path_factory.mktemp("transformer"))


@pytest.fixture(scope="module")
def q8(folder: Path) -> Path:
    write_gguf(folder, folder / "q8.gguf", kind="Q8_0")
    return folder / "q8.gguf"


@pytest.mark.parametrize(
    ("kind", "bits", "weight_error", "output_error"),
    [("Q4_0", 4.5, 1 / 8, 0.06), ("Q5_0", 5.5, 1 / 16, 0.03), ("Q8_0", 8.5, 1 / 254, 0.004)],
)
def test_round_trip(
    folder: Path, tmp_path: Path, kind: Any, bits: float, weight_error: float, output_error: float
) -> None:
    """Every weight within a step of its block of 32; outputs: 0.042, 0.020 and 0.002 were measured."""
    file = tmp_path / "out.gguf"
    write_gguf(folder, file, kind=kind)
    exact, matrices = make_transformer(), 0
    for tensor in gguf.GGUFReader(file).tensors:
        stored = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        weight = exact.state_dict()[tensor.name].numpy()
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
            assert np.array_equal(stored.reshape(weight.shape), weight)
            continue
        matrices += weight.size
        largest = np.abs(weight.reshape(-1, 32)).max(axis=1, keepdims=True)
        error = np.abs(stored - weight).reshape(-1, 32)
        assert (error <= largest * (weight_error + 2e-3)).all(), tensor.name  # scales are float16
        assert error.any()
    blocks: Any = exact.blocks
    assert matrices == sum(m.weight.numel() for m in blocks.modules() if isinstance(m, torch.nn.Linear))
    rest = sum(p.numel() for p in exact.parameters()) - matrices
    assert file.stat().st_size == pytest.approx(matrices * bits / 8 + 4 * rest, rel=0.02)
    assert gguf_gib(file) == file.stat().st_size / 2**30
    loaded = load_gguf(file, folder, dtype=torch.float32)
    assert relative_error(velocity(loaded), velocity(exact)) < output_error


def test_precisions_after_loading(folder: Path, q8: Path) -> None:
    loaded = load_gguf(q8, folder)
    kinds = {n: p.dtype for n, p in loaded.named_parameters()}
    assert kinds["blocks.0.attn1.to_q.weight"] == torch.uint8
    assert kinds["blocks.0.attn1.to_q.bias"] == kinds["patch_embedding.weight"] == torch.bfloat16
    assert kinds["condition_embedder.time_embedder.linear_1.weight"] == torch.float32
    assert kinds["blocks.0.norm2.weight"] == kinds["blocks.0.scale_shift_table"] == torch.float32
    assert loaded.compute_dtype == torch.bfloat16
    assert not any(p.is_meta or p.requires_grad for p in loaded.parameters())
    assert relative_error(velocity(loaded), velocity(make_transformer())) < 0.015


def test_a_lora_works_beside_the_weights(folder: Path, q8: Path) -> None:
    exact, loaded = make_transformer(), load_gguf(q8, folder)
    random = torch.Generator().manual_seed(3)
    shapes = lora_shapes(exact, 4)
    lora = Lora(tensors={k: 0.1 * torch.randn(s, generator=random) for k, s in shapes.items()}, rank=4, alpha=4)
    plain = velocity(exact)
    for transformer in (exact, loaded):
        attach_lora(transformer, lora)
    assert relative_error(velocity(loaded), velocity(exact)) < 0.015
    assert relative_error(plain, velocity(exact)) > 0.05


def _rewrite(source: Path, target: Path, *, bf16: bool = False) -> None:
    """The file as others write it: Wan's own names; norms, biases and tables as bfloat16 if wished."""
    writer = gguf.GGUFWriter(target, "wan")
    for tensor in gguf.GGUFReader(source).tensors:
        name, kind, data = tensor.name, tensor.tensor_type, np.array(tensor.data)
        for ours, theirs in ORIGINAL_NAMES.items():
            name = name.replace(ours, theirs)
        name = name.replace("scale_shift_table", "modulation" if name.startswith("blocks") else "head.modulation")
        if bf16 and kind == gguf.GGMLQuantizationType.F32 and "patch_embedding" not in name:
            kind = gguf.GGMLQuantizationType.BF16
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("bf16", [False, True])
def test_files_of_others(folder: Path, q8: Path, tmp_path: Path, bf16: bool) -> None:
    file = tmp_path / "theirs.gguf"
    _rewrite(q8, file, bf16=bf16)
    found, ours = velocity(load_gguf(file, folder)), velocity(load_gguf(q8, folder))
    assert relative_error(found, ours) < 0.01 if bf16 else torch.equal(found, ours)


def test_other_types_are_read(folder: Path, tmp_path: Path) -> None:
    """Q4_1 and the k-quants come from other programs; Q4_1 is written here by hand."""
    file, exact = tmp_path / "q4_1.gguf", make_transformer()
    writer = gguf.GGUFWriter(file, "wan")
    for name, tensor in exact.state_dict().items():
        data, kind = tensor.numpy(), gguf.GGMLQuantizationType.F32
        if name.endswith("attn1.to_q.weight"):
            kind = gguf.GGMLQuantizationType.Q4_1
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert 0 < relative_error(velocity(load_gguf(file, folder, dtype=torch.float32)), velocity(exact)) < 0.03


def test_writing_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    transformer = make_transformer()
    for parameter in transformer.parameters():
        parameter.data = parameter.data.bfloat16()
    transformer.save_pretrained(tmp_path)
    seen: list[tuple[int, int]] = []
    with LiveBytes() as live:
        write_gguf(tmp_path, tmp_path / "out.gguf", on_tensor=lambda done, total: seen.append((done, total)))
    state = transformer.state_dict()
    assert seen == [(i + 1, len(state)) for i in range(len(state))]
    on_disk, largest = sum(t.nbytes for t in state.values()), max(2 * t.nbytes for t in state.values())
    assert on_disk <= live.peak <= on_disk + largest  # memory-mapped, and one tensor in float32


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: b"not a model" * 100,
        lambda data: _flipped(data, 8),  # number of tensors
        lambda data: _flipped(data, 16),  # number of keys
    ],
    ids=["half", "header", "empty", "text", "tensors", "keys"],
)
def test_damaged_files_are_refused(folder: Path, q8: Path, tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(damage(q8.read_bytes()))
    with pytest.raises(WeightsError, match=r"bad\.gguf"):
        load_gguf(file, folder)


def test_another_model_is_refused(q8: Path, tmp_path: Path) -> None:
    deeper = save_transformer(tmp_path / "deeper", num_layers=4)
    with pytest.raises(WeightsError, match=r"missing.*blocks\.3"):
        load_gguf(q8, deeper)
    wider = save_transformer(tmp_path / "wider", ffn_dim=288)
    with pytest.raises(WeightsError, match=r"another shape.*ffn"):
        load_gguf(q8, wider)
    with pytest.raises(WeightsError, match="nothing"):
        load_gguf(tmp_path / "none.gguf", deeper)


def test_what_cannot_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = "Q4_K"
    with pytest.raises(ConfigError, match="Q4_0, Q5_0, Q8_0"):
        write_gguf(folder, tmp_path / "out.gguf", kind=kind)
    odd = save_transformer(tmp_path / "odd", num_attention_heads=1, attention_head_dim=48, added_kv_proj_dim=48)
    with pytest.raises(ConfigError, match="multiples of 32"):
        write_gguf(odd, tmp_path / "out.gguf")
    with pytest.raises(OutputError, match="no folder"):
        write_gguf(folder, tmp_path / "none" / "out.gguf")
    monkeypatch.setattr(gguf_files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="disk space"):
        write_gguf(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_a_stopped_write_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_gguf(folder, tmp_path / "out" / "out.gguf", on_tensor=stop)
    assert not list((tmp_path / "out").iterdir())


def test_without_gguf_the_extra_is_named(folder: Path, q8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    for call in (lambda: write_gguf(folder, folder / "x.gguf"), lambda: load_gguf(q8, folder)):
        with pytest.raises(MissingDependencyError, match=r"ex4d\[quant\]"):
            call()


def test_kinds() -> None:
    assert KINDS == ("Q4_0", "Q5_0", "Q8_0")
    assert CONFIG["ffn_dim"] % 32 == 0
