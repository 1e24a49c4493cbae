"""From weight folders to an `EX4DPipeline` under a memory plan; text apart, because umT5 never stays."""

from collections.abc import Callable, Mapping, Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor
from transformers import UMT5EncoderModel

from ex4d.errors import WeightsError
from ex4d.model.adapter import read_adapter
from ex4d.model.components import assert_tied, make_component
from ex4d.model.config import GenerateConfig
from ex4d.model.distill import read_distill_lora
from ex4d.model.estimates import MemoryPlan
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.placement import load_transformer, place_transformer
from ex4d.model.presets import Acceleration
from ex4d.model.prompts import embed_prompts
from ex4d.model.tiny import make_tiny_pipeline
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.wan_pipeline import EX4DPipeline, TextEmbeds, encode_texts, load_tokenizer
from ex4d.pipeline.weight_paths import WeightPaths
from ex4d.weights.headers import read_json

_TEXT_FILES = ("text_encoder/", "tokenizer/")


def load_text(
    config: GenerateConfig, weights: WeightPaths, hashes: Mapping[str, str], device: torch.device
) -> tuple[TextEmbeds, list[str]]:
    """Embeddings of a config's prompts, from the cache or by umT5, which is loaded, used and dropped; and notices.

    Args:
        config: the prompts; without guidance the negative one is not embedded.
        weights: where the encoder is; the miniature's is made and never cached.
        hashes: file → SHA-256 of the base folder.
        device: where umT5 computes.
    """
    texts = [config.prompt, *([config.negative_prompt] if config.effective_guidance_scale > 1 else [])]
    embeds, notices = embed_texts(texts, weights, hashes, device)
    return TextEmbeds.of(embeds), notices


def embed_texts(
    texts: Sequence[str], weights: WeightPaths, hashes: Mapping[str, str], device: torch.device
) -> tuple[list[Tensor], list[str]]:
    """Embeddings [1,512,text_dim] of texts; arguments and result otherwise as of `load_text`."""
    if weights.base is None:
        pipe = make_tiny_pipeline(attach=False)
        return encode_texts(texts, pipe.tokenizer, pipe.text_encoder), []
    base, dtype = weights.base, torch.bfloat16
    encoder = {name: digest for name, digest in hashes.items() if name.startswith(_TEXT_FILES)}

    def encode(missing: Sequence[str]) -> list[Tensor]:
        tokenizer = load_tokenizer(base / "tokenizer")
        # straight to the GPU: not all 11 GB through the host's memory
        where = None if device.type == "cpu" else {"": device}
        model = UMT5EncoderModel.from_pretrained(
            base / "text_encoder", dtype=dtype, local_files_only=True, device_map=where
        )
        assert_tied(model)
        if len(tokenizer) > model.config.vocab_size:
            got = f"{len(tokenizer)} words for {model.config.vocab_size} embeddings"
            raise WeightsError(f"tokenizer and text encoder of one model in {base}", got, "download the folder again")
        return encode_texts(missing, tokenizer, model.eval())

    return embed_prompts(texts, encode, encoder=encoder, dtype=dtype)


def load_stack(
    config: GenerateConfig,
    weights: WeightPaths,
    plan: MemoryPlan,
    device: torch.device,
    acceleration: Acceleration,
    *,
    note: Callable[[str], None],
) -> EX4DPipeline:
    """VAE, image encoder and geometry encoder on the CPU, the transformer where the plan wants it; no text encoder.

    Args:
        config: precision of the VAE.
        weights: where they lie.
        plan: memory plan.
        device: where the transformer computes.
        acceleration: compiled or not, LoRA fused or beside.
        note: told of what was left out.

    Raises:
        WeightsError: anything that does not fit.
    """
    if weights.base is None:
        pipe = make_tiny_pipeline(attach=weights.adapter is None)
        if weights.adapter is not None:
            encoder, lora = read_adapter(weights.adapter, pipe.transformer)
            pipe.register_modules(geometry_encoder=encoder)
            pipe.attach(lora)
        if acceleration.fuse_lora:
            pipe.fuse()
        if config.vae_dtype == "bf16":
            pipe.vae.to(torch.bfloat16)
        place_transformer(pipe.transformer, plan, device, compiled=acceleration.compile)
        return pipe
    assert weights.adapter is not None
    base = weights.base
    transformer, encoder = _load_transformer(weights, plan, device, acceleration, note)
    vae_dtype = torch.float32 if config.vae_dtype == "fp32" else torch.bfloat16
    return EX4DPipeline.from_pretrained(
        base,
        tokenizer=None,
        text_encoder=None,
        transformer=transformer,
        geometry_encoder=encoder,
        vae=AutoencoderKLWan.from_pretrained(base / "vae", dtype=vae_dtype),
    )


def _load_transformer(
    weights: WeightPaths,
    plan: MemoryPlan,
    device: torch.device,
    acceleration: Acceleration,
    note: Callable[[str], None],
) -> tuple[EX4DTransformer3DModel, GeometryEncoder]:
    """The transformer with its LoRAs, fused or beside, and the geometry encoder."""
    assert weights.base is not None
    assert weights.adapter is not None
    folder = weights.base / "transformer"
    empty = make_component("transformer", read_json(folder / "config.json"))
    assert isinstance(empty, EX4DTransformer3DModel)
    encoder, lora = read_adapter(weights.adapter, empty)
    loras = [lora]
    if weights.distill is not None:
        distilled, notices = read_distill_lora(weights.distill, empty)
        loras.append(distilled)
        for notice in notices:
            note(notice)
    transformer = load_transformer(
        folder,
        plan,
        device,
        loras=loras,
        fused=acceleration.fuse_lora,
        gguf=weights.gguf,
        compiled=acceleration.compile,
    )
    return transformer, encoder
