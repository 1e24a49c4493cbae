"""``ex4d run``: the whole chain, a clip in and the finished video out."""

from dataclasses import dataclass
from typing import Literal

from ex4d.cli.options import ReconOptions


@dataclass(frozen=True, kw_only=True)
class RunCommand(ReconOptions):
    """The whole chain: a clip in, the same moment from another camera out (result.mp4)."""

    generator: Literal["fill", "none"] = "fill"
    """what completes areas that the clip never saw; fill: without a model, a preview; none: leave them black"""

    def execute(self) -> int:
        """Run the chain."""
        from ex4d.cli.chain import run_chain

        return run_chain(self)
