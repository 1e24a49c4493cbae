"""The diffusion oracle: tensors of the release's own pipeline at tiny size, and our stack with its weights.

`EX4D_ORACLE=<folder>` names another one (other size, seed, steps, aspect); everything is read from its config.json.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ex4d.model.convert import convert_files
from ex4d.model.tiny import make_tiny_tokenizer
from ex4d.model.wan_pipeline import Conditioning, EX4DPipeline, TextEmbeds

FOLDER = Path(os.environ.get("EX4D_ORACLE", Path(__file__).parents[1] / "data/oracle"))
ORIGINALS = ("wan_dit_tiny", "wan_vae_tiny", "wan_clip_tiny", "wan_t5_tiny", "ex4d_ckpt_tiny")
TEXT_TOKENS = 512


@dataclass
class Oracle:
    folder: Path = FOLDER
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = json.loads((self.folder / "config.json").read_text())

    def load(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self.load("inputs")

    @cached_property
    def preprocess(self) -> dict[str, Tensor]:
        return self.load("preprocess")

    @cached_property
    def conditioning(self) -> dict[str, Tensor]:
        return self.load("conditioning")

    @cached_property
    def forward(self) -> dict[str, Tensor]:
        return self.load("dit_forward")

    @cached_property
    def loop(self) -> dict[str, Tensor]:
        return self.load("denoise_loop")

    @cached_property
    def schedule(self) -> dict[str, Tensor]:
        return self.load("schedule")

    def originals(self) -> list[Path]:
        return [self.folder / f"{name}.safetensors" for name in ORIGINALS]

    def configs(self) -> dict[str, Mapping[str, Any]]:
        dit, clip, t5, vae = (self.config[key] for key in ("transformer", "clip", "t5", "vae"))
        return {
            "transformer": {
                "num_attention_heads": dit["num_heads"],
                "attention_head_dim": dit["head_dim"],
                "in_channels": dit["in_dim"],
                "out_channels": dit["out_dim"],
                "patch_size": dit["patch_size"],
                "ffn_dim": dit["ffn_dim"],
                "freq_dim": dit["freq_dim"],
                "num_layers": dit["num_layers"],
                "text_dim": dit["text_dim"],
                "image_dim": dit["image_dim"],
                "added_kv_proj_dim": dit["dim"],
                "eps": dit["eps"],
                "cross_attn_norm": dit["cross_attn_norm"],
            },
            "vae": {
                "base_dim": vae["base_dim"],
                "z_dim": vae["z_dim"],
                "dim_mult": vae["dim_mult"],
                "temperal_downsample": vae["temporal_downsample"],
            },
            "image_encoder": {
                "model_type": "clip_vision_model",
                "hidden_size": clip["width"],
                "intermediate_size": 4 * clip["width"],
                "num_hidden_layers": clip["layers"],
                "num_attention_heads": clip["heads"],
                "image_size": clip["image_size"],
                "patch_size": clip["patch_size"],
                "hidden_act": "gelu",
                "layer_norm_eps": clip["eps"],
            },
            "text_encoder": {
                "model_type": "umt5",
                "vocab_size": t5["vocab"],
                "d_model": t5["dim"],
                "d_kv": t5["dim"] // t5["heads"],
                "d_ff": t5["ffn_dim"],
                "num_layers": t5["layers"],
                "num_heads": t5["heads"],
                "relative_attention_num_buckets": t5["buckets"],
                "feed_forward_proj": "gated-gelu",
                "tie_word_embeddings": False,
            },
            "geometry_encoder": dict(self.config["geometry_encoder"]),
            "lora": {"rank": self.config["lora"]["rank"], "alpha": self.config["lora"]["alpha"]},
        }

    def convert(self, output: Path) -> Path:
        """The release's five files as a weight folder of ours."""
        make_tiny_tokenizer().save_pretrained(output.parent / "tokenizer")
        convert_files(self.originals(), output, tokenizer=output.parent / "tokenizer", configs=self.configs())
        return output

    def given(self) -> Conditioning:
        """The release's own conditioning: so that each stage is tested by itself."""
        tensors = self.conditioning
        return Conditioning(
            image_embeds=tensors["clip_fea"], image_latents=tensors["y"], geometry_latents=tensors["ray_latent"]
        )

    def text(self) -> TextEmbeds:
        cond, uncond = (self.conditioning[name] for name in ("context_pos", "context_neg"))
        return TextEmbeds(cond=_padded(cond), uncond=_padded(uncond))


def _padded(embeds: Tensor) -> Tensor:
    return torch.nn.functional.pad(embeds, (0, 0, 0, TEXT_TOKENS - len(embeds)))[None]


def load_pipeline(folder: Path) -> EX4DPipeline:
    return EX4DPipeline.from_pretrained(folder, dtype=torch.float32)


def difference(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference; printed, so that `pytest -rP` shows what was measured."""
    assert got.shape == want.shape, (got.shape, want.shape)
    largest = float((got.float() - want.float()).abs().max())
    print(f"largest difference {largest:.1e}")  # noqa: T201
    return largest
