"""The transformer with everything but noise and time filled in: whole, or one tile of the frame after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor

from ex4d.model import preprocess
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.sampling import Branch
from ex4d.model.sizes import Tile, tile_weights
from ex4d.model.transformer import EX4DTransformer3DModel

T = TypeVar("T", Tensor, Tensor | None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioning:
    """What the transformer is given beside noise and text.

    Attributes:
        image_embeds: [1,257,1280] of CLIP, last but one layer; None for a transformer that takes none.
        image_latents: float32 [1,20,t,h,w]: 4 mask channels, then the first frame's latents.
        geometry_latents: [1,5120,t,h/2,w/2] of the geometry encoder; None = plain Wan.
    """

    image_embeds: Tensor | None
    image_latents: Tensor
    geometry_latents: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorLatents:
    """What a prior shows, as frozen encoders see it: all that a `Conditioning` is made of.

    Attributes:
        color: float32 [B,16,t,h,w], normalised latents of the colour, unobserved pixels black.
        observed: the same of the mask as a video.
        image: the same of frame 0 of the colour, followed by mid-grey.
        image_embeds: [B,257,1280] of that frame by CLIP, last but one layer; None for a transformer that takes none.
    """

    color: Tensor
    observed: Tensor
    image: Tensor
    image_embeds: Tensor | None

    def condition(self, encoder: GeometryEncoder) -> Conditioning:
        """What the transformer is given: the geometry encoder's view, and the image with its mask channels.

        Args:
            encoder: on the device of the latents; computes in its own precision.
        """
        flags = preprocess.image_condition_mask(*self.image.shape[2:]).to(self.image)
        return Conditioning(
            image_embeds=self.image_embeds,
            image_latents=torch.cat([flags.expand(len(self.image), -1, -1, -1, -1), self.image], dim=1),
            geometry_latents=encoder(self.color.to(encoder.dtype), self.observed.to(encoder.dtype)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEmbeds:
    """Embeddings [1,512,text_dim] of both prompts, zero-padded; `uncond` is None without guidance."""

    cond: Tensor
    uncond: Tensor | None = None

    @classmethod
    def of(cls, embeds: Sequence[Tensor]) -> Self:
        """Of one prompt, or of two: positive, then negative."""
        return cls(cond=embeds[0], uncond=embeds[1] if len(embeds) > 1 else None)


def make_branch(
    transformer: EX4DTransformer3DModel,
    conditioning: Conditioning,
    text: TextEmbeds,
    device: torch.device,
    *,
    tiles: Sequence[Tile] = (),
) -> Branch:
    """What `sampling.denoise` calls.

    Args:
        transformer: on the device, however it is kept.
        conditioning: of a window.
        text: both prompts.
        device: where it computes.
        tiles: the transformer sees one at a time, and velocities are blended where they overlap; () = whole frames.
    """
    dtype = transformer.compute_dtype
    texts = {"cond": text.cond.to(device, dtype)}
    if text.uncond is not None:
        texts["uncond"] = text.uncond.to(device, dtype)
    given = conditioning.image_embeds
    image_embeds = None if given is None else given.to(device, dtype)

    def one(latents: Tensor, timestep: Tensor, name: str, tile: Tile | None) -> Tensor:
        """A tile, or the whole frame; step caches are kept apart by text and by tile."""
        noisy = torch.cat([latents, conditioning.image_latents], dim=1)
        with transformer.cache_context(name if tile is None else f"{name} {tile}"):
            return transformer(
                hidden_states=_cut(noisy, tile, 1).to(dtype),
                timestep=timestep,
                encoder_hidden_states=texts[name],
                encoder_hidden_states_image=image_embeds,
                geometry_latents=_cut(conditioning.geometry_latents, tile, 2),
                return_dict=False,
            )[0]

    def whole(latents: Tensor, timestep: Tensor, name: str) -> Tensor:
        return one(latents, timestep, name, None)

    def blended(latents: Tensor, timestep: Tensor, name: str) -> Tensor:
        total, weights = torch.zeros_like(latents), torch.zeros_like(latents[:1, :1, :1])
        for tile in tiles:
            height, width = latents.shape[3:]
            weight = torch.from_numpy(tile_weights(tile, height, width)).to(latents.device)
            area = (..., slice(tile.top, tile.bottom), slice(tile.left, tile.right))
            total[area] += one(latents, timestep, name, tile).float() * weight
            weights[area] += weight
        return total / weights

    return blended if tiles else whole


def _cut(tensor: T, tile: Tile | None, patch: int) -> T:
    """A tile of latents [..., h, w], or of patches (2 latents a side)."""
    if tile is None or tensor is None:
        return tensor
    return tensor[..., tile.top // patch : tile.bottom // patch, tile.left // patch : tile.right // patch]
