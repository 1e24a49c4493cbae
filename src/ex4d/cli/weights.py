"""``ex4d weights``: list, pull, verify, convert and export model weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg, subcommand

from ex4d.cli.options import Flag, optional
from ex4d.cli.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Callable

    from ex4d.model.transformer import EX4DTransformer3DModel
    from ex4d.weights.registry import Entry
    from ex4d.weights.verify import Kind

_PLAIN_LINE_EVERY_S = 10.0
_Folder = Annotated[Path, arg(metavar="FOLDER", aliases=("-o",))]


@dataclass(frozen=True, kw_only=True)
class ListWeights:
    """What can be pulled, how large it is, and what is here."""

    def execute(self) -> int:
        """Print a line for every name of the registry."""
        import sys

        from ex4d.weights.folders import weights_root
        from ex4d.weights.registry import ENTRIES, is_pulled

        width = max(len(name) for name in ENTRIES)
        for entry in ENTRIES.values():
            state = "pulled" if is_pulled(entry) else "-"
            licence = entry.licence.partition(" ")[0]
            line = f"{entry.name:<{width}}{entry.size_gb:>6.1f} GB  {licence:<12}{state:<8}{entry.purpose}"
            sys.stdout.write(f"{line}\n")
        sys.stdout.write(f"sizes are approximate; in {weights_root()} (EX4D_WEIGHTS); `tiny` needs no download\n")
        return 0


@dataclass(frozen=True, kw_only=True)
class PullWeights:
    """Download weights from the Hugging Face hub; goes on where an earlier pull was cut off."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """of `ex4d weights list`"""
    output_dir: Annotated[Path | None, optional("FOLDER", aliases=("-o",))] = None
    """folder to write (default: where --weights NAME looks for it)"""
    revision: Annotated[str | None, optional("REVISION")] = None
    """branch, tag or commit (default: the newest)"""
    yes: Annotated[Flag, arg(aliases=("-y",))] = False
    """download without asking"""

    def execute(self) -> int:
        """Show size and licence, ask, download, check; EX-4D's checkpoint is converted then."""
        import sys

        from ex4d.weights.fetch import fetch
        from ex4d.weights.registry import find_entry

        entry = find_entry(self.name)
        folder = self.output_dir or entry.folder()
        is_here = fetch(
            entry,
            note=lambda line: sys.stderr.write(f"{line}\n"),
            progress=lambda total: _shown_bytes(self.name, total),
            agree=lambda: self.yes or _agreed(),
            folder=folder,
            revision=self.revision,
        )
        if not is_here:
            sys.stderr.write("nothing was downloaded\n")
            return 2
        if entry.kind == "adapter":
            _convert_pulled(entry, folder)
        sys.stdout.write(f"{folder / entry.ready}\n")
        return 0


@dataclass(frozen=True, kw_only=True)
class VerifyWeights:
    """Check weights that are here: SHA-256 of every pulled or converted file, shards, tensors, kind of model."""

    weights: Annotated[Positional[str], arg(metavar="NAME|FOLDER")]
    """of `ex4d weights list`, a folder, or a file"""

    def execute(self) -> int:
        """Print what was checked.

        Raises:
            WeightsError: what is wrong, all of it.
        """
        import sys

        from rich.console import Console

        from ex4d.errors import WeightsError
        from ex4d.pipeline.progress import ConsoleReporter
        from ex4d.weights.registry import ENTRIES, resolve
        from ex4d.weights.verify import verify_folder

        reporter = ConsoleReporter(Console(stderr=True))
        ready = resolve(self.weights)
        entry = ENTRIES.get(self.weights)
        folders = [ready] if entry is None else list(dict.fromkeys((entry.folder(), ready)))
        problems: list[str] = []
        for folder in folders:
            report = verify_folder(folder, on_file=lambda name: reporter.note(f"hashing {name}"))
            hashed = f"{report.num_hashed} SHA-256 compared" if report.num_hashed else "no manifest to compare with"
            told = f"{report.kind}, {report.num_files} files, {report.num_tensors} tensors, {hashed}"
            found = [*report.problems, *(() if report.problems else _misfits(folder, report.kind))]
            sys.stdout.write(f"{folder}: {told}, {len(found) or 'no'} problems\n")
            problems += found
        if problems:
            raise WeightsError(
                f"sound weights in {folders[0]}",
                f"{len(problems)} problems: " + "; ".join(problems),
                f"ex4d weights pull {self.weights}" if entry else "download or convert them again",
            )
        return 0


@dataclass(frozen=True, kw_only=True)
class ConvertWeights:
    """Convert local files: the original Wan2.1 release and EX-4D's ex4d.ckpt to the folders that --weights and
    --adapter take, or a folder's transformer to GGUF."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="PATH")]
    """files or folders, in any order: shards of the transformer, T5, CLIP and VAE .pth, ex4d.ckpt; what is what is
    seen from the tensors (with --gguf: the folder of the model or of its transformer)"""
    output: _Folder
    """folder to write, new or empty (with --gguf: the file)"""
    tokenizer: Annotated[Path | None, optional("FOLDER")] = None
    """of umT5; needed unless it is in one of the folders (google/umt5-xxl)"""
    gguf: Annotated[Literal["Q4_0", "Q5_0", "Q8_0"] | None, optional("Q4_0|Q5_0|Q8_0")] = None
    """quantize the transformer to this type instead"""
    overwrite: Flag = False
    """replace what is there"""

    def execute(self) -> int:
        """Convert; nothing appears under the final name before it is whole."""
        import sys

        if self.gguf is None:
            _convert(self.paths, self.output, tokenizer=self.tokenizer, overwrite=self.overwrite)
        else:
            self._write_gguf(self.gguf)
        sys.stdout.write(f"{self.output}\n")
        return 0

    def _write_gguf(self, kind: Literal["Q4_0", "Q5_0", "Q8_0"]) -> None:
        from ex4d.errors import InputError, OutputError

        if len(self.paths) != 1:
            raise InputError("one folder to make a GGUF file from", f"{len(self.paths)} paths", "name one")
        if self.output.suffix != ".gguf":
            raise OutputError("an --output file that ends in .gguf", str(self.output), "e.g. -o wan-q4_0.gguf")
        if self.output.exists() and not self.overwrite:
            raise OutputError(f"a new file {self.output}", "one is there", "choose another name, or --overwrite")
        from ex4d.model.gguf_files import write_gguf

        folder = self.paths[0] / "transformer"
        with _shown(kind, per=1, unit="tensors") as show:
            write_gguf(folder if folder.is_dir() else self.paths[0], self.output, kind=kind, on_tensor=show)


@dataclass(frozen=True, kw_only=True)
class ExportWeights:
    """Weights of a run of `ex4d train`: the adapter folder that --adapter takes, and the release's flat file."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder that `ex4d train` wrote"""
    output: _Folder
    """folder to write, new or empty"""
    step: Annotated[int | None, optional("N")] = None
    """of the checkpoint (default: the newest)"""
    official: Annotated[
        UseAppendAction[tuple[Literal["safetensors", "ckpt"], ...]],
        arg(metavar="safetensors|ckpt", help_behavior_hint=""),
    ] = ()
    """also write official/ex4d.safetensors or ex4d.ckpt, named as in the release; repeat the flag for both"""
    last: Flag = False
    """the weights of the step itself instead of their running average"""
    overwrite: Flag = False
    """replace the weights that are there"""

    def execute(self) -> int:
        """Export; nothing appears under the final name before it is whole."""
        import sys

        from ex4d.training.packages import require_training

        require_training("ex4d weights export", dataset=False)
        from ex4d.training.folder import check_place, read_run

        read_run(self.run)  # before torch is imported
        check_place(self.output)
        from ex4d.training.export import OFFICIAL, export_run

        made = export_run(
            self.run,
            self.output,
            step=self.step,
            averaged=not self.last,
            official=self.official,
            overwrite=self.overwrite,
        )
        which = "running averages" if made.averaged else "weights of the step itself"
        sys.stdout.write(f"{self.output} (step {made.step}, {which})\n")
        for kind in self.official:
            sys.stdout.write(f"{self.output / OFFICIAL / f'ex4d.{kind}'} (as the release)\n")
        return 0


@dataclass(frozen=True, kw_only=True)
class WeightsCommand:
    """Model weights: list, pull, verify, convert, export."""

    action: OmitArgPrefixes[
        Annotated[ListWeights, subcommand("list", prefix_name=False)]
        | Annotated[PullWeights, subcommand("pull", prefix_name=False)]
        | Annotated[VerifyWeights, subcommand("verify", prefix_name=False)]
        | Annotated[ConvertWeights, subcommand("convert", prefix_name=False)]
        | Annotated[ExportWeights, subcommand("export", prefix_name=False)]
    ]

    def execute(self) -> int:
        """Do what was chosen."""
        quiet_libraries()
        return self.action.execute()


def _misfits(folder: Path, kind: "Kind") -> "Iterator[str]":
    """What the model's own classes say of the tensors: names and shapes, from headers alone."""
    from ex4d.errors import WeightsError
    from ex4d.model.adapter import read_adapter
    from ex4d.model.components import check_folder, make_component, shipped_config

    try:
        if kind == "base":
            check_folder(folder)
        if kind == "adapter" or (folder / "geometry_encoder").is_dir():
            transformer = make_component("transformer", shipped_config("transformer"))
            read_adapter(folder, cast("EX4DTransformer3DModel", transformer))
    except WeightsError as error:
        yield str(error)


def _agreed() -> bool:
    """Ask on the terminal.

    Raises:
        InputError: nobody is there to answer.
    """
    import sys

    from ex4d.errors import InputError

    if not sys.stdin.isatty():
        raise InputError("a yes to this download", "no terminal to ask on", "add --yes")
    sys.stderr.write("download? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def _shown(name: str, *, per: float, unit: str) -> "Iterator[Callable[[int, int], None]]":
    """Yield what shows so many of so many: a bar on a terminal, elsewhere a line every 10 s."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        last = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal last
            text = f"{done / per:.4g} of {total / per:.4g} {unit}"
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and time.monotonic() - last >= _PLAIN_LINE_EVERY_S:
                last = time.monotonic()
                console.print(f"  {name}: {text}", highlight=False, soft_wrap=True)

        yield show


@contextmanager
def _shown_bytes(name: str, total: int) -> "Iterator[Callable[[int], None]]":
    """The same for a download of `total` bytes."""
    with _shown(name, per=1e9, unit="GB") as show:
        yield lambda done: show(done, total)


def _convert_pulled(entry: "Entry", folder: Path) -> None:
    """Make the adapter folder beside the pulled checkpoint, unless it was made from this very file."""
    from ex4d.weights.files import describe_weights
    from ex4d.weights.manifest import read_manifest

    output = folder / entry.ready
    made = read_manifest(output)
    checkpoint = folder / "ex4d.ckpt"
    if made is None or dict(made.sources) != describe_weights(checkpoint):
        _convert((checkpoint,), output, tokenizer=None, overwrite=True)


def _convert(paths: tuple[Path, ...], output: Path, *, tokenizer: Path | None, overwrite: bool) -> None:
    from ex4d.model.convert import convert_files
    from ex4d.weights.files import describe_weights
    from ex4d.weights.folders import staged_folder
    from ex4d.weights.manifest import manifest_of, write_manifest

    with staged_folder(output, overwrite=overwrite) as staged:
        convert_files(paths, staged, tokenizer=tokenizer)
        sources = {
            name if path.is_file() else f"{path.resolve().name}/{name}": sha256
            for path in paths
            for name, sha256 in describe_weights(path).items()
        }
        write_manifest(staged, manifest_of(staged, sources=sources))
