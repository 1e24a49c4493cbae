"""The random miniature: seeded, whole, and sensitive to everything it is given."""

from pathlib import Path

import numpy as np
import torch
from random_prior import random_prior

from ex4d.model.tiny import CONFIGS, make_tiny_pipeline, make_tiny_tokenizer, save_tiny
from ex4d.model.wan_pipeline import EX4DPipeline


def weights(pipe: EX4DPipeline) -> dict[str, torch.Tensor]:
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def test_weights_follow_the_seed_and_nothing_else() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, other = weights(make_tiny_pipeline(seed=1)), weights(make_tiny_pipeline(seed=2))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    torch.manual_seed(6)
    again = weights(make_tiny_pipeline(seed=1))
    assert first.keys() == again.keys() == other.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sum(not torch.equal(first[name], other[name]) for name in first) > 100
    assert all(torch.isfinite(value).all() for value in first.values())


def test_it_is_small_and_complete(tiny_folder: Path) -> None:
    names = {path.name for path in tiny_folder.iterdir()}
    assert names >= {*CONFIGS, "tokenizer", "scheduler", "model_index.json"}
    assert sum(path.stat().st_size for path in tiny_folder.rglob("*") if path.is_file()) < 4_000_000


def test_saved_folders_are_equal_too(tmp_path: Path) -> None:
    for name in "ab":
        save_tiny(tmp_path / name, seed=3)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.safetensors"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_tokens_are_bytes() -> None:
    tokenizer = make_tiny_tokenizer()
    ids = tokenizer("aé a", padding="max_length", max_length=8, truncation=True).input_ids
    assert len(ids) == 8
    assert ids[0] == ids[4]
    assert ids[5:] == [tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.pad_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "aé a"
    assert max(tokenizer.get_vocab().values()) < CONFIGS["text_encoder"]["vocab_size"]


def test_everything_it_is_given_has_an_effect(tiny: EX4DPipeline) -> None:
    rgb, observed = random_prior()

    def latents(**changes: object) -> torch.Tensor:
        inputs: dict = {"rgb": rgb, "observed": observed, "num_inference_steps": 1, **changes}
        return tiny(inputs.pop("rgb"), inputs.pop("observed"), **inputs).latents

    base = latents()
    assert torch.equal(base, latents())
    later = rgb.copy()
    later[-1] = 255 - later[-1]
    for changes in (
        {"rgb": later},
        {"observed": ~observed},
        {"prompt": "another"},
        {"negative_prompt": "another"},
        {"guidance_scale": 2.0},
        {"seed": 1},
        {"mask_quirk": False},
    ):
        assert not np.allclose(base, latents(**changes), atol=1e-6), changes
    tiny.transformer.unload_lora()
    assert not np.allclose(base, latents(), atol=1e-6), "the LoRA does nothing"
