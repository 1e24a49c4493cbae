"""A training sample is encoded as a prior of inference is."""

import numpy as np
import pytest
import torch
from random_prior import random_prior

from ex4d.model import preprocess
from ex4d.model.tiny import make_tiny_pipeline
from ex4d.model.training_latents import encode_sample
from ex4d.model.wan_pipeline import EX4DPipeline


@pytest.fixture(scope="module")
def pipe() -> EX4DPipeline:
    return make_tiny_pipeline(attach=False)


def _sample(num_masks: int = 2) -> tuple[np.ndarray, np.ndarray]:
    video, _ = random_prior()
    return video, np.stack([random_prior(seed=1 + index)[1] for index in range(num_masks)])


def test_names_and_shapes(pipe: EX4DPipeline) -> None:
    video, survived = _sample()
    found = encode_sample(pipe, video, survived, "a red ball", seed=0)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "target": (16, 2, 4, 6),
        "color": (2, 16, 2, 4, 6),
        "observed": (2, 16, 2, 4, 6),
        "image": (2, 16, 2, 4, 6),
        "image_embeds": (2, 257, 32),
        "text": (512, 32),
    }
    assert torch.equal(found["text"], pipe.encode_text("a red ball", None).cond[0])


def test_what_is_seen_equals_what_inference_is_given(pipe: EX4DPipeline) -> None:
    video, survived = _sample()
    found = encode_sample(pipe, video, survived, "", seed=3)
    # a mask without edges is what erosion leaves as it is, so both sides see the same one
    everything = np.ones_like(survived[:1])
    whole = encode_sample(pipe, video, everything, "", seed=3)
    expected = pipe.encode_prior(video, everything[0])
    assert expected.geometry_latents is not None
    with torch.no_grad():
        geometry = pipe.geometry_encoder(whole["color"], whole["observed"])
    assert torch.equal(geometry, expected.geometry_latents)
    assert torch.equal(whole["image"], expected.image_latents[:, 4:])
    assert torch.equal(whole["target"], whole["color"][0])
    assert torch.equal(found["target"], whole["target"]), "the target does not depend on the masks"
    assert not torch.equal(found["color"][0], found["color"][1])


def test_masks_are_eroded_by_kernels_of_the_seed(pipe: EX4DPipeline) -> None:
    video, survived = _sample(1)
    first, again, other = (encode_sample(pipe, video, survived, "", seed=seed)["observed"] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    unchanged = preprocess.observed_to_model(survived[0], quirk=True)
    assert not torch.equal(first, pipe.encode_video(unchanged))


def test_the_quirk_is_what_the_encoder_sees(pipe: EX4DPipeline) -> None:
    video, survived = _sample(1)
    nothing = np.zeros_like(survived)
    with_quirk = encode_sample(pipe, video, nothing, "", seed=0)["observed"]
    without = encode_sample(pipe, video, nothing, "", seed=0, mask_quirk=False)["observed"]
    for latents, value in ((with_quirk, -3.0), (without, -1.0)):
        torch.testing.assert_close(latents, pipe.encode_video(torch.full((1, 3, 5, 32, 48), value)))
