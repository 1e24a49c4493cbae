"""`EX4DPipeline`: Wan2.1 image-to-video, steered by a prior."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline, prompt_clean
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel

from ex4d.core.arrays import Bool, UInt8
from ex4d.errors import Ex4dError, InputError, OutputError, WeightsError
from ex4d.model import preprocess
from ex4d.model.adapter import Lora, attach_lora, check_adapter, fuse_loras, read_adapter, write_lora
from ex4d.model.branch import Conditioning, PriorLatents, TextEmbeds, make_branch
from ex4d.model.components import assert_tied, check_folder
from ex4d.model.config import NEGATIVE_PROMPT, PROMPT
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.parallel import ParallelContext
from ex4d.model.sampling import OnStep, denoise, make_scheduler
from ex4d.model.sizes import Tile
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.windows import latent_frames

TEXT_TOKENS = 512


def load_tokenizer(folder: Path) -> Any:
    """umT5's tokenizer from its folder, without a network and without code that is in it.

    Raises:
        WeightsError: no tokenizer there, or a damaged one.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise WeightsError(f"a tokenizer in {folder}", str(error).strip(), "download the folder again") from error


_LOADERS: Mapping[str, Callable[[Path, torch.dtype], Any]] = {
    "tokenizer": lambda folder, dtype: load_tokenizer(folder),
    "text_encoder": lambda folder, dtype: UMT5EncoderModel.from_pretrained(folder, dtype=dtype, local_files_only=True),
    "image_encoder": lambda folder, dtype: CLIPVisionModel.from_pretrained(folder, dtype=dtype, local_files_only=True),
    "transformer": lambda folder, dtype: EX4DTransformer3DModel.from_pretrained(folder, dtype=dtype),
    "vae": lambda folder, dtype: AutoencoderKLWan.from_pretrained(folder, dtype=dtype),
}
"""Component → how it is read from its folder, on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EX4DOutput:
    """A generated video.

    Attributes:
        frames: uint8 [T,H,W,3].
        latents: float32 [1,16,t,h,w], normalised, before decoding.
    """

    frames: UInt8
    latents: Tensor


class EX4DPipeline(WanImageToVideoPipeline):
    """Stock Wan2.1-I2V-14B components, plus a `GeometryEncoder` and a LoRA on the transformer.

    The steps of `__call__` are public methods, for windows over long clips and for tests:
    `encode_text` and `encode_prior`, then `sample`, then `decode`.
    """

    _optional_components = (
        *WanImageToVideoPipeline._optional_components,
        "tokenizer",
        "text_encoder",
        "geometry_encoder",
    )

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: UMT5EncoderModel | None,
        vae: AutoencoderKLWan,
        scheduler: FlowMatchEulerDiscreteScheduler,
        image_processor: Any = None,
        image_encoder: CLIPVisionModel | None = None,
        transformer: EX4DTransformer3DModel | None = None,
        transformer_2: None = None,
        boundary_ratio: None = None,
        expand_timesteps: bool = False,
        geometry_encoder: GeometryEncoder | None = None,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,  # pyright: ignore[reportArgumentType]
            text_encoder=text_encoder,  # pyright: ignore[reportArgumentType]
            vae=vae,
            scheduler=scheduler,
            image_processor=image_processor,
            image_encoder=image_encoder,  # pyright: ignore[reportArgumentType]
            transformer=transformer,  # pyright: ignore[reportArgumentType]
            transformer_2=transformer_2,  # pyright: ignore[reportArgumentType]
            boundary_ratio=boundary_ratio,
            expand_timesteps=expand_timesteps,
        )
        self.register_modules(geometry_encoder=geometry_encoder)
        self._placed: torch.device | None = None
        self.resident: frozenset[str] = frozenset()
        self._visitors: set[str] = set()
        self._lora: Lora | None = None
        self._is_fused = False

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, adapter: Path | str | None = None, **components: Any) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Load a stock Wan2.1-I2V-14B diffusers folder, or what `save_pretrained` wrote, from disk.

        Args:
            folder: the base weights; with an adapter inside, that one is used.
            adapter: folder of EX-4D's adapter.
            components: ready components (None leaves one out), and `dtype` (default bfloat16; the VAE,
                norms and time embedding stay float32).

        Raises:
            WeightsError: parts missing, incomplete, or of another model (T2V, 1.3B, 5B).
        """
        folder = Path(folder)
        source = folder if adapter is None else Path(adapter)
        transformer = check_folder(folder, skip=frozenset(components)) or components.get("transformer")
        if transformer is not None and "geometry_encoder" not in components:
            check_adapter(source, transformer)  # before anything is loaded, which takes minutes
        dtype = components.pop("dtype", torch.bfloat16)
        for name, load in _LOADERS.items():
            if name not in components:
                components[name] = load(folder / name, torch.float32 if name == "vae" else dtype)
        lora = None
        if "geometry_encoder" not in components:
            components["geometry_encoder"], lora = read_adapter(source, components["transformer"])
        pipe = cls(**{"scheduler": make_scheduler(), **components})
        if lora is not None:
            pipe.attach(lora)
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)
        if pipe.text_encoder is not None:
            assert_tied(pipe.text_encoder)
        return pipe

    def attach(self, lora: Lora) -> None:
        """Compute the adapter's LoRA beside the transformer's weights."""
        attach_lora(self.transformer, lora)
        self._lora = lora

    def fuse(self) -> None:
        """Add all attached LoRAs to the transformer's weights (`fuse_loras`); the pipeline can no longer be saved."""
        fuse_loras(self.transformer)
        self._is_fused = self._lora is not None

    def save_pretrained(self, folder: Path | str, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Write base and adapter as one folder that `from_pretrained` reads.

        Raises:
            OutputError: the LoRA is part of the weights by now.
        """
        if self._is_fused:
            raise OutputError("a pipeline with its LoRA beside the weights", "a fused one", "save before fuse()")
        folder, lora = Path(folder), self._lora
        if lora is not None:
            self.transformer.unload_lora()
        try:
            super().save_pretrained(folder, **options)
        finally:
            if lora is not None:
                self.attach(lora)
        if lora is not None:
            write_lora(folder, lora)

    def place(self, device: torch.device | str, *, resident: Sequence[str] = ()) -> Self:
        """Compute on a device that components visit one by one; `resident` ones are there already and stay.

        Without this, all components are taken to be where ``pipe.to(device)`` put them.
        """
        self._placed = torch.device(device)
        self.resident = frozenset(resident)
        return self

    @property
    def compute_device(self) -> torch.device:
        """Where the transformer computes."""
        return self._placed or self.device

    @contextmanager
    def visiting(self, name: str) -> Iterator[Any]:
        """The component on the compute device, for the time of the block."""
        module: nn.Module | None = getattr(self, name)
        if module is None:
            raise WeightsError(f"the component {name}", "it was not loaded", "load the pipeline with it")
        stays = self._placed is None or self._placed.type == "cpu" or name in self.resident
        if stays or name in self._visitors:
            yield module
            return
        self._visitors.add(name)
        try:
            yield module.to(self._placed)
        finally:
            self._visitors.remove(name)
            module.to("cpu")
            torch.cuda.empty_cache()

    @torch.no_grad()
    def encode_text(self, prompt: str, negative_prompt: str | None) -> TextEmbeds:
        """Embeddings of the prompts by umT5, as stored by the prompt cache; `negative_prompt` None = no guidance."""
        texts = [text for text in (prompt, negative_prompt) if text is not None]
        with self.visiting("text_encoder") as encoder:
            embeds = encode_texts(texts, self.tokenizer, encoder)
        return TextEmbeds.of(embeds)

    @torch.no_grad()
    def encode_prior(self, rgb: UInt8, observed: Bool, *, mask_quirk: bool = True) -> Conditioning:
        """What the geometry says, as latents; arguments as of `encode_views`."""
        latents = self.encode_views(rgb, observed, mask_quirk=mask_quirk)
        with self.visiting("geometry_encoder") as encoder:
            return latents.condition(encoder)

    @torch.no_grad()
    def encode_views(self, rgb: UInt8, observed: Bool, *, mask_quirk: bool = True) -> PriorLatents:
        """What VAE and CLIP make of a prior; the geometry encoder has not looked at it yet.

        Args:
            rgb: uint8 [T,H,W,3] of the target view; T = 4k+1, H and W multiples of 16.
            observed: bool [T,H,W] (or [T,H,W,3]), eroded; unobserved colour is ignored.
            mask_quirk: see `preprocess.observed_to_model`.
        """
        with self.visiting("vae") as vae:
            dtype, device = vae.dtype, self.compute_device
            color = preprocess.color_to_model(rgb, observed, dtype=dtype)
            mask = preprocess.observed_to_model(observed, quirk=mask_quirk, dtype=dtype)
            image, _ = preprocess.first_frame_to_model(color)
            still = torch.cat([image[:, :, None], torch.zeros_like(color[:, :, 1:])], dim=2)
            color_latents, mask_latents, still_latents = (
                self.encode_video(video.to(device)) for video in (color, mask, still)
            )
        return PriorLatents(
            color=color_latents, observed=mask_latents, image=still_latents, image_embeds=self._embed_image(image)
        )

    def _embed_image(self, image: Tensor) -> Tensor | None:
        """CLIP's view of an image [1,3,H,W] in [-1, 1]; None for a transformer that takes none."""
        if self.transformer is not None and self.transformer.config["image_dim"] is None:
            return None
        with self.visiting("image_encoder") as clip:
            pixels = preprocess.clip_pixels(image).to(self.compute_device, clip.dtype)
            return clip(pixels, output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def encode_video(self, video: Tensor) -> Tensor:
        """Normalised latents float32 [1,16,t,h,w] of a video [1,3,T,H,W] in [-1, 1]: the mean, nothing is sampled."""
        with self.visiting("vae") as vae:
            mean, std = _latent_statistics(vae, video.device)
            return (vae.encode(video.to(vae.dtype)).latent_dist.mode().float() - mean) * (1 / std)

    def sample(
        self,
        conditioning: Conditioning,
        text: TextEmbeds,
        noise: Tensor,
        *,
        num_inference_steps: int = 25,
        guidance_scale: float = 5.0,
        tiles: Sequence[Tile] = (),
        parallel: ParallelContext | None = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Latents float32 [1,16,t,h,w]; see `sampling.denoise`. `tiles`: the transformer sees one at a time."""
        branch = make_branch(self.transformer, conditioning, text, self.compute_device, tiles=tiles)
        with torch.no_grad():
            return denoise(
                branch,
                noise.to(self.compute_device),
                self.scheduler,
                num_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                generator=generator,
                parallel=parallel,
                on_step=on_step,
            )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> UInt8:
        """Frames uint8 [T,H,W,3] of latents [1,16,t,h,w].

        Raises:
            Ex4dError: the VAE gave no numbers.
        """
        video = self.decode_video(latents)
        if not torch.isfinite(video).all():
            fix = "check the weights with `ex4d weights verify`, or try --vae-dtype fp32"
            raise Ex4dError("finite pixels", "NaN or infinity from the VAE", fix)
        return preprocess.frames_from_model(video)

    @torch.no_grad()
    def decode_video(self, latents: Tensor) -> Tensor:
        """The video [1,3,T,H,W] in [-1, 1] of latents [1,16,t,h,w]."""
        with self.visiting("vae") as vae:
            mean, std = _latent_statistics(vae, latents.device)
            return vae.decode((latents.float() * std + mean).to(vae.dtype), return_dict=False)[0]

    def initial_noise(self, num_frames: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """float32 [1,16,t,h/8,w/8] from a CPU generator: the same on every device, and as the release draws it."""
        shape = (1, self.vae.config["z_dim"], latent_frames(num_frames), height // 8, width // 8)
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        rgb: UInt8,
        observed: Bool,
        *,
        prompt: str = PROMPT,
        negative_prompt: str = NEGATIVE_PROMPT,
        num_inference_steps: int = 25,
        guidance_scale: float = 5.0,
        seed: int = 0,
        mask_quirk: bool = True,
    ) -> EX4DOutput:
        """Generate one window.

        Args:
            rgb: uint8 [T,H,W,3] of the target view; T = 4k+1, H and W multiples of 16.
            observed: bool [T,H,W], eroded (`preprocess.erode_mask`).
            prompt: what to show.
            negative_prompt: what to avoid.
            num_inference_steps: at least 1.
            guidance_scale: 1 = without `negative_prompt`.
            seed: of the noise.
            mask_quirk: see `preprocess.observed_to_model`.

        Raises:
            InputError: sizes that the model cannot take.
        """
        num_frames, height, width = rgb.shape[:3]
        if num_frames % 4 != 1 or height % 16 or width % 16 or observed.shape[:3] != rgb.shape[:3]:
            raise InputError(
                "4k+1 frames with sides in multiples of 16, and a mask of the same size",
                f"{list(rgb.shape)} and {list(observed.shape)}",
                "resize and pad first; `ex4d generate` does",
            )
        text = self.encode_text(prompt, negative_prompt if guidance_scale > 1 else None)
        conditioning = self.encode_prior(rgb, observed, mask_quirk=mask_quirk)
        noise = self.initial_noise(num_frames, height, width, torch.Generator().manual_seed(seed))
        latents = self.sample(
            conditioning, text, noise, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale
        )
        return EX4DOutput(frames=self.decode(latents), latents=latents)


@torch.no_grad()
def encode_texts(texts: Sequence[str], tokenizer: Any, encoder: UMT5EncoderModel) -> list[Tensor]:
    """Embeddings [1,512,text_dim] of texts, cleaned as Wan does, padding set to zero.

    512 tokens, whatever the text: the model was trained so, and diffusers' default of 226 gives another result.
    """
    embeds: list[Tensor] = []
    for text in texts:
        tokens = tokenizer(
            prompt_clean(text),
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(encoder.device)
        states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        embeds.append(states * tokens.attention_mask[..., None].to(states.dtype))
    return embeds


def _latent_statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [1,16,1,1,1] that make latents unit-sized (Wan2.1's constants, in its config)."""
    mean, std = (torch.tensor(vae.config[key], device=device) for key in ("latents_mean", "latents_std"))
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)
