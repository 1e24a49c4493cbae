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
        import sys

        from ex4d.cli.quiet import quiet_libraries
        from ex4d.pipeline.launch import is_worker, relaunch_with_torchrun, run_worker
        from ex4d.training.packages import require_training

        quiet_libraries()
        self.resolve()
        require_training("ex4d train")
        if self.gpus == 1 or is_worker():
            return run_worker(self._train)
        try:
            return relaunch_with_torchrun(sys.argv[1:], self.gpus, device="cpu" if self.weights == TINY else "cuda")
        except Terminated:
            if (step := _kept_step(self.output_dir)) is None:
                raise
            sys.stdout.write(_told_to_end(self.output_dir, step))
            return 0

    def _train(self) -> int:
        import os
        import sys

        from rich.console import Console

        from ex4d.pipeline.progress import ConsoleReporter, SilentReporter
        from ex4d.training.run import TrainRequest, train

        is_main = os.environ.get("RANK", "0") == "0"
        request = TrainRequest(config=self.resolve(), dataset=self.dataset, weights=self.weights, adapter=self.adapter)
        reporter = ConsoleReporter(Console(stderr=True)) if is_main else SilentReporter()
        result = train(request, self.output_dir, resume=self.resume, reporter=reporter)
        if is_main:
            sys.stdout.write(_summary(self.output_dir, result))
        return 0


def _summary(output: Path, result: "TrainResult") -> str:
    if not result.is_complete:
        return _told_to_end(output, result.step)
    return (
        f"{result.step} steps: {output}\n"
        f"  then: ex4d weights export {output} -o ADAPTER, and ex4d generate PRIOR --adapter ADAPTER\n"
    )


def _told_to_end(output: Path, step: int) -> str:
    return f"told to end: step {step} is kept in {output}; go on with the same command and --resume\n"


def _kept_step(output: Path) -> int | None:
    """The last step of a run if there is a checkpoint of it: the processes ended in order."""
    from ex4d.training.checkpoint import list_checkpoints, read_state
    from ex4d.training.log import read_log

    log, found = read_log(output), list_checkpoints(output)
    step = read_state(found[-1]).step if found else None
    return step if log and log[-1]["step"] == step else None
