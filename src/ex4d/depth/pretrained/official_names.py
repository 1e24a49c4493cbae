"""Names of tensors in the releases' files → names in our modules, which are built of transformers' parts.

Written from the modules of the releases' sources; every name of a file is mapped or refused, none is skipped. A name
that maps to three stands for queries, keys and values stacked in one matrix.
"""

from collections.abc import Iterator

from ex4d.depth.pretrained.sizes import NetworkSizes

Names = dict[str, tuple[str, ...]]

_BOTH = ("weight", "bias")
_NUM_MOTION_MODULES = 4
_PER_LAYER = {
    "norm1": "norm1",
    "attn.proj": "attention.o_proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_MOTION = {
    "norm": "norm",
    "proj_in": "enter",
    "proj_out": "leave",
    "transformer_blocks.0.norms.0": "attentions.0.norm",
    "transformer_blocks.0.norms.1": "attentions.1.norm",
    "transformer_blocks.0.attention_blocks.0.to_out.0": "attentions.0.out",
    "transformer_blocks.0.attention_blocks.1.to_out.0": "attentions.1.out",
    "transformer_blocks.0.ff_norm": "ff_norm",
    "transformer_blocks.0.ff.net.0.proj": "ff_gate",
    "transformer_blocks.0.ff.net.2": "ff_out",
}
_MOTION_PROJECTIONS = {"to_q": "query", "to_k": "key", "to_v": "value"}

MOTION_POSITIONS = ".pos_encoder.pe"
"""How the names of Video Depth Anything's constant position codes end: no weights, but stored."""


def vda_names(sizes: NetworkSizes) -> Names:
    """Of ``video_depth_anything_vits.pth``, but for `MOTION_POSITIONS`."""
    names = _backbone(sizes, "pretrained.") | {"pretrained.mask_token": ("base.backbone.embeddings.mask_token",)}
    names |= dict(_head("head.", first_unit=True))
    for index in range(_NUM_MOTION_MODULES):
        theirs, ours = f"head.motion_modules.{index}.temporal_transformer.", f"motion.{index}."
        for their, our in _MOTION.items():
            names |= _both(theirs + their, ours + our)
        for block in range(2):
            for their, our in _MOTION_PROJECTIONS.items():
                name = f"{theirs}transformer_blocks.0.attention_blocks.{block}.{their}.weight"
                names[name] = (f"{ours}attentions.{block}.{our}.weight",)
    return names


def da3_metric_names(sizes: NetworkSizes) -> Names:
    """Of ``model.safetensors`` in DA3METRIC-LARGE."""
    names = _backbone(sizes, "model.backbone.pretrained.") | dict(_head("model.head.", first_unit=False))
    for index in (0, 2):
        names |= _both(f"model.head.scratch.sky_output_conv2.{index}", f"sky.{index}")
    return names


def _both(their: str, our: str) -> Names:
    return {f"{their}.{kind}": (f"{our}.{kind}",) for kind in _BOTH}


def _backbone(sizes: NetworkSizes, prefix: str) -> Names:
    ours = "base.backbone."
    names: Names = {
        f"{prefix}cls_token": (f"{ours}embeddings.cls_token",),
        f"{prefix}pos_embed": (f"{ours}embeddings.position_embeddings",),
        **_both(f"{prefix}patch_embed.proj", f"{ours}embeddings.patch_embeddings.projection"),
        **_both(f"{prefix}norm", f"{ours}layernorm"),
    }
    for index in range(sizes.layers):
        their, our = f"{prefix}blocks.{index}.", f"{ours}encoder.layer.{index}."
        for one, other in _PER_LAYER.items():
            names |= _both(their + one, our + other)
        for scale in (1, 2):
            names[f"{their}ls{scale}.gamma"] = (f"{our}layer_scale{scale}.lambda1",)
        for kind in _BOTH:
            names[f"{their}attn.qkv.{kind}"] = tuple(f"{our}attention.{part}_proj.{kind}" for part in "qkv")
    return names


def _head(prefix: str, *, first_unit: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of the DPT head. `first_unit`: the coarsest fusion has a residual unit that nothing runs through."""
    for index in range(4):
        layer = f"base.neck.reassemble_stage.layers.{index}"
        yield from _both(f"{prefix}projects.{index}", f"{layer}.projection").items()
        if index != 2:  # the third map keeps its size
            yield from _both(f"{prefix}resize_layers.{index}", f"{layer}.resize").items()
        yield f"{prefix}scratch.layer{index + 1}_rn.weight", (f"base.neck.convs.{index}.weight",)
        fusion = f"base.neck.fusion_stage.layers.{3 - index}"  # theirs are counted from the finest
        theirs = f"{prefix}scratch.refinenet{index + 1}"
        yield from _both(f"{theirs}.out_conv", f"{fusion}.projection").items()
        for unit in (1, 2) if first_unit or index < 3 else (2,):
            for conv in (1, 2):
                their = f"{theirs}.resConfUnit{unit}.conv{conv}"
                yield from _both(their, f"{fusion}.residual_layer{unit}.convolution{conv}").items()
    yield from _both(f"{prefix}scratch.output_conv1", "base.head.conv1").items()
    yield from _both(f"{prefix}scratch.output_conv2.0", "base.head.conv2").items()
    yield from _both(f"{prefix}scratch.output_conv2.2", "base.head.conv3").items()
