"""A sample re-made with the weights as they are: pictures to look at while training."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ex4d.core.arrays import UInt8
from ex4d.io.atomic import atomic_path
from ex4d.model.branch import TextEmbeds
from ex4d.model.sampling import NUM_TRAIN_TIMESTEPS, Branch, denoise, make_scheduler
from ex4d.pipeline.sheet import compose_sheet, sheet_cell, sheet_frames
from ex4d.training.batches import Batch
from ex4d.training.config import ObjectiveConfig
from ex4d.training.objective import to_velocity
from ex4d.training.processes import SharedModel

FOLDER = "validation"


def sample_latents(
    model: SharedModel,
    batch: Batch,
    text: TextEmbeds,
    objective: ObjectiveConfig,
    *,
    num_steps: int,
    guidance_scale: float,
    seed: int,
) -> Tensor:
    """Latents float32 [B,C,t,h,w] that the model makes of what is given; all processes call this.

    Args:
        model: as the processes hold it.
        batch: what is given.
        text: [B,512,text_dim]; `uncond` is needed with guidance.
        objective: what the network's output means, and the shift.
        num_steps: Euler steps.
        guidance_scale: 1 = none.
        seed: of the noise.
    """
    device = batch.target.device
    branch = _branch(model, batch, {"cond": text.cond, "uncond": text.uncond}, objective)
    noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(seed))
    training = model.model.training
    model.model.eval()
    try:
        with torch.no_grad():
            return denoise(
                branch,
                noise.to(device),
                make_scheduler(shift=objective.shift),
                num_steps=num_steps,
                guidance_scale=guidance_scale,
            )
    finally:
        model.model.train(training)


def _branch(model: SharedModel, batch: Batch, texts: dict[str, Tensor | None], objective: ObjectiveConfig) -> Branch:
    def velocity(latents: Tensor, timestep: Tensor, name: str) -> Tensor:
        text = texts[name]
        assert text is not None, "guidance needs both texts"
        sigmas = (timestep / NUM_TRAIN_TIMESTEPS).float().expand(len(latents))
        given = {**batch.given, "text": text, "prior_kept": torch.ones_like(sigmas)}
        return to_velocity(model.call(latents, sigmas, **given), latents, sigmas, objective.prediction)

    return velocity


def write_validation_sheet(path: Path, source: UInt8, seen: UInt8, result: UInt8) -> None:
    """Source, what was seen of it and what the model made, uint8 [T,H,W,3] each, side by side at a few times."""
    rows = [(f"frame {i}", [sheet_cell(clip[i]) for clip in (source, seen, result)]) for i in sheet_frames(len(source))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        compose_sheet(["source", "seen", "result"], rows).save(temporary, format="PNG", compress_level=3)


def seen_of(video: UInt8, survived: np.ndarray) -> UInt8:
    """uint8 [T,H,W,3], black where the model may not look; bool [T,H,W]."""
    return video * survived[..., None].astype(np.uint8)
