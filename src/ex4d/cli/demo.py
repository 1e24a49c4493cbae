"""``ex4d demo``: the chain on a scene whose truth is known."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ex4d.cli.options import Flag


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Film a made-up scene, run the chain on it as on any clip, and compare with the truth."""

    small: Flag = False
    """a few small frames: seconds instead of a minute"""
    seed: int = 0
    """which scene: even numbers are rooms, odd ones outdoors"""
    output_dir: Annotated[Path, arg(metavar="FOLDER", aliases=("-o",))] = Path("ex4d-demo")
    """folder to write; it must be new or empty"""
    overwrite: Flag = False
    """replace what an earlier demo left in the folder"""

    def execute(self) -> int:
        """Make the clip, run the chain, print summary and truth."""
        import sys

        from rich.console import Console

        from ex4d.cli.summary import print_summary
        from ex4d.demo.config import DemoConfig
        from ex4d.demo.program import advice, run_demo
        from ex4d.demo.truth import format_rows
        from ex4d.pipeline.progress import ConsoleReporter

        config = DemoConfig(small=self.small, seed=self.seed)
        reporter = ConsoleReporter(Console(stderr=True))
        demo = run_demo(config, self.output_dir, overwrite=self.overwrite, reporter=reporter)
        print_summary(demo.result, demo.folder)
        sys.stdout.write(f"\n{format_rows(demo.truth)}\n\n{advice(demo)}\n")
        return 0
