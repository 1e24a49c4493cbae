"""Entry point of ``ex4d`` and ``python -m ex4d``: typed words → options → command → exit code."""

import functools
import operator
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, cast

import tyro

from ex4d.cli.demo import DemoOptions
from ex4d.cli.depth import DepthCommand
from ex4d.cli.doctor import DoctorOptions
from ex4d.cli.failures import guarded
from ex4d.cli.fill import FillOptions
from ex4d.cli.generate import GenerateOptions
from ex4d.cli.help_text import DESCRIPTION, epilog, is_help
from ex4d.cli.masks import MasksCommand
from ex4d.cli.options import ReconOptions
from ex4d.cli.prepare import PrepareCommand
from ex4d.cli.recon import ReconCommand
from ex4d.cli.run import RunCommand
from ex4d.cli.train import TrainOptions
from ex4d.cli.weights import WeightsCommand
from ex4d.errors import InputError

PROG = "ex4d"


class Command(Protocol):
    """Options that know how to carry themselves out."""

    def execute(self) -> int:
        """Do it; returns the exit code."""
        ...


COMMANDS: dict[str, type[Command]] = {
    "run": RunCommand,
    "recon": ReconCommand,
    "depth": DepthCommand,
    "masks": MasksCommand,
    "fill": FillOptions,
    "generate": GenerateOptions,
    "prepare": PrepareCommand,
    "train": TrainOptions,
    "weights": WeightsCommand,
    "demo": DemoOptions,
    "doctor": DoctorOptions,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``ex4d``; default `sys.argv`.

    Returns:
        0 done; 1 a fault of ours; 2 something the user can fix; 130 interrupted (143: told to end).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"]):
        from ex4d import __version__

        sys.stdout.write(f"{PROG} {__version__}\n")
        return 0
    try:
        return parse(words or ["--help"]).execute()
    except SystemExit as stop:  # how tyro ends after --help (0) and wrong usage (2)
        if not stop.code and is_help(words):
            sys.stdout.write(epilog(words[0] if words else ""))
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def parse(words: Sequence[str]) -> Command:
    """Options of the command that was typed.

    With ``--from`` the words are read twice: the second time with the settings found there as defaults.

    Raises:
        SystemExit: after --help, or on wrong usage.
        InputError: a name that is no valid Unicode: it could be stored neither in prior.json nor shown.
        ConfigError, InputError: ``--from`` names something that is no prior.json.
    """
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise InputError("names in valid UTF-8", ascii(word), "rename the file or folder")
    options = _parse(words, {})
    if isinstance(options, ReconOptions | GenerateOptions) and options.from_ is not None:
        repeated = type(options).repeating(options.from_)
        return _parse(words, {type(options): repeated})
    return options


def _parse(words: Sequence[str], defaults: dict[type, Any]) -> Command:
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, **({"default": defaults[kind]} if kind in defaults else {}))]
        for name, kind in COMMANDS.items()
    ]
    union = functools.reduce(operator.or_, kinds)  # pyright: ignore[reportArgumentType]
    return cast(
        Command,
        tyro.cli(
            cast(Any, union),
            prog=PROG,
            description=DESCRIPTION,
            args=list(words),
            config=(tyro.conf.FlagCreatePairsOff,),
        ),
    )
