"""Where weights lie, and folders that are either whole or absent. Standard library only."""

import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from ex4d.errors import OutputError

MANIFEST = "weights.json"
"""Written last into a folder of weights: what every file must be."""
_OF_WEIGHTS = (MANIFEST, "model_index.json", "geometry_encoder")


def cache_root(environ: Mapping[str, str] | None = None) -> Path:
    """What can be made or fetched again: ``EX4D_CACHE``, else ``ex4d`` in the platform's user cache folder."""
    env = os.environ if environ is None else environ
    if env.get("EX4D_CACHE"):
        return Path(env["EX4D_CACHE"])
    home = Path.home()
    if sys.platform == "win32":
        root = Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = home / "Library" / "Caches"
    else:
        root = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    return root / "ex4d"


def weights_root(environ: Mapping[str, str] | None = None) -> Path:
    """Where `ex4d weights pull` puts its folders: ``EX4D_WEIGHTS``, else ``weights`` in `cache_root`."""
    env = os.environ if environ is None else environ
    return Path(env["EX4D_WEIGHTS"]) if env.get("EX4D_WEIGHTS") else cache_root(env) / "weights"


def write_json(path: Path, content: Any) -> None:
    """Write a small JSON file whole or not at all: temporary name, fsync, rename.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(final: Path, *, overwrite: bool = False) -> Generator[Path, None, None]:
    """Yield an empty folder beside `final` that becomes `final` when the block ends without an error.

    Args:
        final: where the folder shall appear; its parents are made.
        overwrite: replace the weights that are there, at the very end.

    Raises:
        OutputError: `final` is in the way, or cannot be written. On every error `final` is left as it was.
    """
    final = final.resolve()  # the folder itself, not a link to it, is what can be renamed
    _check_free(final, overwrite)
    staged = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    replaced = staged.with_suffix(".old")
    try:
        with output_errors(final):
            staged.mkdir(parents=True)
        yield staged
        with output_errors(final):
            if final.exists():
                final.rename(replaced)
            try:
                staged.rename(final)
            except OSError:
                if replaced.exists():
                    replaced.rename(final)
                raise
    finally:
        for left in (staged, replaced):
            shutil.rmtree(left, ignore_errors=True)


def _check_free(final: Path, overwrite: bool) -> None:
    if not final.exists():
        return
    if not final.is_dir():
        raise OutputError(f"a folder at {final}", "a file of that name", "choose another name")
    if not any(final.iterdir()):
        return
    if not any((final / name).exists() for name in _OF_WEIGHTS):
        raise OutputError(f"a new or empty folder {final}", "one that holds something else", "choose another one")
    if not overwrite:
        raise OutputError(f"a new or empty folder {final}", "weights are there", "choose another one, or --overwrite")


@contextlib.contextmanager
def output_errors(path: Path) -> Generator[None, None, None]:
    """Turn an OSError of the block into the `OutputError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"to be able to write {path}",
            error.strerror or str(error),
            "free some space there, or choose another folder that you may write to",
        ) from error
