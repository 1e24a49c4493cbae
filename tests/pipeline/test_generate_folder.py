"""`generate_folder`: what lies in the folder, repeating, resuming, refusing."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ex4d.errors import ConfigError, Ex4dError, InputError, OutputError, WeightsError
from ex4d.io.video import probe_video
from ex4d.pipeline.generate_folder import generate_folder
from ex4d.pipeline.generation_request import GenerationRequest, check_video_place, place_video, read_request
from ex4d.pipeline.ingest import hash_path
from ex4d.pipeline.workspace import WORK_FOLDER
from generation_tools import NUM, Heard, contents, make_prior, picture_frames, tiny_config, write_video

torch.set_num_threads(1)  # tensors this small are slower with several
FPS = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With sound; not to be changed."""
    return make_prior(tmp_path_factory.mktemp("media"), fps=FPS, sound=True)


@pytest.fixture(scope="module")
def request_(prior: Path) -> GenerationRequest:
    return GenerationRequest(prior=str(prior), seed=3, generate=tiny_config())


@pytest.fixture(scope="module")
def whole(request_: GenerationRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `request_` makes."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert generate_folder(request_, folder, reporter=Heard()) == folder / "result.mp4"
    return folder


def test_everything_is_recorded(whole: Path, request_: GenerationRequest, prior: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {"result.mp4", "config.json", "sheet.png", "timings.json"}
    stored = json.loads((whole / "config.json").read_text("utf-8"))
    assert stored["inputs"] == {name: hash_path(prior / name) for name in ("prior.json", "color.mkv", "mask.mkv")}
    assert stored["request"]["prior"] == str(prior.resolve())
    result = stored["result"]
    assert (result["generator"], result["seed"], result["height"], result["width"]) == ("wan", 3, 32, 32)
    assert result["settings"]["prompt"] == request_.generate.prompt
    assert (result["plan"], result["device"], result["processes"]) == ("cpu", "CPU", 1)
    assert result["versions"]["torch"] == torch.__version__
    assert result["weights_sha256"] == {}
    assert [window["window"]["start"] for window in result["windows"]] == [0, 4]
    assert len({window["seed"] for window in result["windows"]}) == 2
    assert any("random weights" in notice for notice in result["notices"])
    assert set(json.loads((whole / "timings.json").read_text())["seconds"]) >= {"generate", "load model", "encode"}


def test_repeated_from_its_config(whole: Path, request_: GenerationRequest, tmp_path: Path) -> None:
    """From the file or its folder; all bytes but the timings."""
    for source in (whole, whole / "config.json"):
        again = read_request(source)
        assert replace(again, prior=request_.prior) == request_
    generate_folder(again, tmp_path / "again", reporter=Heard())
    assert contents(tmp_path / "again") == contents(whole)
    generate_folder(replace(again, seed=4), tmp_path / "other", reporter=Heard())
    assert (tmp_path / "other" / "result.mp4").read_bytes() != (whole / "result.mp4").read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "config.json"),
        ("[]", "a list"),
        ('{"config": {}}', "without a request"),
        ('{"request": {"prior": "p", "speed": 3}}', "speed"),
        ('{"request": {"prior": "p", "seed": "3"}}', r"request\.seed"),
        ('{"request": {"prior": "p", "generate": {"steps": -1}}}', "--steps"),
        ('{"request": {"prior": "p", "generate": {"weights": ["a"]}}}', r"request\.generate\.weights"),
        ('{"request": {"color": "c"}}', "--mask-video"),
        ('{"request": {"prior": "p", "color": "c", "mask": "m"}}', "got both"),
    ],
)
def test_configs_of_strangers(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises((InputError, ConfigError), match=words):
        read_request(tmp_path)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Ex4dError("finite latents", "NaN", "")])
def test_stopped_in_the_second_window_then_resumed(
    stop: BaseException, whole: Path, request_: GenerationRequest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(type(stop)):
        generate_folder(request_, out, reporter=Heard(stop=stop))
    assert [path.name for path in out.iterdir()] == [WORK_FOLDER], "nothing under a final name yet"
    kept = out / WORK_FOLDER / "windows" / "window_0000.mkv"
    before = kept.stat().st_mtime_ns
    with pytest.raises(OutputError, match="--resume"):
        generate_folder(request_, out, reporter=Heard())
    with pytest.raises(OutputError, match=r"another request\.seed"):
        generate_folder(replace(request_, seed=4), out, resume=True, reporter=Heard())
    assert kept.stat().st_mtime_ns == before
    heard = Heard()
    generate_folder(request_, out, resume=True, reporter=heard)
    assert ("generate", 1, "steps") in heard.stages, "one window of one step was left"
    assert contents(out) == contents(whole)


def test_resuming_what_is_complete_does_nothing(whole: Path, request_: GenerationRequest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    heard = Heard()
    generate_folder(request_, out, resume=True, reporter=heard)
    assert heard.notes == [f"{out} is complete already: nothing to do"]
    assert heard.stages == []
    with pytest.raises(OutputError, match="--overwrite"):
        generate_folder(replace(request_, seed=4), out, resume=True, reporter=Heard())
    assert contents(out) == contents(whole)


def test_a_failure_before_the_first_window_leaves_nothing(request_: GenerationRequest, tmp_path: Path) -> None:
    stop = Heard(stop=Ex4dError("finite latents", "NaN", ""), stop_in=("generate", 1))
    with pytest.raises(Ex4dError):
        generate_folder(request_, tmp_path / "new" / "out", reporter=stop)
    assert list(tmp_path.iterdir()) == []


def test_sound_and_rate_are_kept(whole: Path, request_: GenerationRequest, prior: Path, tmp_path: Path) -> None:
    info = probe_video(whole / "result.mp4")
    assert (info.has_audio, info.fps) == (True, FPS)
    moved = tmp_path / "prior"
    shutil.copytree(prior, moved)
    stored = json.loads((moved / "prior.json").read_text("utf-8"))
    for name in ("gone.mp4", "changed.mp4"):
        stored["config"]["input"] = str(tmp_path / name)
        (moved / "prior.json").write_text(json.dumps(stored), "utf-8")
        (tmp_path / "changed.mp4").write_bytes(b"another clip")
        heard = Heard()
        out = tmp_path / f"out of {name}"
        generate_folder(replace(request_, prior=str(moved)), out, reporter=heard)
        assert not probe_video(out / "result.mp4").has_audio
        assert any("no sound" in note and name in note for note in heard.notes)


def test_previews_survive_an_interruption(request_: GenerationRequest, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        generate_folder(request_, out, preview_every=1, reporter=Heard(stop=KeyboardInterrupt()))
    generate_folder(request_, out, preview_every=1, resume=True, reporter=Heard())
    pictures = sorted((out / "previews").iterdir())
    assert [path.name for path in pictures] == ["window_00_step_001.png", "window_01_step_001.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (4 * 32, 32)
    assert {k: v for k, v in contents(out).items() if "previews" not in k} == contents(whole)


def test_two_videos_instead_of_a_prior(tmp_path: Path) -> None:
    """As the release's command takes them."""
    seen = np.full_like(picture_frames(), 255)
    seen[:, :, 32:] = 0
    color = write_video(tmp_path / "color.mp4", picture_frames() * (seen > 0), fps=FPS, sound=True)
    mask = write_video(tmp_path / "mask.mp4", seen)
    request = GenerationRequest(color=str(color), mask=str(mask), generate=tiny_config())
    out = tmp_path / "out"
    generate_folder(request, out, reporter=Heard())
    assert {path.name for path in out.iterdir()} == {"result.mp4", "config.json", "timings.json"}
    info = probe_video(out / "result.mp4")
    assert (info.num_frames, info.fps, info.has_audio) == (NUM, FPS, True)
    assert json.loads((out / "config.json").read_text())["inputs"] == {
        "color": hash_path(color),
        "mask": hash_path(mask),
    }
    generate_folder(read_request(out), tmp_path / "again", reporter=Heard())
    assert contents(tmp_path / "again") == contents(out)


def test_inputs_are_never_written_over(prior: Path, request_: GenerationRequest, tmp_path: Path) -> None:
    before = contents(prior)
    for output in (prior, prior.parent):
        with pytest.raises(OutputError, match="does not hold"):
            generate_folder(request_, output, overwrite=True, reporter=Heard())
    for video, words in (
        (prior / "preview.mp4", "no input"),
        (tmp_path / "a.avi", r"FILE\.mp4"),
        (tmp_path / "none" / "a.mp4", "is none"),
    ):
        with pytest.raises((OutputError, ConfigError), match=words):
            check_video_place(request_, video, replace=True)
    clip = prior.parent / "clip.mp4"
    pair = GenerationRequest(color=str(clip), mask=str(clip))
    with pytest.raises(OutputError, match="no input"):
        check_video_place(pair, prior / ".." / "clip.mp4", replace=True)
    assert contents(prior) == before


def test_a_video_at_another_place(request_: GenerationRequest, whole: Path, tmp_path: Path) -> None:
    final = tmp_path / "video.mp4"
    check_video_place(request_, final, replace=False)
    assert place_video(whole / "result.mp4", final) == final
    assert final.read_bytes() == (whole / "result.mp4").read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        check_video_place(request_, final, replace=False)
    check_video_place(request_, final, replace=True)
    final.unlink()
    final.mkdir()
    with pytest.raises(OutputError, match="no file"):
        check_video_place(request_, final, replace=True)


def test_strangers_survive(request_: GenerationRequest, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="empty or new folder"):
        generate_folder(request_, tmp_path, reporter=Heard())
    generate_folder(request_, tmp_path, overwrite=True, reporter=Heard())
    assert contents(tmp_path) == {**contents(whole), "thesis.txt": b"mine"}


@pytest.mark.parametrize("name", ["color.mkv", "mask.mkv", "source.mkv"])
def test_damage_is_found_before_anything_is_loaded(
    name: str, prior: Path, request_: GenerationRequest, tmp_path: Path
) -> None:
    broken = tmp_path / "prior"
    shutil.copytree(prior, broken)
    content = bytearray((broken / name).read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 20] = bytes(byte ^ 0xFF for byte in content[middle : middle + 20])
    (broken / name).write_bytes(content)
    heard = Heard()
    with pytest.raises(InputError, match=name):
        generate_folder(replace(request_, prior=str(broken)), tmp_path / "out", reporter=heard)
    assert not {"load model", "generate"} & {stage for stage, _, _ in heard.stages}
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_prior(prior: Path, request_: GenerationRequest, tmp_path: Path) -> None:
    for camera in ("30", "full"):
        (tmp_path / "cameras" / camera).mkdir(parents=True)
        (tmp_path / "cameras" / camera / "prior.json").write_text("{}")
    for folder, words in (
        (tmp_path / "cameras", r"30, full.*ex4d generate \S+cameras/30"),
        (tmp_path, r"a prior folder"),
        (tmp_path / "none", "which is no folder"),
        (prior / "color.mkv", "which is no folder"),
    ):
        with pytest.raises(InputError, match=words):
            generate_folder(replace(request_, prior=str(folder)), tmp_path / "out", reporter=Heard())
    assert not (tmp_path / "out").exists()


def test_settings_for_another_machine(request_: GenerationRequest, tmp_path: Path) -> None:
    """Known before anything is read or written."""
    for changes, words in (
        ({"attention": "flash"}, "--attention flash that works here"),
        ({"plan": "gguf"}, "no GGUF file"),
        ({"adapter": "x"}, "a folder or file of weights, or one of .*'x', which does not exist"),
    ):
        request = replace(request_, generate=tiny_config(**changes))
        with pytest.raises(ConfigError if "adapter" not in changes else WeightsError, match=words):
            generate_folder(request, tmp_path / "out", reporter=Heard())
    assert not (tmp_path / "out").exists()
