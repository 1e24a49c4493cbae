"""Generation with weights from disk: the miniature's as base and adapter folders, whole and damaged."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ex4d.errors import Ex4dError, WeightsError
from ex4d.model.tiny import save_tiny
from ex4d.pipeline.generate_folder import generate_folder
from ex4d.pipeline.generation_request import GenerationRequest, read_request
from ex4d.pipeline.generation_setup import check_generation
from ex4d.weights.files import sha256_file
from generation_tools import Heard, contents, make_prior, tiny_config

torch.set_num_threads(1)  # tensors this small are slower with several


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as base and adapter in one folder; not to be changed."""
    folder = tmp_path_factory.mktemp("weights") / "base"
    save_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prior(tmp_path_factory.mktemp("media"), 5)


@pytest.fixture
def from_disk(weights: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GenerationRequest:
    """A request with weights from disk, and an empty cache."""
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    return GenerationRequest(prior=str(prior), generate=tiny_config(weights=str(weights), plan="cpu"))


def test_weights_from_a_folder(from_disk: GenerationRequest, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate_folder(from_disk, out, reporter=Heard())
    record = json.loads((out / "config.json").read_text())["result"]
    hashes = record["weights_sha256"]["base"]
    name = "transformer/diffusion_pytorch_model.safetensors"
    assert hashes[name] == sha256_file(weights / name)
    assert {path.split("/")[0] for path in hashes} >= {"vae", "text_encoder", "image_encoder", "lora", "tokenizer"}
    assert not any("random weights" in notice for notice in record["notices"])
    assert record["plan"] == "cpu"

    apart = tmp_path / "apart"
    shutil.copytree(weights, apart / "base")
    for part in ("lora", "geometry_encoder"):
        (apart / "adapter").mkdir(exist_ok=True)
        shutil.move(apart / "base" / part, apart / "adapter" / part)
    config = tiny_config(weights=str(apart / "base"), plan="cpu")
    with pytest.raises(WeightsError, match="ex4d weights pull ex4d"):
        generate_folder(replace(from_disk, generate=config), tmp_path / "two", reporter=Heard())
    config = replace(config, adapter=str(apart / "adapter"))
    generate_folder(replace(from_disk, generate=config), tmp_path / "two", reporter=Heard())
    assert (tmp_path / "two" / "result.mp4").read_bytes() == (out / "result.mp4").read_bytes()
    assert set(json.loads((tmp_path / "two/config.json").read_text())["result"]["weights_sha256"]) == {
        "base",
        "adapter",
    }


def test_the_miniature_takes_an_adapter(from_disk: GenerationRequest, weights: Path, tmp_path: Path) -> None:
    """Its own gives what it gives by itself, another one something else, and one that does not fit is refused."""
    made: list[bytes] = []
    for name, adapter in (("own", "auto"), ("same", str(weights)), ("other", str(tmp_path / "adapter"))):
        if name == "other":
            for part in ("lora", "geometry_encoder"):
                shutil.copytree(weights / part, tmp_path / "adapter" / part)
            file = tmp_path / "adapter/lora/lora.safetensors"
            save_file({key: 5 * value for key, value in load_file(file).items()}, file)
        request = replace(from_disk, generate=tiny_config(adapter=adapter))
        generate_folder(request, tmp_path / name, reporter=Heard())
        made.append((tmp_path / name / "result.mp4").read_bytes())
    assert made[0] == made[1] != made[2]
    shutil.rmtree(tmp_path / "adapter/geometry_encoder")
    with pytest.raises(WeightsError, match="geometry_encoder"):
        check_generation(tiny_config(adapter=str(tmp_path / "adapter")))


def test_prompts_are_embedded_once(from_disk: GenerationRequest, tmp_path: Path) -> None:
    """What lies in the cache is used; what is damaged there is made again."""
    results: list[bytes] = []

    def generate(name: str) -> None:
        generate_folder(from_disk, tmp_path / name, reporter=Heard())
        results.append((tmp_path / name / "result.mp4").read_bytes())

    generate("first")
    cached = sorted((tmp_path / "cache" / "prompts").iterdir())
    assert len(cached) == 2, "prompt and negative prompt"
    made = [path.read_bytes() for path in cached]
    for path in cached:
        save_file({"embeds": torch.ones_like(load_file(path)["embeds"])}, path)
    generate("other embeddings")
    for path in cached:
        path.write_bytes(b"damaged")
    generate("damaged")
    assert results[0] == results[2] != results[1]
    assert [path.read_bytes() for path in cached] == made


def _edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def _edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DIT, LORA = "transformer/diffusion_pytorch_model.safetensors", "lora/lora.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part gone": (lambda base: shutil.rmtree(base / "image_encoder"), "image_encoder"),
    "text to video": (
        lambda base: _edit_json(base / "transformer/config.json", in_channels=16, image_dim=None),
        "Wan2.1-I2V-14B",
    ),
    "TI2V-5B": (lambda base: _edit_json(base / "transformer/config.json", in_channels=48), "Wan2.1-I2V-14B"),
    "cut off": (lambda base: os.truncate(base / DIT, 9000), "cut off"),
    "tensor gone": (lambda base: _edit_tensors(base / DIT, lambda t: t.pop("proj_out.weight")), r"proj_out\.weight"),
    "tensor too many": (
        lambda base: _edit_tensors(base / DIT, lambda t: t.update(x=torch.zeros(1))),
        r"not known \(x\)",
    ),
    "LoRA of another rank": (lambda base: _edit_json(base / "lora/lora.json", rank=16), "of another shape"),
    "LoRA tensor gone": (lambda base: _edit_tensors(base / LORA, lambda t: t.popitem()), "1 missing"),
    "no tokenizer": (lambda base: shutil.rmtree(base / "tokenizer"), "tokenizer"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_wrong_weights_are_refused_before_loading(
    name: str, weights: Path, from_disk: GenerationRequest, tmp_path: Path
) -> None:
    change, words = DAMAGE[name]
    base = tmp_path / "base"
    shutil.copytree(weights, base)
    change(base)
    request = replace(from_disk, generate=replace(from_disk.generate, weights=str(base)))
    heard = Heard()
    with pytest.raises(WeightsError, match=words):
        generate_folder(request, tmp_path / "out", reporter=heard)
    assert heard.stages == []
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_none_stop_the_run(weights: Path, from_disk: GenerationRequest, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(weights, base)
    _edit_tensors(base / DIT, lambda tensors: tensors["proj_out.weight"].fill_(float("nan")))
    request = replace(from_disk, generate=replace(from_disk.generate, weights=str(base)))
    with pytest.raises(Ex4dError, match=r"finite latents.*after step 1 of 1.*weights verify"):
        generate_folder(request, tmp_path / "out", reporter=Heard())
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_model(weights: Path, from_disk: GenerationRequest, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(weights, base)
    request = replace(from_disk, generate=replace(from_disk.generate, weights=str(base)))
    vocabulary = base / "tokenizer" / "tokenizer.json"
    stored = json.loads(vocabulary.read_text())
    stored["model"]["vocab"].update({f"word {i}": 259 + i for i in range(500)})
    for text, words in ((json.dumps(stored), "759 words for 384 embeddings"), ("{", "a tokenizer in")):
        vocabulary.write_text(text)
        with pytest.raises(WeightsError, match=words):
            generate_folder(request, tmp_path / "out", reporter=Heard())
        assert not (tmp_path / "out").exists()


def test_a_config_can_be_repeated_from_anywhere(
    weights: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs and weights typed as relative names are stored as absolute ones."""
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(weights.parent)
    (weights.parent / "linked").symlink_to(prior)
    config = tiny_config(weights=weights.name, adapter=weights.name)
    generate_folder(GenerationRequest(prior="linked", generate=config), tmp_path / "first", reporter=Heard())
    monkeypatch.chdir(tmp_path)
    again = read_request(tmp_path / "first")
    assert again.prior == str(prior.resolve())
    assert (again.generate.weights, again.generate.adapter) == (str(weights.resolve()),) * 2
    generate_folder(again, tmp_path / "second", reporter=Heard())
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
