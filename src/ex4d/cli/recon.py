"""``ex4d recon``: depth, watertight mesh and target views, written as a prior folder."""

from dataclasses import dataclass

from ex4d.cli.options import ReconOptions
from ex4d.cli.quiet import quiet_libraries


@dataclass(frozen=True, kw_only=True)
class ReconCommand(ReconOptions):
    """Geometry only: depth, watertight mesh and the new views with their masks, as a prior folder."""

    def execute(self) -> int:
        """Run the chain without completion."""
        from ex4d.cli.chain import run_chain

        quiet_libraries()
        return run_chain(self)
