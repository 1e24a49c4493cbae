"""``ex4d generate``: what the clip never saw, made by EX-4D's diffusion model."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from tyro.conf import OmitArgPrefixes, Positional, arg

from ex4d.cli.interrupted import resumable
from ex4d.cli.options import Flag, optional
from ex4d.model.config import TINY, GenerateConfig

if TYPE_CHECKING:
    from ex4d.pipeline.generation_request import GenerationRequest
    from ex4d.pipeline.progress import ConsoleReporter


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Generate a video from a prior folder with EX-4D's diffusion model: needs a GPU and weights, `tiny` neither."""

    folder: Annotated[Positional[str | None], optional("FOLDER")] = None
    """what `ex4d recon` wrote, for one camera"""
    output_dir: Annotated[Path | None, optional("FOLDER", aliases=("-o",))] = None
    """folder to write; it must be new or empty (default: FOLDER/generated)"""
    color_video: Annotated[str | None, optional("FILE")] = None
    """instead of FOLDER, as the EX-4D release takes it: the new view, black where nothing was seen"""
    mask_video: Annotated[str | None, optional("FILE")] = None
    """with --color-video: white where the new view was seen"""
    output_video: Annotated[Path | None, optional("FILE.mp4")] = None
    """also put the video there; its config.json lies in FILE.ex4d/"""
    seed: int = 0
    """of noise and random erosion"""
    gpus: Annotated[int, arg(metavar="N")] = 1
    """GPUs that share the work: both branches of the guidance at a time, then tokens"""
    preview_every: Annotated[int, arg(metavar="STEPS")] = 0
    """write the current guess every so many steps; 0: never"""
    resume: Flag = False
    """go on after the last finished window of the same command"""
    overwrite: Flag = False
    """replace what an earlier run left in the folder"""
    from_: Annotated[Path | None, optional("CONFIG.json", name="from")] = None
    """repeat what made this config.json (or its folder); flags typed beside it win"""
    generate: OmitArgPrefixes[GenerateConfig] = field(default_factory=GenerateConfig)

    @classmethod
    def repeating(cls, config: Path) -> Self:
        """Options with the settings of an earlier run as defaults."""
        from ex4d.pipeline.generation_request import read_request

        request = read_request(config)
        return cls(
            folder=request.prior,
            color_video=request.color,
            mask_video=request.mask,
            seed=request.seed,
            generate=request.generate,
            from_=config,
        )

    def resolve(self) -> tuple["GenerationRequest", Path]:
        """The request and its output folder.

        Raises:
            ConfigError, OutputError: flags that do not go together, or a place for the video that cannot be.
        """
        from ex4d.errors import ConfigError
        from ex4d.pipeline.generation_request import GenerationRequest, check_video_place

        if not 1 <= self.gpus <= 64:
            raise ConfigError("--gpus from 1 to 64", str(self.gpus))
        if self.preview_every < 0:
            raise ConfigError("--preview-every of 0 or more steps", str(self.preview_every))
        request = GenerationRequest(
            prior=self.folder, color=self.color_video, mask=self.mask_video, seed=self.seed, generate=self.generate
        )
        if self.output_video is not None:
            check_video_place(request, self.output_video, replace=self.overwrite or self.resume)
        if self.output_dir is not None:
            return request, self.output_dir
        if self.output_video is not None:
            return request, self.output_video.with_suffix(".ex4d")
        if self.folder is None:
            raise ConfigError("-o FOLDER or --output-video FILE", "neither", "say where the result shall go")
        return request, Path(self.folder) / "generated"

    def execute(self) -> int:
        """Generate; with several GPUs, once more in every process."""
        from rich.console import Console

        from ex4d.cli.quiet import quiet_libraries
        from ex4d.pipeline.launch import is_worker, relaunch_with_torchrun, run_worker
        from ex4d.pipeline.progress import ConsoleReporter

        quiet_libraries()
        request, output = self.resolve()
        reporter = ConsoleReporter(Console(stderr=True))
        if self.gpus > 1 and not is_worker():
            device = "cpu" if request.generate.weights == TINY else "cuda"
            return relaunch_with_torchrun(sys.argv[1:], self.gpus, device=device)
        if self.gpus > 1:
            return run_worker(lambda: self._run(request, output, reporter))
        return self._run(request, output, reporter)

    def _run(self, request: "GenerationRequest", output: Path, reporter: "ConsoleReporter") -> int:
        import os

        from ex4d.pipeline.generate_folder import generate_folder
        from ex4d.pipeline.generation_request import changed_inputs, place_video

        if self.from_ is not None and (changed := changed_inputs(self.from_, request)):
            reporter.note(f"not a repetition: {', '.join(changed)} changed since {self.from_} was written")
        with resumable(output, kept="windows", overwrite=self.overwrite):
            result = generate_folder(
                request,
                output,
                resume=self.resume,
                overwrite=self.overwrite,
                gpus=self.gpus,
                preview_every=self.preview_every,
                reporter=reporter,
            )
        if self.gpus == 1 or os.environ["RANK"] == "0":
            if self.output_video is not None:
                result = place_video(result, self.output_video)
            sys.stdout.write(f"{result}\n")
        return 0
