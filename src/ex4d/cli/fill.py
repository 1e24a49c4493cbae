"""``ex4d fill``: complete a prior folder that `recon` wrote."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from ex4d.cli.options import Flag
from ex4d.fill.config import FillConfig


@dataclass(frozen=True, kw_only=True)
class FillOptions:
    """Complete a prior folder: adds result.mp4 and redraws sheet.png, without a model (a preview)."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """what `ex4d recon` wrote; with several cameras the folder that holds theirs, or one of them"""
    overwrite: Flag = False
    """replace a result that is there"""
    fill: OmitArgPrefixes[FillConfig] = field(default_factory=FillConfig)

    def execute(self) -> int:
        """Fill every prior folder at or below `folder`."""
        import sys

        from rich.console import Console

        from ex4d.io.prior import PRIOR
        from ex4d.pipeline.complete import fill_folder
        from ex4d.pipeline.progress import ConsoleReporter

        reporter = ConsoleReporter(Console(stderr=True))
        below = [file.parent for file in sorted(self.folder.glob(f"*/{PRIOR}"))]
        folders = [self.folder] if (self.folder / PRIOR).exists() or not below else below
        made = [
            fill_folder(folder, fill=self.fill, overwrite=self.overwrite, reporter=reporter, timings={})
            for folder in folders
        ]
        sys.stdout.write("".join(f"{path}\n" for path in made))
        return 0
