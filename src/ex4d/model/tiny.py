"""A random miniature of the whole stack, for trying the chain without weights. What it makes is no picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from ex4d.model.adapter import Lora, lora_shapes
from ex4d.model.components import make_component
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.sampling import make_scheduler
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.wan_pipeline import EX4DPipeline

WIDTH, TEXT_DIM, IMAGE_DIM, RANK = 64, 32, 32, 4

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "transformer": {
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "ffn_dim": 128,
        "num_layers": 2,
        "text_dim": TEXT_DIM,
        "image_dim": IMAGE_DIM,
        "added_kv_proj_dim": WIDTH,
    },
    "vae": {"base_dim": 4, "num_res_blocks": 1},
    "text_encoder": {
        "vocab_size": 384,
        "d_model": TEXT_DIM,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "image_encoder": {
        "hidden_size": IMAGE_DIM,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
    },
    "geometry_encoder": {"hidden_channels": 32, "out_channels": WIDTH},
    "lora": {"rank": RANK, "alpha": RANK},
}
"""Component → config of the miniature; what is not named is as in the full-size model."""


def make_tiny_pipeline(*, seed: int = 0, attach: bool = True) -> EX4DPipeline:
    """The whole stack with random weights, float32, on the CPU, in a second.

    Args:
        seed: of the weights; equal seeds give equal weights.
        attach: leave the LoRA unfused beside the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = {name: dict(config) for name, config in CONFIGS.items()}
        transformer = EX4DTransformer3DModel(**settings["transformer"])
        encoder = GeometryEncoder(**settings["geometry_encoder"])
        nn.init.normal_(encoder.latent_patch_embedding.weight, std=0.02)
        parts: dict[str, nn.Module] = {
            "transformer": transformer,
            "vae": AutoencoderKLWan(**settings["vae"]),
            "text_encoder": UMT5EncoderModel(UMT5Config(**settings["text_encoder"])),
            "image_encoder": CLIPVisionModel(CLIPVisionConfig(**settings["image_encoder"])),
            "geometry_encoder": encoder,
        }
        lora = _random_lora(transformer)
    for part in parts.values():
        part.eval().requires_grad_(False)
    pipe = EX4DPipeline(tokenizer=make_tiny_tokenizer(), scheduler=make_scheduler(), **cast(Any, parts))
    if attach:
        pipe.attach(lora)
    return pipe


def empty_tiny_transformer() -> EX4DTransformer3DModel:
    """The miniature's transformer without memory behind its parameters: what an adapter is checked against."""
    return cast(EX4DTransformer3DModel, make_component("transformer", CONFIGS["transformer"]))


def save_tiny(folder: Path, *, seed: int = 0) -> None:
    """Write the miniature as a weight folder, adapter included."""
    make_tiny_pipeline(seed=seed).save_pretrained(folder)


def make_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte a token, T5's special tokens; needs no file."""
    special = ("<pad>", "</s>", "<unk>")
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate((*special, *alphabet))}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Sequence([ByteLevel(add_prefix_space=False, use_regex=False), Split("", "isolated")])
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def _random_lora(transformer: EX4DTransformer3DModel) -> Lora:
    tensors = {name: torch.randn(shape) * 0.05 for name, shape in lora_shapes(transformer, RANK).items()}
    return Lora(tensors=tensors, rank=RANK, alpha=RANK)
