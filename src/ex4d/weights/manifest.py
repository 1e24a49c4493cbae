"""``weights.json``: what a folder of weights must hold, and where it came from. Says nothing of time or machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ex4d.errors import WeightsError
from ex4d.weights.files import describe_weights
from ex4d.weights.folders import MANIFEST, output_errors, write_json
from ex4d.weights.headers import read_json

_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Bytes and hex SHA-256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Content of a ``weights.json``.

    Attributes:
        files: path relative to the folder, with ``/`` → what it must be.
        name: name in the registry; None for weights that were converted.
        repo: repository on the hub; None as above.
        revision: commit there; None as above.
        licence: as the repository declares it; None where unknown.
        sources: of converted weights: file name → SHA-256 of what they were made from.
    """

    files: Mapping[str, FileRecord]
    name: str | None = None
    repo: str | None = None
    revision: str | None = None
    licence: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``weights.json``, the last step of every pull and conversion.

    Raises:
        OutputError: it cannot be written.
    """
    content = {
        "schema_version": _SCHEMA_VERSION,
        "name": manifest.name,
        "repo": manifest.repo,
        "revision": manifest.revision,
        "licence": manifest.licence,
        "sources": dict(sorted(manifest.sources.items())),
        "files": {
            path: {"size": record.size, "sha256": record.sha256} for path, record in sorted(manifest.files.items())
        },
    }
    with output_errors(folder / MANIFEST):
        write_json(folder / MANIFEST, content)


def read_manifest(folder: Path) -> Manifest | None:
    """What stands in a folder's ``weights.json``; None if it has none.

    Raises:
        WeightsError: damaged, or written by a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        version = content.get("schema_version")
        if isinstance(version, int) and version > _SCHEMA_VERSION:
            raise WeightsError(f"schema_version {_SCHEMA_VERSION} in {path}", str(version), "use a newer ex4d")
        files = {
            str(name): FileRecord(size=int(record["size"]), sha256=str(record["sha256"]))
            for name, record in content["files"].items()
        }
        outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
        if outside:
            raise ValueError(f"names outside of the folder: {outside[0]}")
        return Manifest(
            files=files,
            name=content["name"],
            repo=content["repo"],
            revision=content["revision"],
            licence=content["licence"],
            sources=dict(content["sources"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fix = "delete this file, then pull or convert again"
        raise WeightsError(f"a manifest that ex4d wrote at {path}", repr(error), fix) from error


def manifest_of(folder: Path, *, sources: Mapping[str, str]) -> Manifest:
    """The manifest of a folder that was just converted: hashes every file.

    Raises:
        WeightsError: nothing in it.
    """
    files = {
        name: FileRecord(size=(folder / name).stat().st_size, sha256=sha256)
        for name, sha256 in describe_weights(folder).items()
    }
    return Manifest(files=files, sources=sources)
