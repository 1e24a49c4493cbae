"""``ex4d prepare``: clips to a dataset that `ex4d train` reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from ex4d.cli.source_options import Flag, optional

if TYPE_CHECKING:
    from ex4d.jobs.executor import Executor
    from ex4d.pipeline.progress import Reporter
    from ex4d.prepare.config import PrepareConfig, WorkConfig
    from ex4d.prepare.plan import Plan
    from ex4d.prepare.run import Prepared

# tyro would write "{None}|FLOAT" and "(default: None)": a plain word, and no default where there is none.
_OptionalFloat = float | None
_OptionalInt = int | None
_OptionalPath = Path | None
_OptionalText = str | None


@dataclass(frozen=True, kw_only=True)
class PrepareCommand:
    """A dataset of clips with simulated masks, in shards; bad clips are recorded and passed over.

    Run it again to go on after an interruption: finished shards are kept.
    """

    input: Annotated[Positional[_OptionalPath], optional("INPUT")] = None
    """a folder of videos (NAME.txt = caption) or tars, a .jsonl manifest, a csv of OpenVid-1M or Koala-36M, a .tar"""
    output_dir: Annotated[_OptionalPath, optional("DATASET", aliases=("-o",))] = None
    """folder of the dataset; new, or one that the same command began"""
    root: Annotated[_OptionalPath, optional("FOLDER")] = None
    """where the clips (or zips) of a table are (default: beside it)"""

    bucket: Annotated[UseAppendAction[tuple[str, ...]], optional("TxHxW")] = ()
    """frames and size of samples, e.g. 49x512x512; repeat the flag for several (default: --num-frames at five aspects
    of about --area squared pixels)"""
    num_frames: Annotated[UseAppendAction[tuple[int, ...]], optional("N")] = ()
    """frames of a sample, 4k+1; repeat for several (default: 49)"""
    area: Annotated[_OptionalInt, optional("PX")] = None
    """side of the square that has as many pixels as a sample (default: 512)"""
    fps: Annotated[_OptionalFloat, optional("FPS")] = None
    """resample clips to this rate (default: every frame)"""
    max_segments: int = 4
    """samples of one clip at most"""
    max_enlargement: float = 1.25
    """refuse clips that would have to grow by more"""

    depth: Annotated[str, arg(metavar="auto|NAME|files")] = "auto"
    """an estimator's name, or files: NAME.depth.npz beside each clip"""
    depth_size: Annotated[_OptionalInt, optional("PX")] = None
    """shorter side that a depth network sees"""
    depth_device: Literal["auto", "cpu", "cuda"] = "auto"
    """where depth networks run"""
    num_masks: int = 2
    """simulated masks a sample"""
    rendering_share: float = 0.5
    """share of masks that a camera move makes; the others follow the content"""
    crf: int = 17
    """quality of the stored H.264"""
    seed: int = 0
    """of every random choice"""

    min_motion: float = 0.25
    """refuse less motion, per cent of the width a second"""
    max_still: float = 0.3
    """refuse more frames that repeat the one before, as a share"""
    max_black: float = 0.1
    """refuse more black frames, as a share"""
    cut_threshold: float = 0.15
    """how much colours must change at a cut, 0 to 1"""
    max_hash_distance: int = 8
    """bits of 192 that duplicates may differ in; -1: keep duplicates"""
    min_score: Annotated[UseAppendAction[tuple[str, ...]], optional("NAME=X")] = ()
    """refuse clips whose table gives less, e.g. aesthetic=5; repeat for several"""

    items_per_shard: int = 64
    """clips that make a shard"""
    executor: Literal["local", "ray"] = "local"
    """where shards are made: processes here, or Ray"""
    workers: Annotated[_OptionalInt, optional("N")] = None
    """shards at a time (default: processors)"""
    shard: Annotated[_OptionalText, optional("I/N")] = None
    """do only part I of N (from 0): the same command on N machines, each with another I"""
    ray_address: Annotated[_OptionalText, optional("HOST:PORT")] = None
    """join this Ray cluster (default: start one here)"""
    timeout: float = 1800.0
    """seconds after which a clip is given up"""
    memory: Annotated[_OptionalFloat, optional("GIB")] = None
    """memory that work on one clip may take (address space; not with CUDA)"""
    retries: int = 2
    """tries of a clip after its process ended"""
    latents: Annotated[_OptionalText, optional("WEIGHTS")] = None
    """INPUT is a finished dataset: cache what the encoders of these weights (a name, a folder, tiny) make of it"""
    latents_device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the encoders run"""
    plan_only: Flag = False
    """list and check the clips, write nothing, and say what there is to do"""

    def execute(self) -> int:
        """Make the dataset; progress and notices go to stderr, the summary to stdout."""
        import sys

        from rich.console import Console

        from ex4d.cli.quiet import quiet_libraries
        from ex4d.errors import InputError
        from ex4d.pipeline.progress import ConsoleReporter
        from ex4d.prepare.plan import make_plan, open_source

        quiet_libraries()
        if self.latents is not None:
            return self._latents()
        if self.input is None or self.output_dir is None:
            got = "no INPUT" if self.input is None else "no -o"
            raise InputError("an INPUT and -o DATASET", got, "type e.g. ex4d prepare clips/ -o dataset/")
        config, work = self.config(), self.work()
        source = open_source(self.input, self.root)
        reporter = ConsoleReporter(Console(stderr=True))
        if self.plan_only:
            plan = make_plan(source, config)
            for notice in source.notices():
                reporter.note(notice)
            sys.stdout.write("\n".join(plan_lines(plan)) + "\n")
            return 0
        made = self._run(source, self.output_dir, config, work, reporter)
        sys.stdout.write("\n".join(summary_lines(made)) + "\n")
        return 0

    def config(self) -> "PrepareConfig":
        """The settings that decide the bytes.

        Raises:
            ConfigError: a value out of range.
        """
        from ex4d.errors import ConfigError
        from ex4d.masking.config import MaskConfig
        from ex4d.prepare.config import BucketConfig, GateConfig, PrepareConfig, SampleConfig, native_buckets

        if self.bucket and (self.num_frames or self.area is not None):
            raise ConfigError("either --bucket or --num-frames and --area", "both", "drop one of them")
        return PrepareConfig(
            items_per_shard=self.items_per_shard,
            buckets=BucketConfig(
                buckets=self.bucket
                or native_buckets(512 if self.area is None else self.area, self.num_frames or (49,)),
                fps=self.fps,
                max_segments=self.max_segments,
                max_enlargement=self.max_enlargement,
            ),
            gates=GateConfig(
                cut_threshold=self.cut_threshold,
                min_motion=self.min_motion,
                max_still=self.max_still,
                max_black=self.max_black,
                max_hash_distance=self.max_hash_distance,
                min_scores=self.min_score,
            ),
            sample=SampleConfig(
                depth=self.depth,
                depth_device=self.depth_device,
                depth_size=self.depth_size,
                num_masks=self.num_masks,
                masks=MaskConfig(rendering_share=self.rendering_share),
                crf=self.crf,
            ),
            seed=self.seed,
        )

    def work(self) -> "WorkConfig":
        """The settings that decide no byte (`ConfigError` as above)."""
        from ex4d.prepare.config import WorkConfig

        return WorkConfig(timeout_s=self.timeout, memory_gib=self.memory, retries=self.retries)

    def _latents(self) -> int:
        """The second pass: latents of a finished dataset."""
        import sys

        from rich.console import Console

        from ex4d.errors import InputError
        from ex4d.jobs.executor import Part
        from ex4d.pipeline.progress import ConsoleReporter
        from ex4d.prepare.config import LatentConfig
        from ex4d.prepare.latents import make_latents

        if self.input is None or self.output_dir is not None or self.latents is None:
            got = "no INPUT" if self.input is None else "-o"
            raise InputError("a finished dataset as INPUT and no -o", got, "type ex4d prepare dataset/ --latents NAME")
        executor = self.make_executor(use_gpu=self.latents_device == "cuda")
        made = make_latents(
            self.input,
            self.latents,
            LatentConfig(seed=self.seed, device=self.latents_device),
            executor,
            work=self.work(),
            part=None if self.shard is None else Part.parse(self.shard),
            reporter=ConsoleReporter(Console(stderr=True)),
        )
        rate = f", {made.num_made} in {made.elapsed_s:.1f} s" if made.num_made else ""
        more = f"; {made.num_missing} shards are missing" if made.num_missing else ""
        size = f"{made.num_bytes / 1e6:.1f} MB"
        sys.stdout.write(f"{made.folder}: latents of {made.num_samples} samples, {size}{rate}{more}\n")
        return 0

    def make_executor(self, *, use_gpu: bool) -> "Executor":
        """Where shards are made (`ConfigError`: a value out of range, or flags that do not go together)."""
        from ex4d.errors import ConfigError
        from ex4d.pipeline.recon import num_threads

        if self.executor == "ray":
            from ex4d.jobs.ray_cluster import RayExecutor

            return RayExecutor(address=self.ray_address, num_workers=self.workers, use_gpus=use_gpu)
        if self.ray_address is not None:
            raise ConfigError("--ray-address with --executor ray", "--executor local", "add --executor ray")
        from ex4d.jobs.local import LocalExecutor

        usual = 1 if use_gpu else num_threads()
        return LocalExecutor(num_workers=usual if self.workers is None else self.workers)

    def _run(
        self, source: object, output: Path, config: "PrepareConfig", work: "WorkConfig", reporter: "Reporter"
    ) -> "Prepared":
        from typing import Any, cast

        from ex4d.jobs.executor import Part
        from ex4d.prepare.run import prepare

        part = None if self.shard is None else Part.parse(self.shard)
        executor = self.make_executor(use_gpu=self.depth_device == "cuda")
        try:
            return prepare(cast(Any, source), output, config, executor, work=work, part=part, reporter=reporter)
        except KeyboardInterrupt as stop:
            raise type(stop)(f"finished shards are kept in {output}: go on with the same command") from None


def plan_lines(plan: "Plan") -> list[str]:
    """What there is to do, and what is not there."""
    from ex4d.prepare.plan import missing_items

    lost = missing_items(plan.items)
    lines = [f"{len(plan.items)} clips in {plan.num_shards} shards, plan {plan.hash[:16]}"]
    return [*lines, f"  {len(lost)} of them missing, e.g. {lost[0].path}"] if lost else lines


def summary_lines(made: "Prepared") -> list[str]:
    """What was made, what was left out, and what it cost."""
    lines: list[str] = []
    if made.info is None:
        done = made.num_shards - made.num_missing
        lines.append(f"{made.folder}: {done} of {made.num_shards} shards; complete when the other parts are done")
    else:
        buckets = ", ".join(f"{count} of {name}" for name, count in made.info["buckets"].items())
        lines.append(f"{made.folder}: {made.info['num_samples']} samples ({buckets}) in {made.num_shards} shards")
        lines.append(f"  fingerprint {made.info['fingerprint'][:16]}")
        left = ", ".join(f"{count} {reason}" for reason, count in made.info["num_left"].items())
        lines += [f"  left out: {left} (see {made.folder / 'errors.jsonl'})"] if left else []
    if made.num_made:
        rate = made.num_items / max(made.elapsed_s, 1e-9)
        lines.append(f"  this run: {made.num_items} clips in {made.elapsed_s:.1f} s, {rate:.3g} clips/s")
        for stage, spent in made.seconds.items():
            each = spent["cpu"] / made.num_items
            lines.append(f"  {stage:<8} {spent['cpu']:8.1f} CPU-s, {each:.2f} a clip")
    elif made.info is not None:
        lines.append("  nothing was left to do")
    return lines
