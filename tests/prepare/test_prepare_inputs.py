"""What lists clips: folders, tars, manifests, OpenVid-1M and Koala-36M."""

import csv
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ex4d.errors import ConfigError, InputError
from ex4d.prepare.config import GateConfig, PrepareConfig, SampleConfig
from ex4d.prepare.items import Item, open_item
from ex4d.prepare.plan import make_plan, missing_items, open_source

CONFIG = PrepareConfig(sample=SampleConfig(depth="layout"))
OPENVID = ("video", "caption", "aesthetic score", "motion score", "temporal consistency score", "camera motion",
           "frame", "fps", "seconds")  # fmt: skip
KOALA = ("videoID", "url", "timestamp", "caption", "clarity_score", "aesthetic_score", "motion_score",
         "video_training_suitability_score")  # fmt: skip


def items(path: Path, root: Path | None = None) -> dict[str, Item]:
    return {item.name: item for item in make_plan(open_source(path, root), CONFIG).items}


def content(root: Path, item: Item, scratch: Path) -> bytes:
    with open_item(root, item, scratch) as path:
        return path.read_bytes()


def write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.mp4", "sub/a.MOV", ".hidden/c.mp4", ".d.mp4", "notes.md"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "b.txt").write_text("\ufeffein Bär\n", "utf-8")
    found = items(tmp_path)
    assert list(found) == ["b.mp4", "sub/a.MOV"]
    assert found["b.mp4"].caption == "ein Bär"
    assert found["sub/a.MOV"].size == len("sub/a.MOV")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"UTF-8 in .*b\.txt"):
        items(tmp_path)


def test_keys_are_unique_and_plain() -> None:
    names = ["a b.mp4", "a-b.mp4", "dir/a.b.mp4", "日本.mp4", "x" * 300 + ".mp4"]
    keys = [Item(name=name, path=name, size=0).key(7) for name in names]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() and len(key) <= 80 and not set(key) & set("./ ") for key in keys)
    assert keys[0].startswith("a-b-")
    assert keys[0].endswith("_007")


def test_webdataset_tars(tmp_path: Path) -> None:
    openvid = {"caption": "from json", "aesthetic score": 5.5, "motion score": "bad"}
    members = {
        "000.mp4": b"first", "000.json": json.dumps(openvid).encode(),
        "001.txt": b"from txt", "001.webm": b"second",
        "002.json": b"{}",
    }  # fmt: skip
    write_tar(tmp_path / "in.tar", members)
    for source in (tmp_path / "in.tar", tmp_path):
        found = items(source)
        assert list(found) == ["in.tar/000.mp4", "in.tar/001.webm"]
        first, second = found.values()
        assert (first.caption, first.scores) == ("from json", {"aesthetic": 5.5})
        assert second.caption == "from txt"
        assert [content(tmp_path, item, tmp_path) for item in (first, second)] == [b"first", b"second"]
    data = (tmp_path / "in.tar").read_bytes()
    (tmp_path / "in.tar").write_bytes(data[:600])
    with pytest.raises(InputError, match="uncompressed tar"):
        items(tmp_path)


def test_manifests(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    manifest = tmp_path / "clips.jsonl"
    rows = [
        {"path": "a.mp4", "caption": "x", "scores": {"aesthetic": 4}},
        {"path": "a.mp4", "start_s": 1, "end_s": 2.5},
        {"path": str(tmp_path / "a.mp4"), "id": "absolute"},
        {"path": "lost.mp4"},
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n\n", "utf-8")
    found = items(manifest)
    assert list(found) == ["a.mp4", "a.mp4@1-2.5", "absolute", "lost.mp4"]
    assert found["a.mp4"].scores == {"aesthetic": 4.0}
    assert (found["a.mp4@1-2.5"].start_s, found["a.mp4@1-2.5"].end_s) == (1.0, 2.5)
    assert content(tmp_path, found["absolute"], tmp_path) == b"a"
    assert found["lost.mp4"].size == -1  # it is said of this clip alone, when its turn comes
    for line, words in (
        ("{", "line 2 of clips.jsonl.*write e.g. "),
        ("[]", r"line 2.*got \[\]; to fix: write e.g. "),
        ('{"path": "a.mp4", "captoin": "x"}', "captoin"),
        ('{"caption": "x"}', "no path; to fix: write e.g. "),
        ('{"path": "a.mp4", "start_s": 3, "end_s": 2}', "start < end"),
        ('{"path": "a.mp4", "start_s": "soon"}', "soon"),
        ('{"path": "a.mp4"}', "two of 'a.mp4'"),
    ):
        manifest.write_text(f'{{"path": "a.mp4"}}\n{line}\n', "utf-8")
        with pytest.raises(InputError, match=words):
            items(manifest)
    manifest.write_bytes(b"\xff\xff\n")
    with pytest.raises(InputError, match="UTF-8"):
        items(manifest)


def test_openvid(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "one.mp4").write_bytes(b"one")
    with zipfile.ZipFile(clips / "OpenVid_part0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("part0/two.mp4", b"two" * 1000)
    rows = [
        ("one.mp4", "a caption, with a comma", "5.1", "2.5", "0.97", "pan_left", "120", "24", "5"),
        ("two.mp4", "", "4.0", "", "0.9", "static", "50", "25", "2"),
        ("gone.mp4", "x", "4", "1", "0.9", "static", "50", "25", "2"),
    ]
    table = write_csv(tmp_path / "OpenVid-1M.csv", OPENVID, rows)
    source = open_source(table, clips)
    found = {item.name: item for item in make_plan(source, CONFIG).items}
    assert list(found) == ["one.mp4", "two.mp4"]
    assert found["one.mp4"].caption == "a caption, with a comma"
    assert found["one.mp4"].scores == {"aesthetic": 5.1, "motion_given": 2.5, "temporal_consistency": 0.97}
    assert content(clips, found["two.mp4"], tmp_path) == b"two" * 1000
    assert source.notices() == (
        f"1 rows of OpenVid-1M.csv name clips that are not below {clips}, e.g. gone.mp4: left out",
    )
    (clips / "OpenVid_part0.zip").write_bytes(b"PK half")
    with pytest.raises(InputError, match="whole zip"):
        items(table, clips)
    with pytest.raises(InputError, match="--root"):
        items(table, tmp_path / "nowhere")


def test_koala(tmp_path: Path) -> None:
    for name in ("cut_id_0_1to2.mp4", "abcdefghijk.mkv"):
        (tmp_path / name).write_bytes(b"x")
    scores = ("0.9", "4.5", "3", "7.25")
    times = "['0:00:05.500', '0:01:10.250']"
    rows = [
        ("cut_id_0_1to2", "https://www.youtube.com/watch?v=zzzzzzzzzzz", times, "is cut already", *scores),
        ("part_7", "https://www.youtube.com/watch?v=abcdefghijk", times, "of a whole video", *scores),
        ("gone", "https://www.youtube.com/watch?v=yyyyyyyyyyy", times, "", *scores),
    ]
    table = write_csv(tmp_path / "Koala_36M_1.csv", KOALA, rows)
    found = items(table)
    assert list(found) == ["cut_id_0_1to2", "part_7"]
    assert (found["cut_id_0_1to2"].start_s, found["cut_id_0_1to2"].end_s) == (0.0, None)
    assert (found["part_7"].start_s, found["part_7"].end_s) == (5.5, 70.25)
    assert found["part_7"].scores == {"clarity": 0.9, "aesthetic": 4.5, "motion_given": 3.0, "suitability": 7.25}
    write_csv(table, KOALA, [("part_7", rows[1][1], "soon", "", *scores)])
    with pytest.raises(InputError, match="line 2"):
        items(table)


def test_tables_of_others_and_empty_ones(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", ("file", "text"), [("a", "b")])
    with pytest.raises(InputError, match="columns of OpenVid-1M"):
        items(table)
    (tmp_path / "empty.jsonl").write_text("\n", "utf-8")
    for empty in (write_csv(table, OPENVID, []), tmp_path / "empty.jsonl"):
        with pytest.raises(InputError, match=r"a table with clips .*; got no rows"):
            items(empty)


def test_tables_of_clips_that_are_not_there(tmp_path: Path) -> None:
    table = tmp_path / "clips.jsonl"
    table.write_text('{"path": "a.mp4"}\n{"path": "folder"}\n', "utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"none of 2, e\.g\. no a\.mp4; to fix: .*--root"):
        items(table)
    (tmp_path / "a.mp4").write_bytes(b"a")
    plan = make_plan(open_source(table), CONFIG)
    assert [item.name for item in missing_items(plan.items)] == ["folder"]


def test_tables_that_lead_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for path in (tmp_path / "out.mp4", root / "a.mp4"):
        path.write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "out.mp4")
    table = root / "clips.jsonl"
    for path in ("../out.mp4", "x/../../out.mp4", str(tmp_path / "out.mp4")):
        table.write_text(json.dumps({"path": "a.mp4"}) + "\n" + json.dumps({"path": path}), "utf-8")
        with pytest.raises(InputError, match=r"a path below .* in line 2 of clips\.jsonl"):
            items(table)
    table.write_text(json.dumps({"path": "link.mp4"}) + "\n" + json.dumps({"path": str(root / "a.mp4")}), "utf-8")
    assert [item.size for item in items(table).values()] == [1, 1]
    (root / "out.mp4").write_bytes(b"x")
    openvid = write_csv(root / "OpenVid-1M.csv", OPENVID, [("../out.mp4", *[""] * 8)])
    with pytest.raises(InputError, match="line 2 of OpenVid"):
        items(openvid)


def test_a_score_that_no_clip_has_is_said_with_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    table = tmp_path / "clips.jsonl"
    table.write_text('{"path": "a.mp4", "scores": {"sharp": 1, "aesthetic": 2}}\n{"path": "b.mp4"}\n', "utf-8")
    make_plan(open_source(table), replace(CONFIG, gates=GateConfig(min_scores=("sharp=1",))))
    wrong = replace(CONFIG, gates=GateConfig(min_scores=("sharp=1", "beauty=5")))
    with pytest.raises(ConfigError, match="'beauty', which none has; to fix: choose of aesthetic, sharp"):
        make_plan(open_source(table), wrong)
    with pytest.raises(ConfigError, match="gives no scores"):
        make_plan(open_source(tmp_path), wrong)


def test_depth_is_chosen_of_the_names_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "depth.npz").write_bytes(b"")
    for wrong in ("nonsense", str(tmp_path / "depth.npz")):
        with pytest.raises(ConfigError, match=r"--depth auto, files, or one of .*layout.*; got") as caught:
            make_plan(open_source(tmp_path), PrepareConfig(sample=SampleConfig(depth=wrong)))
        assert "file or folder" not in str(caught.value)


def test_archives_that_lie_about_their_clips(tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", {"a.mp4": b"abc"})
    (item,) = items(tmp_path).values()
    short = Item(name=item.name, path=item.path, size=10**6, offset=item.offset)
    with pytest.raises(InputError, match="fetch the archive again"):
        content(tmp_path, short, tmp_path)
    with pytest.raises(InputError):
        content(tmp_path, Item(name="x.mp4", path="in.tar", size=3, member="x.mp4"), tmp_path)
    assert not list(tmp_path.glob("clip*"))
