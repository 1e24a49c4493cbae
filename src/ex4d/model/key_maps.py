"""Tensor names of the original Wan and EX-4D files → names of diffusers, transformers and ours. Imports no torch.

Each map takes the names in a file and returns, for every target name, where its tensor comes from. A name that no
rule knows maps to itself, so that the strict check lists it as left over. Layouts: Wan2.1's repository; EX-4D's
release; compared tensor by tensor with the release's own output in tests/parity.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Kind = Literal["transformer", "vae", "text_encoder", "image_encoder", "adapter"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor comes from.

    Attributes:
        name: in the original file.
        third: 0, 1 or 2: only this third of the rows (queries, keys, values in one matrix); None = all of it.
    """

    name: str
    third: int | None = None


Pairs = tuple[tuple[str, str], ...]
"""Parts of original names and of ours, read in both directions. ``#`` is a number; a part that starts with a dot may
stand anywhere, others start the name; a part that does not end with a dot ends it."""

_ATTENTION = (("self_attn", "attn1"), ("cross_attn", "attn2"))
_PROJECTIONS = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
_TRANSFORMER: Pairs = (
    *(
        (f"blocks.#.{old}.{part}.", f"blocks.#.{new}.{to}.")
        for old, new in _ATTENTION
        for part, to in (*_PROJECTIONS, ("norm_q", "norm_q"), ("norm_k", "norm_k"))
    ),
    ("blocks.#.cross_attn.k_img.", "blocks.#.attn2.add_k_proj."),
    ("blocks.#.cross_attn.v_img.", "blocks.#.attn2.add_v_proj."),
    ("blocks.#.cross_attn.norm_k_img.", "blocks.#.attn2.norm_added_k."),
    ("blocks.#.norm3.", "blocks.#.norm2."),
    ("blocks.#.ffn.0.", "blocks.#.ffn.net.0.proj."),
    ("blocks.#.ffn.2.", "blocks.#.ffn.net.2."),
    ("blocks.#.modulation", "blocks.#.scale_shift_table"),
    ("head.head.", "proj_out."),
    ("head.modulation", "scale_shift_table"),
    ("time_embedding.0.", "condition_embedder.time_embedder.linear_1."),
    ("time_embedding.2.", "condition_embedder.time_embedder.linear_2."),
    ("text_embedding.0.", "condition_embedder.text_embedder.linear_1."),
    ("text_embedding.2.", "condition_embedder.text_embedder.linear_2."),
    ("time_projection.1.", "condition_embedder.time_proj."),
    ("img_emb.proj.0.", "condition_embedder.image_embedder.norm1."),
    ("img_emb.proj.1.", "condition_embedder.image_embedder.ff.net.0.proj."),
    ("img_emb.proj.3.", "condition_embedder.image_embedder.ff.net.2."),
    ("img_emb.proj.4.", "condition_embedder.image_embedder.norm2."),
)

_VAE: Pairs = (
    ("conv1.", "quant_conv."),
    ("conv2.", "post_quant_conv."),
    *(
        (f"{side}.{old}", f"{side}.{new}")
        for side in ("encoder", "decoder")
        for old, new in (
            ("conv1.", "conv_in."),
            ("head.0.gamma", "norm_out.gamma"),
            ("head.2.", "conv_out."),
            ("middle.0.", "mid_block.resnets.0."),
            ("middle.1.", "mid_block.attentions.0."),
            ("middle.2.", "mid_block.resnets.1."),
        )
    ),
    ("encoder.downsamples.", "encoder.down_blocks."),
    (".residual.0.gamma", ".norm1.gamma"),
    (".residual.2.", ".conv1."),
    (".residual.3.gamma", ".norm2.gamma"),
    (".residual.6.", ".conv2."),
    (".shortcut.", ".conv_shortcut."),
)
_UPSAMPLES_A_LEVEL = 4
"""The decoder's flat list: three residual blocks a level, then its upsampler."""

_T5: Pairs = (
    *((f"blocks.#.attn.{part}.", f"encoder.block.#.layer.0.SelfAttention.{part}.") for part in "qkvo"),
    ("blocks.#.pos_embedding.embedding.", "encoder.block.#.layer.0.SelfAttention.relative_attention_bias."),
    ("blocks.#.norm1.", "encoder.block.#.layer.0.layer_norm."),
    ("blocks.#.norm2.", "encoder.block.#.layer.1.layer_norm."),
    ("blocks.#.ffn.gate.0.", "encoder.block.#.layer.1.DenseReluDense.wi_0."),
    ("blocks.#.ffn.fc1.", "encoder.block.#.layer.1.DenseReluDense.wi_1."),
    ("blocks.#.ffn.fc2.", "encoder.block.#.layer.1.DenseReluDense.wo."),
    ("norm.", "encoder.final_layer_norm."),
)
_T5_EMBEDDING = ("token_embedding.weight", ("shared.weight", "encoder.embed_tokens.weight"))

_CLIP: Pairs = (
    ("visual.cls_embedding", "embeddings.class_embedding"),
    ("visual.pos_embedding", "embeddings.position_embedding.weight"),
    ("visual.patch_embedding.", "embeddings.patch_embedding."),
    ("visual.pre_norm.", "pre_layrnorm."),
    ("visual.post_norm.", "post_layernorm."),
    ("visual.transformer.#.attn.proj.", "encoder.layers.#.self_attn.out_proj."),
    ("visual.transformer.#.norm1.", "encoder.layers.#.layer_norm1."),
    ("visual.transformer.#.norm2.", "encoder.layers.#.layer_norm2."),
    ("visual.transformer.#.mlp.0.", "encoder.layers.#.mlp.fc1."),
    ("visual.transformer.#.mlp.2.", "encoder.layers.#.mlp.fc2."),
)
_CLIP_UNUSED = re.compile(r"^(textual\.|visual\.head$|log_scale$)")
"""CLIP's text side and its projection: the model only looks at the last but one layer of the image side."""

_LORA = re.compile(r"^(?P<module>blocks\..+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


def recognise(names: Iterable[str]) -> Kind | None:
    """What a file with these original names is; None if it is none of the kinds."""
    found = set(names)
    marks: tuple[tuple[Kind, str], ...] = (
        ("adapter", r"^latent_encoder\.|\.lora_[AB]\."),
        ("transformer", r"^blocks\.\d+\.(self_attn|cross_attn)\.|^patch_embedding\.|^head\.modulation$"),
        ("vae", r"^(encoder|decoder)\.(conv1|middle|downsamples|upsamples)\."),
        ("image_encoder", r"^visual\."),
        ("text_encoder", r"^token_embedding\.|^blocks\.\d+\.pos_embedding\."),
    )
    return next((kind for kind, mark in marks if any(re.search(mark, name) for name in found)), None)


def map_transformer(names: Iterable[str]) -> dict[str, Source]:
    """Wan's DiT → `EX4DTransformer3DModel`. Wan's norm3 is diffusers' norm2, the affine one."""
    return _collected((_renamed(name, _TRANSFORMER), Source(name)) for name in names)


def map_vae(names: Iterable[str]) -> dict[str, Source]:
    """``Wan2.1_VAE.pth`` → `AutoencoderKLWan`."""
    return _collected((_renamed(_leveled(name), _VAE), Source(name)) for name in names)


def map_text_encoder(names: Iterable[str]) -> dict[str, Source]:
    """Wan's umT5 file → `UMT5EncoderModel`; the embedding is needed under two names, tied."""
    return _collected(
        (target, Source(name))
        for name in names
        for target in (_T5_EMBEDDING[1] if name == _T5_EMBEDDING[0] else (_renamed(name, _T5),))
    )


def map_image_encoder(names: Iterable[str]) -> dict[str, Source]:
    """Wan's CLIP file → `CLIPVisionModel`; queries, keys and values are one matrix there."""
    pairs: list[tuple[str, Source]] = []
    for name in names:
        joined = re.match(r"^visual\.transformer\.(\d+)\.attn\.to_qkv\.(weight|bias)$", name)
        if joined:
            target = f"encoder.layers.{joined[1]}.self_attn.{{}}_proj.{joined[2]}"
            pairs += ((target.format(part), Source(name, third)) for third, part in enumerate("qkv"))
        elif not _CLIP_UNUSED.match(name):
            pairs.append((_renamed(name, _CLIP), Source(name)))
    return _collected(pairs)


def map_geometry_encoder(names: Iterable[str]) -> dict[str, Source]:
    """The encoder's tensors of ``ex4d.ckpt``: as they are."""
    return {name: Source(name) for name in names if not _LORA.match(name)}


def map_lora(names: Iterable[str]) -> dict[str, Source]:
    """The LoRA tensors of ``ex4d.ckpt`` → ``<module>.lora_A.weight`` in the transformer's module names."""
    matches = [(name, match) for name in names if (match := _LORA.match(name))]
    return _collected(
        (_renamed(match["module"] + ".", _TRANSFORMER) + f"lora_{match['side']}.weight", Source(name))
        for name, match in matches
    )


def _collected(pairs: Iterable[tuple[str, Source]]) -> dict[str, Source]:
    """Target → source. A second source of one target goes under a name that no model has, and so is left over."""
    mapped: dict[str, Source] = {}
    for target, source in pairs:
        mapped[f"{source.name} (again)" if target in mapped else target] = source
    return mapped


MAPS: Mapping[str, Callable[[Iterable[str]], dict[str, Source]]] = {
    "transformer": map_transformer,
    "vae": map_vae,
    "text_encoder": map_text_encoder,
    "image_encoder": map_image_encoder,
    "geometry_encoder": map_geometry_encoder,
}
"""Component → its map."""


def original_name(component: str, target: str) -> str:
    """What a tensor of a component is called in its original file: `MAPS` backwards, for what a file lacks."""
    if component == "transformer":
        return _original(target, _TRANSFORMER)
    if component == "vae":
        return _unleveled(_original(target, _VAE))
    if component == "text_encoder":
        return _T5_EMBEDDING[0] if target in _T5_EMBEDDING[1] else _original(target, _T5)
    if component == "image_encoder":
        joined = re.match(r"^encoder\.layers\.(\d+)\.self_attn\.[qkv]_proj\.(weight|bias)$", target)
        return f"visual.transformer.{joined[1]}.attn.to_qkv.{joined[2]}" if joined else _original(target, _CLIP)
    return target


def original_lora_name(target: str, names: Iterable[str]) -> str:
    """What a LoRA tensor of the transformer is called in an ``ex4d.ckpt`` with these names."""
    module, _, side = target.removesuffix(".weight").rpartition(".lora_")
    found = [name for name in names if _LORA.match(name)]
    default = ".default" if not found or any(".default." in name for name in found) else ""
    return f"{_original(module + '.', _TRANSFORMER)}lora_{side}{default}.weight"


def _renamed(name: str, pairs: Pairs) -> str:
    for original, ours in pairs:
        name = _replaced(name, original, ours)
    return name


def _original(name: str, pairs: Pairs) -> str:
    for original, ours in reversed(pairs):
        name = _replaced(name, ours, original)
    return name


def _replaced(name: str, old: str, new: str) -> str:
    return _pattern(old).sub(new.replace("#", r"\1"), name)


@cache
def _pattern(part: str) -> re.Pattern[str]:
    text = re.escape(part).replace(r"\#", r"(\d+)")
    return re.compile(("" if part.startswith(".") else "^") + text + ("" if part.endswith(".") else "$"))


def _leveled(name: str) -> str:
    """The decoder's flat ``upsamples.N`` as ``up_blocks.L.resnets.R`` or ``up_blocks.L.upsamplers.0``."""
    match = re.match(r"^decoder\.upsamples\.(\d+)\.(.*)$", name)
    if not match:
        return name
    level, place = divmod(int(match[1]), _UPSAMPLES_A_LEVEL)
    part = "upsamplers.0" if place == _UPSAMPLES_A_LEVEL - 1 else f"resnets.{place}"
    return f"decoder.up_blocks.{level}.{part}.{match[2]}"


def _unleveled(name: str) -> str:
    match = re.match(r"^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.(.*)$", name)
    if not match:
        return name
    place = _UPSAMPLES_A_LEVEL - 1 if match[2] == "upsamplers" else int(match[3])
    return f"decoder.upsamples.{_UPSAMPLES_A_LEVEL * int(match[1]) + place}.{match[4]}"
