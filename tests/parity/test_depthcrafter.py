"""DepthCrafter on diffusers' parts: one embedding a frame, and windows, against plain diffusers and plain loops.

What the release computes (Tencent/DepthCrafter, depthcrafter/depth_crafter_ppl.py and unet.py) is written out here
from its description, on whole tensors; the release's own classes are under another licence and not part of this test.
"""

import itertools
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.pretrained.depthcrafter_networks import CHUNK_FRAMES, DepthCrafter, PerFrameUNet, load_depthcrafter
from ex4d.depth.pretrained.depthcrafter_pipeline import estimate_disparity
from ex4d.depth.pretrained.depthcrafter_windows import Windows, sample_windows
from parity.tiny_svd import EMBEDDING, make_scheduler, make_unet, save_weights

# diffusers' Euler scheduler hands a tensor to np.array (scheduling_euler_discrete.py, set_timesteps)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

IDS = torch.tensor([[7, 127, 0.02]])
SIZE = (64, 64)
ROUNDING = 2e-4
"""float32 sums in another order, through random weights: 5e-5 on one processor, under 1e-5 on another."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DepthCrafter:
    root = tmp_path_factory.mktemp("weights")
    save_weights(root)
    return load_depthcrafter(root / "depthcrafter", root / "svd", torch.device("cpu"))


def video(num_frames: int) -> ArrayClip[Video]:
    frames = np.random.default_rng(num_frames).integers(0, 256, (num_frames, *SIZE, 3), dtype=np.uint8)
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(num_frames) / 24))


def run(model: DepthCrafter, num_frames: int, windows: Windows) -> np.ndarray:
    chunks = estimate_disparity(model, video(num_frames), size=SIZE, seed=42, advance=lambda _: None, windows=windows)
    return np.concatenate([values for values, _ in chunks])


# one embedding a frame


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_equal_embeddings_change_nothing(num_frames: int) -> None:
    latents = torch.randn(1, num_frames, 8, 8, 16)
    embedding = torch.randn(1, 1, EMBEDDING)
    plain = make_unet()(latents, torch.tensor(3.0), embedding, IDS, return_dict=False)[0]
    ours = PerFrameUNet(make_unet())(latents, torch.tensor(3.0), embedding[0].repeat(num_frames, 1), IDS)
    assert torch.equal(ours, plain)
    assert plain.std() > 0.1


def test_every_block_sees_the_embeddings_of_its_frames() -> None:
    unet = make_unet()
    ours = PerFrameUNet(unet)
    embeddings = torch.randn(3, EMBEDDING)
    spatial: list[Tensor] = []
    temporal: list[Tensor] = []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            seen = temporal if "temporal" in name else spatial
            module.register_forward_pre_hook(
                lambda _, __, kwargs, seen=seen: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
            )
    latents = torch.randn(1, 3, 8, 8, 8)
    got = ours(latents, torch.tensor(3.0), embeddings, IDS)
    assert len(spatial) == len(temporal) == 3 * 1 + 1 + 3 * 2  # down, middle, up
    assert all(torch.equal(context, embeddings[:, None]) for context in spatial)
    # along time the first frame's embedding is the context, as in the release
    assert all(torch.equal(context, embeddings[:1, None].expand_as(context)) for context in temporal)
    repeated = make_unet()(latents, torch.tensor(3.0), embeddings[None, :1], IDS, return_dict=False)[0]
    assert (got - repeated).abs().max() > 1e-2


# one window


def test_a_short_clip_is_one_plain_loop(model: DepthCrafter) -> None:
    """Noise on the frames, then on the latents; five Euler steps; chunks of eight decoded; nothing of a window."""
    num_frames = 11
    generator = torch.Generator().manual_seed(42)
    noise = torch.randn((num_frames, 3, *SIZE), generator=generator)
    told = [model.encode(video(num_frames).read(i, min(i + 8, num_frames)).frames, noise[i : i + 8]) for i in (0, 8)]
    latents, embeddings = (torch.cat(parts) for parts in zip(*told, strict=True))
    scheduler, vae = cast(Any, make_scheduler()), cast(Any, model.vae)
    scheduler.set_timesteps(5)
    state = torch.randn((1, num_frames, 4, 8, 8), generator=generator) * scheduler.init_noise_sigma
    unet = PerFrameUNet(make_unet())
    for timestep in scheduler.timesteps:
        seen = torch.cat([scheduler.scale_model_input(state, timestep), latents[None]], dim=2)
        state = scheduler.step(unet(seen, timestep, embeddings, IDS), timestep, state).prev_sample
    parts = [vae.decode(state[0, i : i + 8] / 0.18215, num_frames=min(8, num_frames - i)).sample for i in (0, 8)]
    want = (torch.cat(parts) / 2 + 0.5).clamp(0, 1).mean(1).numpy()
    got = run(model, num_frames, Windows())
    np.testing.assert_allclose(got, want, atol=ROUNDING)
    assert got.std() > 0.05


def test_encoding_is_the_mode_unscaled_of_slightly_noisy_frames(model: DepthCrafter) -> None:
    frames = video(2).read(0, 2).frames
    noise = torch.randn(2, 3, *SIZE)
    latents, embeddings = model.encode(frames, noise)
    pixels = torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    moments = model.vae.quant_conv(model.vae.encoder(pixels + 0.02 * noise))
    torch.testing.assert_close(latents, moments[:, :4], atol=1e-4, rtol=1e-4)
    alone = torch.cat([model.encode(frames[i : i + 1], noise[i : i + 1])[1] for i in range(2)])
    torch.testing.assert_close(embeddings, alone)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


# windows


def test_windows_are_planned_as_released() -> None:
    windows = Windows()
    assert windows.plan(49) == [(0, 49)]
    assert windows.plan(110) == [(0, 110)]
    assert windows.plan(111) == [(0, 110), (85, 111)]
    assert windows.plan(196) == [(0, 110), (85, 195), (170, 196)]
    for num_frames in range(1, 60):
        spans = Windows(size=7, overlap=3).plan(num_frames)
        assert spans[0][0] == 0
        assert spans[-1][1] == num_frames
        assert all(b[0] == a[1] - 3 and b[1] - b[0] > 3 for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize(("num_frames", "size", "overlap"), [(9, 6, 3), (8, 6, 3), (13, 6, 2), (20, 8, 5), (6, 6, 3)])
def test_overlaps_start_from_the_last_window_and_are_faded(num_frames: int, size: int, overlap: int) -> None:
    """Against the description carried out frame by frame, with a stand-in for the network that shows its input."""
    generator = torch.Generator().manual_seed(3)
    length = min(size, num_frames)
    unit = torch.randn((1, length, 4, 2, 2), generator=generator, dtype=torch.float64)
    drift = torch.randn((num_frames, 4, 2, 2), generator=generator, dtype=torch.float64)
    init_sigma, first_sigma = 700.7, 700.0

    def denoise(latents: Tensor, start: int, stop: int) -> Tensor:
        return latents / 100 + drift[start:stop] + start

    chunks = sample_windows(
        unit * init_sigma,
        denoise,
        num_frames=num_frames,
        windows=Windows(size=size, overlap=overlap),
        init_sigma=init_sigma,
        first_sigma=first_sigma,
    )
    got = torch.cat(list(chunks), dim=1)[0]

    want: dict[int, Tensor] = {}
    noise_of = [unit[0, i] for i in range(length)]
    start = 0
    while True:
        stop = min(start + size, num_frames)
        fresh: dict[int, Tensor] = {}
        for slot, frame in enumerate(range(start, stop)):
            shared = start > 0 and slot < overlap
            begin = want[frame] + noise_of[slot] * first_sigma if shared else noise_of[slot] * init_sigma
            fresh[frame] = begin / 100 + drift[frame] + start
        for slot, frame in enumerate(range(start, stop)):
            share = slot / (overlap - 1) if start > 0 and slot < overlap else 1.0
            want[frame] = share * fresh[frame] + (1 - share) * want[frame] if share < 1 else fresh[frame]
        if stop == num_frames:
            break
        start += size - overlap
        noise_of = noise_of[-overlap:] + noise_of[:-overlap]
    torch.testing.assert_close(got, torch.stack([want[frame] for frame in range(num_frames)]), rtol=1e-5, atol=1e-5)


def test_one_window_more_leaves_the_frames_before_it_alone(model: DepthCrafter) -> None:
    """Frames that no later window shares are final: what lets decoded frames be given away window by window."""
    windows = Windows(size=6, overlap=2)
    first = next(estimate_disparity(model, video(10), size=SIZE, seed=42, advance=lambda _: None, windows=windows))[0]
    whole = run(model, 10, windows)
    np.testing.assert_array_equal(first, whole[: len(first)])
    assert whole.shape == (10, *SIZE)
    alone = run(model, 10, Windows())
    assert np.abs(whole - alone).max() > 1e-2
    assert len(first) == CHUNK_FRAMES


def test_noise_drawn_in_blocks_is_the_noise_of_the_whole_clip() -> None:
    whole = torch.randn((250, 3, 64, 64), generator=torch.Generator().manual_seed(42))
    generator = torch.Generator().manual_seed(42)
    parts = [torch.randn((n, 3, 64, 64), generator=generator) for n in (112, 112, 26)]
    assert torch.equal(torch.cat(parts), whole)
