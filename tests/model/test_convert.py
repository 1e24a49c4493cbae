"""Original files become folders that compute the same; damaged or wrong ones are refused, the tensor named."""

import itertools
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ex4d.errors import WeightsError
from ex4d.model import convert
from ex4d.model.components import match_tensors
from ex4d.model.convert import convert_files
from ex4d.model.tiny import make_tiny_tokenizer
from parity.oracle import ORIGINALS, Oracle

DIT, VAE, CLIP, T5, ADAPTER = ORIGINALS
PICKLED = {VAE: ".pth", CLIP: ".pth", T5: ".pth", ADAPTER: ".ckpt"}
KEYS = {
    DIT: "blocks.1.self_attn.q.weight",
    VAE: "decoder.upsamples.4.residual.2.weight",
    CLIP: "visual.transformer.1.attn.to_qkv.weight",
    T5: "blocks.1.ffn.gate.0.weight",
    ADAPTER: "blocks.1.cross_attn.o.lora_B.default.weight",
}
MORE_KEYS = [
    (DIT, "head.modulation"),
    (DIT, "patch_embedding.weight"),
    (VAE, "conv2.bias"),
    (CLIP, "visual.pos_embedding"),
    (T5, "token_embedding.weight"),
    (ADAPTER, "latent_encoder.2.weight"),
    (ADAPTER, "blocks.0.ffn.0.lora_A.default.weight"),
]
FORMATS = [*itertools.product(KEYS, [".safetensors"]), *PICKLED.items()]
Fault = Callable[[dict[str, Tensor], str], str]


@pytest.fixture
def run(oracle: Oracle, tmp_path: Path) -> Callable[..., Path]:
    """Converts the original files, some of them replaced by a path (None: left out), into a new folder."""
    make_tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")

    def run(replaced: Mapping[str, Path | None] | None = None, **options: Any) -> Path:
        originals = {name: oracle.folder / f"{name}.safetensors" for name in ORIGINALS}
        given = [path for path in {**originals, **(replaced or {})}.values() if path is not None]
        settings = {"tokenizer": tmp_path / "tokenizer", "configs": oracle.configs(), **options}
        convert_files(given, tmp_path / "output", **settings)
        return tmp_path / "output"

    return run


def write(tensors: dict[str, Any], path: Path) -> Path:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def refused(run: Callable[..., Path], tmp_path: Path, replaced: Mapping[str, Path | None], **options: Any) -> str:
    """What is said; and nothing was written."""
    with pytest.raises(WeightsError) as raised:
        run(replaced, **options)
    assert not (tmp_path / "output").exists()
    return str(raised.value)


def names(text: str, name: str) -> bool:
    """Whether a text names a tensor: the whole name, not a part of another one."""
    return bool(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text))


# damaged files


def renamed(tensors: dict[str, Tensor], key: str) -> str:
    wrong = f"{key}.old" if "." not in key else key.replace(".", ".my_", 1)
    tensors[wrong] = tensors.pop(key)
    return rf"1 missing \({re.escape(key)}\), 1 not known \({re.escape(wrong)}"


def dropped(tensors: dict[str, Tensor], key: str) -> str:
    del tensors[key]
    return rf"got 1 missing \({re.escape(key)}\);"


def extra(tensors: dict[str, Tensor], key: str) -> str:
    tensors[f"{key}.again"] = tensors[key].clone()
    return rf"got 1 not known \({re.escape(key)}\.again\);"


def misshapen(tensors: dict[str, Tensor], key: str) -> str:
    tensors[key] = tensors[key].flatten()[:-1].clone()
    return rf"\d of another shape \({re.escape(key)} \d+, not "


@pytest.mark.parametrize("fault", [renamed, dropped, extra, misshapen])
@pytest.mark.parametrize(("name", "suffix"), FORMATS)
def test_faults_name_the_tensor_as_in_the_file(
    oracle: Oracle, run: Callable[..., Path], tmp_path: Path, name: str, suffix: str, fault: Fault
) -> None:
    tensors = oracle.load(name)
    said = fault(tensors, KEYS[name])
    assert re.search(said, refused(run, tmp_path, {name: write(tensors, tmp_path / f"file{suffix}")}))


@pytest.mark.parametrize("fault", [renamed, dropped, misshapen])
@pytest.mark.parametrize(("name", "key"), MORE_KEYS)
def test_tensors_of_which_there_is_one(
    oracle: Oracle, run: Callable[..., Path], tmp_path: Path, name: str, key: str, fault: Fault
) -> None:
    tensors = oracle.load(name)
    said = fault(tensors, key)
    assert re.search(said, refused(run, tmp_path, {name: write(tensors, tmp_path / "file.safetensors")}))


def test_a_tensor_under_a_second_name(oracle: Oracle, run: Callable[..., Path], tmp_path: Path) -> None:
    tensors = oracle.load(ADAPTER)
    again = KEYS[ADAPTER].replace(".default", "")
    tensors[again] = torch.zeros_like(tensors[KEYS[ADAPTER]])
    assert f"got 1 not known ({again})" in refused(run, tmp_path, {ADAPTER: write(tensors, tmp_path / "ex4d.ckpt")})


@pytest.mark.parametrize(
    ("name", "component"), [(DIT, "transformer"), (VAE, "vae"), (CLIP, "image_encoder"), (T5, "text_encoder")]
)
def test_every_tensor_that_is_missing_is_named_as_in_the_file(oracle: Oracle, name: str, component: Any) -> None:
    tensors = oracle.load(name)
    needed = [key for key in tensors if key not in ("log_scale", "visual.head")]
    for start in range(0, len(needed), 20):
        lost = needed[start : start + 20]
        left = {key: tensor for key, tensor in tensors.items() if key not in lost}
        with pytest.raises(WeightsError) as raised:
            match_tensors(component, left, oracle.configs()[component])
        listed = re.search(r"missing \((.*)\)$", raised.value.got)
        assert listed is not None
        assert sorted(listed[1].removesuffix(" and 1 more").split(", ")) == sorted(lost)


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize(("name", "suffix"), PICKLED.items())
def test_code_in_a_pickle_is_refused_and_not_run(
    oracle: Oracle, run: Callable[..., Path], tmp_path: Path, name: str, suffix: str
) -> None:
    marker, tensors = tmp_path / "marker", oracle.load(name)
    file = write({**tensors, KEYS[name]: _RunsCode(marker)}, tmp_path / f"file{suffix}")
    said = refused(run, tmp_path, {name: file})
    assert not marker.exists()
    assert f"nothing but tensors in {file}; got Python objects" in said
    file.write_bytes(pickle.dumps({KEYS[name]: _RunsCode(marker)}))
    assert str(file) in refused(run, tmp_path, {name: file})
    assert not marker.exists()


@pytest.mark.parametrize(("name", "suffix"), FORMATS)
def test_truncated_files_are_named(
    oracle: Oracle, run: Callable[..., Path], tmp_path: Path, name: str, suffix: str
) -> None:
    file = write(oracle.load(name), tmp_path / f"file{suffix}")
    whole = file.read_bytes()
    for share in (0.02, 0.5, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        said = refused(run, tmp_path, {name: file})
        assert str(file) in said
        assert "cut off" in said


# wrong files


def test_a_lora_of_another_rank(oracle: Oracle, run: Callable[..., Path], tmp_path: Path) -> None:
    tensors = oracle.load(ADAPTER)
    half = {key: value[:8] if ".lora_A." in key else value for key, value in tensors.items()}
    half = {key: value[:, :8].contiguous() if ".lora_B." in key else value for key, value in half.items()}
    said = refused(run, tmp_path, {ADAPTER: write(half, tmp_path / "ex4d.ckpt")})
    assert "40 of another shape" in said
    assert "blocks.0.cross_attn.k.lora_A.default.weight 8x96, not 16x96" in said
    assert "another size of the model" in said


def _text_to_video(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {key: value for key, value in tensors.items() if "_img" not in key and not key.startswith("img_emb.")}
    return kept | {"patch_embedding.weight": tensors["patch_embedding.weight"][:, :16].contiguous()}


def _narrower(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As 1.3B is beside 14B: every width smaller."""
    return {key: value[tuple(slice(0, -(-side // 2)) for side in value.shape)] for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_text_to_video, ["blocks.0.cross_attn.k_img.bias", "patch_embedding.weight 96x16x1x2x2, not 96x36x1x2x2"]),
        (lambda tensors: _text_to_video(_narrower(tensors)), ["blocks.0.cross_attn.k_img.bias"]),
        (_narrower, ["blocks.0.cross_attn.k.bias 48, not 96", "another size of the model"]),
    ],
)
def test_another_wan_model(
    oracle: Oracle, run: Callable[..., Path], tmp_path: Path, change: Any, named: Iterable[str]
) -> None:
    tensors = {key: value.contiguous() for key, value in change(oracle.load(DIT)).items()}
    said = refused(run, tmp_path, {DIT: write(tensors, tmp_path / "t2v.safetensors")})
    assert all(name in said for name in named)


@pytest.mark.parametrize(
    ("left_out", "said"), [(DIT, "Wan's DiT"), (VAE, "Wan2.1_VAE.pth"), (CLIP, "CLIP"), (T5, "umT5")]
)
def test_a_part_of_the_base_is_missing(run: Callable[..., Path], tmp_path: Path, left_out: str, said: str) -> None:
    assert f"all four parts of Wan2.1-I2V-14B; got no {said};" in refused(run, tmp_path, {left_out: None})


def test_the_same_shard_twice(oracle: Oracle, run: Callable[..., Path], tmp_path: Path) -> None:
    again = write(dict(list(oracle.load(DIT).items())[:30]), tmp_path / "again.safetensors")
    said = refused(run, tmp_path, {"again": again})
    assert "every tensor once (transformer)" in said
    assert f"blocks.0.cross_attn.k.bias again in {again}" in said


def test_a_shard_is_missing(oracle: Oracle, run: Callable[..., Path], tmp_path: Path) -> None:
    first, _, last = _shards(oracle, tmp_path)
    said = refused(run, tmp_path, {DIT: first, "last": last})
    assert names(said, "blocks.1.self_attn.q.weight")


def test_files_of_other_kinds(oracle: Oracle, run: Callable[..., Path], tmp_path: Path) -> None:
    file = write({"unet.conv_in.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    said = refused(run, tmp_path, {"other": file})
    assert f"in {file}; got unet.conv_in.weight" in said
    assert "got none" in refused(run, tmp_path, {"empty": (tmp_path / "tokenizer").resolve()})
    assert "got nothing" in refused(run, tmp_path, {"nowhere": tmp_path / "nowhere.pth"})


def test_no_tokenizer(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "pass its folder with --tokenizer" in refused(run, tmp_path, {}, tokenizer=tmp_path / "empty")
    assert "google/umt5-xxl" in refused(run, tmp_path, {}, tokenizer=None)


def test_tiny_files_do_not_fit_the_released_model(oracle: Oracle, run: Callable[..., Path], tmp_path: Path) -> None:
    said = refused(run, tmp_path, {DIT: None, VAE: None, CLIP: None, T5: None}, configs=None)
    assert "exactly 808 tensors in EX-4D's LoRA and encoder" in said
    assert names(said, "blocks.10.cross_attn.k.lora_A.default.weight")


# whole files


def test_pickles_shards_and_folders_give_the_same_bytes(
    oracle: Oracle, run: Callable[..., Path], tmp_path: Path, oracle_folder: Path
) -> None:
    sources: dict[str, Path | None] = {
        name: write(oracle.load(name), tmp_path / f"{name}{suffix}") for name, suffix in PICKLED.items()
    }
    _shards(oracle, tmp_path)
    output = run({**sources, DIT: tmp_path / "shards"})
    wanted = sorted(path.relative_to(oracle_folder) for path in oracle_folder.rglob("*.safetensors"))
    assert len(wanted) == 6
    assert sorted(path.relative_to(output) for path in output.rglob("*.safetensors")) == wanted
    for file in wanted:
        got, want = load_file(output / file), load_file(oracle_folder / file)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[key], want[key]) and got[key].dtype == want[key].dtype for key in want)


def test_the_tokenizer_beside_the_files_is_found(oracle: Oracle, run: Callable[..., Path], tmp_path: Path) -> None:
    make_tiny_tokenizer().save_pretrained(tmp_path / "google/umt5-xxl")
    output = run({T5: write(oracle.load(T5), tmp_path / "t5.pth")}, tokenizer=None)
    assert (output / "tokenizer/tokenizer.json").is_file()


def test_base_and_adapter_can_be_converted_apart(run: Callable[..., Path], tmp_path: Path) -> None:
    output = run({ADAPTER: None})
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["transformer", "vae", "text_encoder", "image_encoder", "tokenizer", "scheduler", "model_index.json"]
    )
    output.rename(tmp_path / "base")
    output = run({DIT: None, VAE: None, CLIP: None, T5: None})
    assert sorted(path.name for path in output.iterdir()) == ["geometry_encoder", "lora"]
    assert json.loads((output / "lora/lora.json").read_text()) == {"rank": 16, "alpha": 16}


def test_what_is_kept_in_float32(oracle_folder: Path) -> None:
    tensors = load_file(oracle_folder / "transformer/diffusion_pytorch_model.safetensors")
    kept = {key for key, value in tensors.items() if value.dtype == torch.float32}
    assert {"scale_shift_table", "blocks.0.scale_shift_table", "blocks.0.norm2.weight"} <= kept
    assert "condition_embedder.time_embedder.linear_1.weight" in kept
    assert {tensors[key].dtype for key in tensors.keys() - kept} == {torch.bfloat16}
    assert "blocks.0.attn1.to_q.weight" not in kept


def test_large_components_are_written_in_shards(
    run: Callable[..., Path], oracle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "SHARD_BYTES", 100_000)
    output = run()
    for component, stem in (("transformer", "diffusion_pytorch_model"), ("image_encoder", "model")):
        shards = sorted((output / component).glob("*.safetensors"))
        count = len(shards)
        assert count > 2
        assert [path.name for path in shards] == [
            f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)
        ]
        index = json.loads((output / component / f"{stem}.safetensors.index.json").read_text())
        joined = {key: value for path in shards for key, value in load_file(path).items()}
        whole = load_file(oracle_folder / component / f"{stem}.safetensors")
        assert index["weight_map"].keys() == joined.keys() == whole.keys()
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
        assert all(torch.equal(joined[key], whole[key]) for key in whole)
        for path in shards:
            tensors = load_file(path)
            assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 100_000


def _shards(oracle: Oracle, tmp_path: Path) -> list[Path]:
    """The DiT in three files, as the original is in seven."""
    (tmp_path / "shards").mkdir()
    tensors = oracle.load(DIT)
    parts = [{}, {}, {}]
    for key, value in tensors.items():
        parts[0 if key.startswith("blocks.0.") else 1 if key.startswith("blocks.1.") else 2][key] = value
    return [write(part, tmp_path / f"shards/part-{i}.safetensors") for i, part in enumerate(parts)]
