"""``ex4d run``: the whole chain, a clip in and the finished video out."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ex4d.cli.options import ReconOptions

if TYPE_CHECKING:
    from ex4d.pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class RunCommand(ReconOptions):
    """The whole chain: a clip in, the same moment from another camera out (result.mp4)."""

    generator: Literal["fill", "none"] = "fill"
    """what completes areas that the clip never saw; fill: without a model, a preview; none: leave them black"""

    def resolve(self) -> "RunConfig":
        """The settings of this run (see `ReconOptions.resolve`)."""
        return replace(super().resolve(), generator=self.generator)

    @classmethod
    def repeated_extras(cls, config: "RunConfig") -> dict[str, Any]:
        """The generator of the earlier run."""
        return {"generator": config.generator}

    def execute(self) -> int:
        """Run the chain."""
        from ex4d.cli.chain import run_chain

        return run_chain(self)
