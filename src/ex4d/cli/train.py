"""``ex4d train``: geometry encoder and LoRA, trained on a dataset of `ex4d prepare`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from ex4d.cli.failures import Terminated
from ex4d.cli.options import Flag, optional
from ex4d.model.config import TINY

if TYPE_CHECKING:
    from ex4d.training.config import TrainConfig
    from ex4d.training.run import TrainResult
    from ex4d.training.start import TrainRequest

_OptionalInt = int | None


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train EX-4D's adapter (geometry encoder and LoRA) on a dataset that `ex4d prepare` made."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")]
    """paper, tiny, or a TOML file"""
    dataset: Annotated[Path, arg(metavar="FOLDER")]
    """what `ex4d prepare` wrote"""
    output_dir: Annotated[Path, arg(metavar="FOLDER", aliases=("-o",))]
    """folder of the run; it must be new or empty"""
    weights: Annotated[str, arg(metavar="NAME|FOLDER")] = "480p"
    """Wan2.1-I2V-14B, of `ex4d weights list` or a diffusers folder; tiny: a random miniature on the CPU"""
    adapter: Annotated[Path | None, optional("FOLDER")] = None
    """start from this adapter (default: a new one that changes nothing yet)"""
    num_steps: Annotated[_OptionalInt, optional("N")] = None
    """train for so many steps (default: what the recipe says)"""
    seed: Annotated[_OptionalInt, optional("N")] = None
    """of every random choice (default: what the recipe says)"""
    latents: Annotated[str | None, optional("auto|none|KEY")] = None
    """the dataset's latent cache: auto takes the one that is there; none encodes while training (default: what the
    recipe says, else auto)"""
    gpus: Annotated[int, arg(metavar="N")] = 1
    """processes on this machine, one a GPU; over several machines start the command with torchrun"""
    resume: Flag = False
    """go on after the newest checkpoint of the same command"""

    def resolve(self) -> "TrainConfig":
        """The recipe with what was typed beside it.

        Raises:
            ConfigError: no such recipe, or a value out of range.
        """
        from ex4d.errors import ConfigError
        from ex4d.training.config import AUTO, load_recipe

        if not 1 <= self.gpus <= 64:
            raise ConfigError("--gpus from 1 to 64", str(self.gpus))
        config = load_recipe(self.recipe)
        typed = {"num_steps": self.num_steps, "seed": self.seed}
        config = replace(config, **{name: value for name, value in typed.items() if value is not None})
        latents = self.latents or config.data.latents or AUTO
        return replace(config, data=replace(config.data, latents="" if latents == "none" else latents))

    def execute(self) -> int:
        """Train; with several GPUs, once more in every process."""
        from ex4d.cli.quiet import quiet_libraries
        from ex4d.pipeline.launch import is_worker, run_worker
        from ex4d.training.packages import require_training

        quiet_libraries()
        request = self.request()
        require_training("ex4d train")
        if is_worker():
            return run_worker(self._train)
        from ex4d.training.start import check_start

        check_start(request, self.output_dir, resume=self.resume)
        try:
            return self._train() if self.gpus == 1 else self._launch()
        except KeyboardInterrupt as stop:
            if stop.args or (step := _newest_step(self.output_dir)) is None:
                raise
            raise type(stop)(_kept(self.output_dir, step)) from None

    def request(self) -> "TrainRequest":
        """What is to be trained on what (`ConfigError` as `resolve`)."""
        from ex4d.training.start import TrainRequest

        return TrainRequest(config=self.resolve(), dataset=self.dataset, weights=self.weights, adapter=self.adapter)

    def _launch(self) -> int:
        import sys

        from ex4d.pipeline.launch import relaunch_with_torchrun

        if self.weights == TINY:
            sys.stderr.write(f"· the miniature computes on the CPU, which the {self.gpus} processes share\n")
        try:
            return relaunch_with_torchrun(sys.argv[1:], self.gpus, device="cpu" if self.weights == TINY else "cuda")
        except Terminated:
            if not _ended_in_order(self.output_dir):
                raise
            sys.stdout.write(f"told to end: {_kept(self.output_dir, _newest_step(self.output_dir))}\n")
            return 0

    def _train(self) -> int:
        import os
        import sys

        from rich.console import Console

        from ex4d.pipeline.launch import FOLDER_VARIABLE
        from ex4d.pipeline.progress import ConsoleReporter, SilentReporter
        from ex4d.training.run import train

        is_main = os.environ.get("RANK", "0") == "0"
        reporter = ConsoleReporter(Console(stderr=True)) if is_main else SilentReporter()
        result = train(self.request(), self.output_dir, resume=self.resume, reporter=reporter)
        if result.is_interrupted:
            raise KeyboardInterrupt(_kept(self.output_dir, result.step))
        if is_main and (result.is_complete or FOLDER_VARIABLE not in os.environ):  # else the launching process says it
            sys.stdout.write(_summary(self.output_dir, result))
        return 0


def _summary(output: Path, result: "TrainResult") -> str:
    if not result.is_complete:
        return f"told to end: {_kept(output, result.step)}\n"
    return (
        f"{result.step} steps: {output}\n"
        f"  then: ex4d weights export {output} -o ADAPTER, and ex4d generate PRIOR --adapter ADAPTER\n"
    )


def _kept(output: Path, step: int | None) -> str:
    return f"step {step} is kept in {output}; go on with the same command and --resume"


def _newest_step(output: Path) -> int | None:
    from ex4d.training.folder import list_checkpoints, step_of

    found = list_checkpoints(output)
    return step_of(found[-1]) if found else None


def _ended_in_order(output: Path) -> bool:
    """Whether there is a checkpoint of the last step."""
    from ex4d.training.log import read_log

    log = read_log(output)
    return bool(log) and log[-1]["step"] == _newest_step(output)
