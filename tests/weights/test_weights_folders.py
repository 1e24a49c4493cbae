"""Folders appear whole or not at all, and never in place of something else."""

from pathlib import Path

import pytest

from ex4d.errors import OutputError, WeightsError
from ex4d.weights.folders import MANIFEST, staged_folder, write_json
from ex4d.weights.manifest import FileRecord, Manifest, manifest_of, read_manifest, write_manifest


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "out"
    with staged_folder(final) as staged:
        (staged / "a").write_text("1")
        assert not final.exists()
    assert (final / "a").read_text() == "1"
    assert [path.name for path in final.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing_new_and_the_old(tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    (final / MANIFEST).write_text("old")
    with pytest.raises(FileExistsError), staged_folder(final, overwrite=True) as staged:
        staged.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (final / MANIFEST).read_text() == "old"


def test_a_failed_rename_brings_the_old_back(tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    (final / MANIFEST).write_text("old")
    with pytest.raises(OutputError, match="to be able to write"), staged_folder(final, overwrite=True) as staged:
        staged.rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (final / MANIFEST).read_text() == "old"


def test_only_weights_are_overwritten_and_only_when_told(tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    with staged_folder(final):
        pass
    (final / MANIFEST).write_text("old")
    with pytest.raises(OutputError, match="--overwrite"), staged_folder(final):
        pass
    with staged_folder(final, overwrite=True) as staged:
        (staged / "new").touch()
    assert [path.name for path in final.iterdir()] == ["new"]
    with pytest.raises(OutputError, match="holds something else"), staged_folder(final, overwrite=True):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a file of that name"), staged_folder(tmp_path / "file", overwrite=True):
        pass
    with pytest.raises(OutputError, match="to be able to write"), staged_folder(tmp_path / "file" / "out"):
        pass


def test_an_input_error_in_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged_folder(tmp_path / "out"):
        (tmp_path / "no such input").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_link_keeps_pointing_at_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / MANIFEST).touch()
    (tmp_path / "link").symlink_to("disk")
    with staged_folder(tmp_path / "link", overwrite=True) as staged:
        (staged / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["new"]


def test_manifest_there_and_back(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / "a.json").write_text("{}")
    manifest = manifest_of(tmp_path, sources={"ex4d.ckpt": "ab"})
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert manifest.files["a.json"].size == 2


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"schema_version": 2},
        {"schema_version": 1, "files": []},
        {"schema_version": 1, "name": None, "repo": None, "revision": None, "licence": None, "sources": {},
         "files": {"../x": {"size": 1, "sha256": "a"}}},
    ],
)  # fmt: skip
def test_damaged_manifests(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / MANIFEST, content)
    with pytest.raises(WeightsError, match=MANIFEST):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(WeightsError, match="JSON in"):
        read_manifest(tmp_path)


def test_manifest_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="to be able to write"):
        write_manifest(tmp_path / "none", Manifest(files={"a": FileRecord(size=1, sha256="a")}))
