"""The weights that have a name: where they come from, what they weigh, what they are for. Imports no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ex4d.errors import WeightsError
from ex4d.weights.folders import MANIFEST, weights_root

Kind = Literal["base", "adapter", "distill", "depth"]

_COMPONENTS = r"(transformer|vae|text_encoder|image_encoder|tokenizer|image_processor|scheduler)/"
_PIPELINE_FILES = rf"(model_index\.json|LICENSE[^/]*|{_COMPONENTS}[^/]+\.(safetensors|json|txt|model))"
"""What a diffusers pipeline reads; never ``.bin`` or ``.py``, nor samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Weights with a name.

    Attributes:
        name: what is typed.
        kind: ``base``: a diffusers folder of Wan2.1-I2V-14B; ``adapter``: EX-4D's; ``distill``: a LoRA for few steps;
            ``depth``: for an estimator (`depth.registry.ESTIMATORS`) of the same name, or a part of it.
        repo: repository on the hub.
        files: regular expression of the paths to fetch from there.
        size_gb: approximate download, 10⁹ bytes; `hub.look_up` knows it exactly.
        licence: SPDX name; `hub.look_up` returns the one that the repository declares, where it does.
        purpose: half a sentence.
        ready: what programs open, inside the folder of the name; "" = the folder.
    """

    name: str
    kind: Kind
    repo: str
    files: str
    size_gb: float
    licence: str
    purpose: str
    ready: str = ""

    def wants(self, path: str) -> bool:
        """Whether a file of the repository is needed."""
        return re.fullmatch(self.files, path) is not None

    def folder(self, environ: Mapping[str, str] | None = None) -> Path:
        """Where `ex4d weights pull` puts it."""
        return weights_root(environ) / self.name


def _depth_anything_2(name: str, variant: str, purpose: str) -> Entry:
    return Entry(
        name=name,
        kind="depth",
        repo=f"depth-anything/Depth-Anything-V2-{variant}-hf",
        files=r"(config\.json|model\.safetensors|preprocessor_config\.json)",
        size_gb=0.0992,
        licence="apache-2.0",
        purpose=purpose,
    )


# Licences: the model cards of both bases; the LICENSE of EX-4D's source; for the distilled LoRA the cards of its
# maker's sister repositories. A pull shows what the repository itself declares.
ENTRIES: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="480p",
            kind="base",
            repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            files=_PIPELINE_FILES,
            size_gb=90.1,
            licence="apache-2.0",
            purpose="the model that EX-4D was trained on",
        ),
        Entry(
            name="720p",
            kind="base",
            repo="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
            files=_PIPELINE_FILES,
            size_gb=90.1,
            licence="apache-2.0",
            purpose="the same for larger pictures",
        ),
        Entry(
            name="ex4d",
            kind="adapter",
            repo="yihouxiang/EX-4D",
            files=r"ex4d\.ckpt",
            size_gb=0.4,
            licence="apache-2.0",
            purpose="EX-4D's geometry encoder and LoRA, needed beside 480p or 720p",
            ready="adapter",
        ),
        Entry(
            name="distill-480p",
            kind="distill",
            repo="lightx2v/Wan2.1-Distill-Loras",
            files=r"wan2\.1_i2v_lora_rank64_lightx2v_4step\.safetensors",
            size_gb=0.739,
            licence="apache-2.0",
            purpose="LoRA for 4 steps without guidance: --preset draft",
            ready="wan2.1_i2v_lora_rank64_lightx2v_4step.safetensors",
        ),
        Entry(
            name="vda-small",
            kind="depth",
            repo="depth-anything/Video-Depth-Anything-Small",
            files=r"video_depth_anything_vits\.pth",
            size_gb=0.116,
            licence="apache-2.0",
            purpose="Video Depth Anything Small: steady disparity, the default once it is there",
            ready="video_depth_anything_vits.pth",
        ),
        _depth_anything_2("da2-small", "Small", "Depth Anything V2 Small: disparity frame by frame"),
        _depth_anything_2(
            "da2-metric-indoor", "Metric-Indoor-Small", "Depth Anything V2 Small in metres: rooms, up to 20 m"
        ),
        _depth_anything_2(
            "da2-metric-outdoor", "Metric-Outdoor-Small", "Depth Anything V2 Small in metres: outdoors, up to 80 m"
        ),
        Entry(
            name="da3metric-large",
            kind="depth",
            repo="depth-anything/DA3METRIC-LARGE",
            files=r"(config\.json|model\.safetensors)",
            size_gb=1.34,
            licence="apache-2.0",
            purpose="Depth Anything 3 metric: metres and sky; the anchor of other estimators",
            ready="model.safetensors",
        ),
        Entry(
            name="moge",
            kind="depth",
            repo="Ruicheng/moge-2-vitl-normal",
            files=r"model\.pt",
            size_gb=1.31,
            licence="mit",
            purpose="MoGe-2: metres, focal length and sky; needs the package moge",
            ready="model.pt",
        ),
        Entry(
            name="depth-anything-3",
            kind="depth",
            repo="depth-anything/DA3-BASE",
            files=r"(config\.json|model\.safetensors)",
            size_gb=0.54,
            licence="apache-2.0",
            purpose="Depth Anything 3: depth with cameras; needs the package depth_anything_3",
        ),
        Entry(
            name="depthcrafter",
            kind="depth",
            repo="tencent/DepthCrafter",
            files=r"(config\.json|diffusion_pytorch_model\.safetensors|LICENSE[^/]*)",
            size_gb=3.05,
            licence="other (academic, research and education only)",
            purpose="DepthCrafter: what the EX-4D release runs; not for commercial use; needs svd too",
        ),
        Entry(
            name="svd",
            kind="depth",
            repo="stabilityai/stable-video-diffusion-img2vid-xt",
            files=r"((vae|image_encoder)/(config\.json|[^/]*\.fp16\.safetensors)|(scheduler|feature_extractor)/[^/]*\.json"
            r"|LICENSE[^/]*)",
            size_gb=1.46,
            licence="other (stable-video-diffusion-community)",
            purpose="VAE, image encoder and scheduler of DepthCrafter",
        ),
    )
}


def find_entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        WeightsError: there is none.
    """
    if name not in ENTRIES:
        raise WeightsError(f"one of {', '.join(ENTRIES)}", repr(name), "see `ex4d weights list`")
    return ENTRIES[name]


def is_pulled(entry: Entry, environ: Mapping[str, str] | None = None) -> bool:
    """Whether the weights are there and complete; their content is for `verify` to check."""
    folder = entry.folder(environ)
    return (folder / MANIFEST).is_file() and (folder / entry.ready).exists()


def resolve(name_or_path: str | Path, *, environ: Mapping[str, str] | None = None) -> Path:
    """The folder or file behind ``--weights`` or ``--adapter``.

    Args:
        name_or_path: a name of the registry, or a path; ``./480p`` is always a path.
        environ: default `os.environ`.

    Raises:
        WeightsError: a name that was not pulled, or neither a name nor a path of something that exists.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text in ENTRIES:
        entry = ENTRIES[text]
        if is_pulled(entry, environ):
            return entry.folder(environ) / entry.ready
        raise WeightsError(
            f"the weights {text!r} in {entry.folder(environ)}",
            "a download that was not finished" if entry.folder(environ).exists() else "nothing there",
            f"ex4d weights pull {text} (about {entry.size_gb:.3g} GB)",
        )
    path = Path(text).expanduser()
    if not path.exists():
        raise WeightsError(
            f"a folder or file of weights, or one of {', '.join(ENTRIES)}",
            f"{text!r}, which does not exist",
            "check the path, or see `ex4d weights list`",
        )
    return path
