"""Target view → generated video, window by window, resumable; for a run in progress and for folders on disk."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ex4d.core.arrays import Bool, UInt8
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.model.config import TINY
from ex4d.model.windows import fade_weights
from ex4d.pipeline.generation_job import EngineSettings, GenerationJob
from ex4d.pipeline.progress import Reporter, timed_stage
from ex4d.pipeline.sheet import sheet_frames
from ex4d.pipeline.window_source import read_window
from ex4d.pipeline.window_store import WindowStore

if TYPE_CHECKING:
    from torch import Tensor

    from ex4d.pipeline.engine import Engine

STAMP = "random weights"


def run_job(
    job: GenerationJob,
    path: Path,
    *,
    work: Path,
    fps: Fraction,
    audio: tuple[Path, float] | None,
    reporter: Reporter,
    timings: dict[str, float],
    settings: EngineSettings | None = None,
) -> tuple[dict[str, Any], Mapping[int, UInt8]]:
    """All of it: windows, then the video at `path`.

    Args:
        job: what to do.
        path: the video to write.
        work: folder that keeps finished windows.
        fps: average rate of the result; its times are the source's.
        audio: (file, seconds into it) of the sound to copy.
        reporter: told of progress and notices.
        timings: gets the stages.
        settings: previews and other processes.

    Returns:
        What prior.json or config.json says of the result, and the contact sheet's frames at the source's size
        (none on other ranks than 0).
    """
    from ex4d.pipeline.engine import open_engine

    settings = settings or EngineSettings()
    store = WindowStore(work)
    records = generate_windows(
        job,
        store,
        lambda: open_engine(job, settings, reporter=reporter, timings=timings),
        reporter=reporter,
        timings=timings,
    )
    if not settings.is_main:
        return {}, {}
    notices, shown = write_result(job, store, path, fps=fps, audio=audio, reporter=reporter, timings=timings)
    record = {
        "generator": "wan",
        "settings": asdict(job.config),
        "seed": job.seed,
        "height": job.output_size[0],
        "width": job.output_size[1],
        **_hoisted(records),
        "notices": [*_notices(job), *notices],
    }
    return record, shown


def _hoisted(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all windows have in common, once; and the rest of each under ``windows``."""
    common = {key: value for key, value in records[0].items() if all(record.get(key) == value for record in records)}
    common.pop("window", None)
    common.pop("seed", None)
    return {**common, "windows": [{k: v for k, v in record.items() if k not in common} for record in records]}


def _notices(job: GenerationJob) -> Iterator[str]:
    if job.config.weights == TINY:
        yield "result.mp4 was made by random weights: it shows that the chain works, and nothing else"
    aspect = job.height * job.source.width / (job.width * job.source.height)
    if abs(aspect - 1) > 0.005:
        asked = "--square" if job.config.square else "--size" if job.config.size_px else ""
        why = f"as {asked} asks" if asked else "sides are multiples of 16"
        yield f"generated at {job.width}x{job.height}, {100 * abs(aspect - 1):.1f} % off the clip's aspect: {why}"
    padding = job.windows[-1].stop - job.source.num_frames
    if padding:
        yield f"the last frame was repeated to fill the last window ({padding} more), and cut off again"
    if job.config.preset == "draft":
        yield "draft: 4 steps of a distilled LoRA stacked on EX-4D's; how good that is was never measured"


def generate_windows(
    job: GenerationJob,
    store: WindowStore,
    open_engine: Callable[[], AbstractContextManager["Engine"]],
    *,
    reporter: Reporter,
    timings: dict[str, float],
) -> list[dict[str, Any]]:
    """Generate what is not finished yet; returns the record of every window.

    Args:
        job: what to do.
        store: finished windows.
        open_engine: loads the model; not called if every window is finished.
        reporter: told of progress in denoising steps.
        timings: gets the stages.
    """
    records = [store.record(index) for index in range(len(job.windows))]
    done = next((index for index, record in enumerate(records) if record is None), len(records))
    steps = job.config.num_inference_steps * (len(records) - done)
    if steps:
        with open_engine() as engine, timed_stage(reporter, timings, "generate", steps, unit="steps"):
            for index in range(done, len(job.windows)):
                records[index] = _generate_window(job, store, engine, index, lambda: reporter.advance())
    return [record for record in records if record is not None]


def _generate_window(
    job: GenerationJob, store: WindowStore, engine: "Engine", index: int, advance: Callable[[], None]
) -> dict[str, Any]:
    rgb, observed, faded = _window_input(job, store, index)
    seed = job.window_seed(index)
    latents = engine.sample(rgb, observed, seed=seed, window=index, on_step=advance)
    if faded is not None:
        for offset, weight in enumerate(fade_weights(faded.shape[2]), start=1):
            ours = latents[:, :, offset]
            latents[:, :, offset] = faded[:, :, offset - 1] * (1 - weight) + ours * weight
    frames = engine.decode(latents)
    record = {"window": asdict(job.windows[index]), "seed": seed, **engine.describe()}
    engine.write(lambda: store.save(index, frames, latents, record))
    return record


def _window_input(job: GenerationJob, store: WindowStore, index: int) -> tuple[UInt8, Bool, "Tensor | None"]:
    """Frames and mask of a window, and the latents of the window before that it fades from.

    The frames it shares with that window are given as observed, as that window made them: so the model goes on
    from its own picture instead of inventing another one.
    """
    window = job.windows[index]
    size = (job.height, job.width)
    rgb, observed = read_window(job.source, window, job.config, size=size, seed=job.seed)
    if not window.num_shared:
        return rgb, observed, None
    before = job.windows[index - 1]
    start = window.start - before.start
    rgb[: window.num_shared] = store.frames(index - 1, start, start + window.num_shared)
    observed[: window.num_shared] = True
    first = start // 4 + 1
    return rgb, observed, store.latents(index - 1)[:, :, first : first + window.num_shared_latents]


def iter_result(job: GenerationJob, store: WindowStore) -> Iterator[tuple[int, UInt8]]:
    """(index of the first frame, frames uint8 [T,H,W,3] at output size) of finished windows, in order.

    A window gives its frames up to the first one of the next, which is the one frame whose latent stands alone.
    """
    height, width = job.output_size
    for index, window in enumerate(job.windows):
        start = window.start + (1 if index else 0)
        stop = job.windows[index + 1].start + 1 if index + 1 < len(job.windows) else job.source.num_frames
        frames = store.frames(index, start - window.start, stop - window.start)
        if job.config.weights == TINY:
            frames = np.stack([_stamped(frame) for frame in frames])
        if (height, width) != frames.shape[1:3]:
            how = cv2.INTER_AREA if height * width < job.height * job.width else cv2.INTER_CUBIC
            frames = np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])
        yield start, np.asarray(frames, np.uint8)


def write_result(
    job: GenerationJob,
    store: WindowStore,
    path: Path,
    *,
    fps: Fraction,
    audio: tuple[Path, float] | None,
    reporter: Reporter,
    timings: dict[str, float],
) -> tuple[list[str], Mapping[int, UInt8]]:
    """Write the delivery video; returns notices and the frames of the contact sheet, at the source's size."""
    height, width = job.output_size
    wanted = set(sheet_frames(job.source.num_frames))
    shown: dict[int, UInt8] = {}
    writer = DeliveryWriter(
        path,
        height=height,
        width=width,
        fps=fps,
        audio_from=audio[0] if audio else None,
        audio_start_s=audio[1] if audio else 0.0,
    )
    with timed_stage(reporter, timings, "encode", job.source.num_frames), writer:
        for start, frames in iter_result(job, store):
            writer.write(frames, job.source.timestamps_s[start : start + len(frames)])
            for i in wanted & set(range(start, start + len(frames))):
                side = (job.source.width, job.source.height)
                shown[i] = np.asarray(cv2.resize(frames[i - start], side, interpolation=cv2.INTER_AREA), np.uint8)
            reporter.advance(len(frames))
    return list(writer.notices), shown


def _stamped(frame: UInt8) -> UInt8:
    """What random weights made says so on every frame."""
    height, width = frame.shape[:2]
    scale = width / 300
    (text_width, text_height), _ = cv2.getTextSize(STAMP, cv2.FONT_HERSHEY_PLAIN, scale, 1)
    stamped = np.ascontiguousarray(frame)
    cv2.rectangle(stamped, (0, height - text_height - 6), (text_width + 6, height), (0, 0, 0), -1)
    cv2.putText(stamped, STAMP, (3, height - 3), cv2.FONT_HERSHEY_PLAIN, scale, (255,) * 3, 1, cv2.LINE_AA)
    return stamped
