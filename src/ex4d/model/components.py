"""The parts of the stack: their classes and shipped configs, and strict filling from tensors."""

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from ex4d.errors import WeightsError
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.key_maps import MAPS, Source, original_name
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.weights.files import tensor_shapes
from ex4d.weights.headers import read_json
from ex4d.weights.strict import check_tensors
from ex4d.weights.verify import name_model

ComponentName = Literal["transformer", "vae", "text_encoder", "image_encoder", "geometry_encoder"]
BASE_COMPONENTS: tuple[ComponentName, ...] = ("transformer", "vae", "text_encoder", "image_encoder")
TIED_EMBEDDING = "encoder.embed_tokens.weight"
"""umT5's second name for ``shared.weight``; not stored twice."""

TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
"""A tokenizer's folder holds one of these, or both."""

MAX_LAYERS = 1000
"""No component has more than 40; a billion would be built for hours."""

WAN_I2V_CHANNELS = 36
"""16 of noisy latents, 4 of the image mask, 16 of the image's latents."""

_NOT_NEEDED = re.compile(r"norm_added_q|position_ids$|embed_tokens\.weight$")
"""What stock folders may hold beside what is used: an unused norm, a constant, a tied copy."""


def shipped_config(name: str) -> dict[str, Any]:
    """The full-size config of a component, or of ``lora``, from inside the package: no network is needed."""
    file = resources.files("ex4d.model") / "configs" / f"{name}.json"
    return json.loads(file.read_text("utf-8"))


def make_component(name: ComponentName, config: Mapping[str, Any]) -> nn.Module:
    """A component without memory behind its parameters (meta device), in eval mode.

    Args:
        name: which.
        config: its config as stored in its folder.

    Raises:
        WeightsError: a config that describes no such component.
    """
    try:
        return _make(name, config)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, OverflowError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"a config of the {name}", reason, "pull or convert the weights again") from error


def _make(name: ComponentName, config: Mapping[str, Any]) -> nn.Module:
    layers = next((config[key] for key in ("num_layers", "num_hidden_layers") if key in config), 1)
    if not isinstance(layers, int) or not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{layers!r} layers")
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    with init_empty_weights(include_buffers=False):
        if name == "text_encoder":
            module: nn.Module = UMT5EncoderModel(UMT5Config(**settings))
        elif name == "image_encoder":
            module = CLIPVisionModel(CLIPVisionConfig(**settings))
        elif name == "vae":
            module = cast(nn.Module, AutoencoderKLWan.from_config(settings))
        elif name == "transformer":
            module = cast(nn.Module, EX4DTransformer3DModel.from_config(settings))
        else:
            module = cast(nn.Module, GeometryEncoder.from_config(settings))
    return module.eval().requires_grad_(False)


def expected_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name → shape of everything that a checkpoint must hold."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def match_tensors(
    name: ComponentName, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Source]]:
    """The empty component, and where each of its tensors comes from in a file with original names.

    Raises:
        WeightsError: lists everything missing, left over, or of another shape.
    """
    module = make_component(name, config)
    sources = MAPS[name](tensors)
    expected = expected_shapes(module)
    found = {target: _shape(tensors[source.name], source, expected.get(target)) for target, source in sources.items()}
    names = {to: source.name for to, source in sources.items()}
    names |= {to: original_name(name, to) for to in expected.keys() - names.keys()}
    check_tensors(found, expected, what=name, original_names=names)
    return module, sources


def take(tensors: Mapping[str, Tensor], source: Source, shape: tuple[int, ...]) -> Tensor:
    """The tensor that a source stands for, in its target's shape."""
    tensor = tensors[source.name]
    if source.third is not None:
        tensor = tensor.chunk(3)[source.third]
    return tensor.reshape(shape)


def fill_component(
    name: ComponentName, tensors: Mapping[str, Tensor], config: Mapping[str, Any], *, dtype: torch.dtype | None = None
) -> nn.Module:
    """A component with the weights of an original file.

    Args:
        name: which.
        tensors: original name → tensor.
        config: its config.
        dtype: of the parameters; None = as in the file.

    Raises:
        WeightsError: tensors that do not fit, or umT5's embedding not tied.
    """
    module, sources = match_tensors(name, tensors, config)
    expected = expected_shapes(module)
    state = {target: take(tensors, source, expected[target]) for target, source in sources.items()}
    module.load_state_dict({key: value.to(dtype or value.dtype) for key, value in state.items()}, assign=True)
    if name == "text_encoder":
        module.tie_weights()  # pyright: ignore[reportCallIssue]
        assert_tied(module)
    return module.requires_grad_(False)


def assert_tied(text_encoder: nn.Module) -> None:
    """Raise unless umT5 looks words up in the embedding it was trained with: some loaders left it zero."""
    weights = dict(text_encoder.named_parameters(remove_duplicate=False))
    shared, used = weights["shared.weight"], weights[TIED_EMBEDDING]
    if used.is_meta or not torch.equal(shared[:64], used[:64]) or not bool(used.any()):
        raise WeightsError(
            "umT5's embed_tokens tied to its shared embedding",
            "another embedding, or zeros",
            "use transformers >= 5.23 and check the file with `ex4d weights verify`",
        )


def _shape(tensor: Tensor, source: Source, expected: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape a source would give; leading ones that the target lacks do not count (CLIP's embeddings)."""
    shape = tuple(tensor.shape)
    if source.third is not None and shape and shape[0] % 3 == 0:
        shape = (shape[0] // 3, *shape[1:])
    if expected is not None and shape[: len(shape) - len(expected)] == (1,) * (len(shape) - len(expected)):
        return shape[len(shape) - len(expected) :]
    return shape


def check_folder(folder: Path, *, skip: frozenset[str] = frozenset()) -> EX4DTransformer3DModel | None:
    """The empty transformer of a diffusers folder (None if skipped), all of whose components were checked.

    Only headers are read. They must be complete and of an image-to-video Wan2.1: transformers and diffusers would
    fill what is missing with random numbers.

    Args:
        folder: with ``model_index.json``.
        skip: components that will not be loaded from it.

    Raises:
        WeightsError: no such folder, parts missing, or tensors missing, left over or of another shape.
    """
    if not (folder / "model_index.json").is_file():
        raise WeightsError(
            f"a diffusers folder at {folder}", "no model_index.json", "see `ex4d weights pull` and `convert`"
        )
    transformer: EX4DTransformer3DModel | None = None
    for name in BASE_COMPONENTS:
        if name in skip:
            continue
        config = read_json(folder / name / "config.json")
        if name == "transformer":
            _check_kind(config, folder)
        module = make_component(name, config)
        if isinstance(module, EX4DTransformer3DModel):
            transformer = module
        expected = expected_shapes(module)
        found = {key.removeprefix("vision_model."): shape for key, shape in tensor_shapes(folder / name).items()}
        check_tensors(
            {key: shape for key, shape in found.items() if not _NOT_NEEDED.search(key)},
            {key: shape for key, shape in expected.items() if not _NOT_NEEDED.search(key)},
            what=f"{name} in {folder}",
        )
    if "tokenizer" not in skip and not any((folder / "tokenizer" / name).is_file() for name in TOKENIZER_FILES):
        raise WeightsError(
            f"a tokenizer in {folder / 'tokenizer'}",
            f"neither {' nor '.join(TOKENIZER_FILES)}",
            "download the folder again",
        )
    return transformer


def _check_kind(config: Mapping[str, Any], folder: Path) -> None:
    """Only image-to-video transformers of Wan2.1 take 36 channels and CLIP's embeddings of one image."""
    channels, image_dim = config.get("in_channels"), config.get("image_dim")
    if channels != WAN_I2V_CHANNELS or image_dim is None or config.get("pos_embed_seq_len"):
        got = f"{name_model(config)} (in_channels {channels}, image_dim {image_dim})"
        raise WeightsError(
            f"Wan2.1-I2V-14B in {folder}", got, "EX-4D's adapter fits no other: `ex4d weights pull 480p`"
        )
