"""``ex4d run``: the whole chain, a clip in and the finished video out."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import OmitArgPrefixes

from ex4d.cli.options import ReconOptions
from ex4d.cli.quiet import quiet_libraries
from ex4d.model.config import GenerateConfig

if TYPE_CHECKING:
    from ex4d.pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class RunCommand(ReconOptions):
    """The whole chain: a clip in, the same moment from another camera out (result.mp4)."""

    generator: Literal["fill", "wan", "none"] = "fill"
    """what completes areas that the clip never saw; fill: without a model, a preview; wan: EX-4D's diffusion model
    (see `ex4d generate`); none: leave them black"""
    generate: OmitArgPrefixes[GenerateConfig] = field(default_factory=GenerateConfig)

    def resolve(self) -> "RunConfig":
        """The settings of this run (see `ReconOptions.resolve`).

        Raises:
            ConfigError: also if settings of a generator are typed that is not used.
        """
        from ex4d.errors import ConfigError

        base = super().resolve()
        if self.generator != "wan" and self.generate != base.generate:
            raise ConfigError("--generator wan with flags of the diffusion model", f"--generator {self.generator}")
        return replace(base, generator=self.generator, generate=self.generate)

    @classmethod
    def repeated_extras(cls, config: "RunConfig") -> dict[str, Any]:
        """The generator of the earlier run, and its settings."""
        return {"generator": config.generator, "generate": config.generate}

    def execute(self) -> int:
        """Run the chain."""
        from ex4d.cli.chain import run_chain

        quiet_libraries()
        return run_chain(self)
