"""`ex4d generate`, and `ex4d run --generator wan`, with the random miniature: flags, files, words, exit codes."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from cli_tools import assert_published, ex4d, snapshot, write_clip, write_depth

from ex4d.cli.generate import GenerateOptions
from ex4d.cli.main import parse
from ex4d.cli.run import RunCommand
from ex4d.io.video import probe_video
from ex4d.model.config import GenerateConfig
from ex4d.pipeline.progress import ConsoleReporter
from generation_tools import picture_frames, tiny_config, write_video

TINY = ["--weights", "tiny", "--size", "32x32", "--steps", "1", "--window-frames", "9", "--overlap-frames", "5"]
TYPED: dict[str, str] = {
    "weights": "720p", "adapter": "mine", "preset": "draft", "prompt": "a cat", "negative_prompt": "a dog",
    "steps": "7", "guidance_scale": "2.5", "shift": "3.5", "size": "480x832", "erode_px": "official",
    "window_frames": "81", "overlap_frames": "13", "tile": "512x512", "output_size": "source", "max_vram": "24",
    "plan": "fp8", "attention": "cudnn", "compile": "on", "cache": "none", "fuse_lora": "off", "vae_dtype": "bf16",
}  # fmt: skip
SWITCHES = {"square": "--square", "mask_quirk": "--no-mask-quirk", "fallback": "--no-fallback"}


def test_every_setting_has_its_flag() -> None:
    assert {field.name for field in fields(GenerateConfig)} == {*TYPED, *SWITCHES}


@pytest.mark.parametrize("command", ["run", "generate"])
@pytest.mark.parametrize("name", [*TYPED, *SWITCHES])
def test_each_flag_changes_its_field_and_no_other(name: str, command: str) -> None:
    words = [SWITCHES[name]] if name in SWITCHES else [f"--{name.replace('_', '-')}", TYPED[name]]
    generator = ["--generator", "wan"] if command == "run" else []
    options = parse([command, "input", *generator, *words])
    assert isinstance(options, RunCommand | GenerateOptions)
    config = options.resolve().generate if isinstance(options, RunCommand) else options.resolve()[0].generate
    before, after = asdict(GenerateConfig()), asdict(config)
    assert after.pop(name) == (not before[name] if name in SWITCHES else type(before[name])(TYPED[name]))
    before.pop(name)
    assert after == before


def test_where_results_go() -> None:
    def output(*words: str) -> Path:
        options = parse(["generate", *words])
        assert isinstance(options, GenerateOptions)
        return options.resolve()[1]

    pair = ("--color-video", "c.mp4", "--mask-video", "m.mp4")
    assert output("prior") == Path("prior/generated")
    assert output("prior", "-o", "out") == Path("out")
    assert output(*pair, "--output-video", "video.mp4") == Path("video.ex4d")
    assert output(*pair, "--output-video", "video.mp4", "-o", "out") == Path("out")


ERRORS: dict[str, tuple[list[str], str]] = {
    "nothing to do": (["generate"], "a prior folder, or --color-video and --mask-video"),
    "prior and videos": (["generate", "p", "--color-video", "c", "--mask-video", "m"], "got both"),
    "one video": (["generate", "--color-video", "c", "-o", "o"], "one video alone"),
    "no place": (["generate", "--color-video", "c", "--mask-video", "m"], "-o FOLDER or --output-video FILE"),
    "no mp4": (["generate", "p", "--output-video", "v.avi"], "--output-video FILE.mp4"),
    "no folder for it": (["generate", "p", "--output-video", "no/v.mp4"], "no is none"),
    "no prior": (["generate", "p", "--weights", "tiny"], "p, which is no folder"),
    "no weights": (["generate", "p"], "ex4d weights pull 480p (about 90"),
    "unknown weights": (["generate", "p", "--weights", "9000p"], "one of 480p, 720p"),
    "folder without weights": (["generate", "p", "--weights", "."], "a diffusers folder for --weights"),
    "no GPUs": (["generate", "p", "--gpus", "0"], "--gpus from 1 to 64"),
    "previews": (["generate", "p", "--preview-every", "-1"], "--preview-every of 0 or more"),
    "seed": (["generate", "p", "--seed", "-1"], "--seed from 0"),
    "size": (["generate", "p", "--size", "500x500"], "multiples of 16"),
    "size and square": (["generate", "p", "--size", "512x512", "--square"], "one of --size and --square"),
    "tile": (["generate", "p", "--tile", "16x16"], "--tile of at least 32x32 px"),
    "window": (["generate", "p", "--window-frames", "48"], "--window-frames of 4k+1"),
    "overlap": (["generate", "p", "--overlap-frames", "49"], "--overlap-frames below --window-frames"),
    "erosion": (["generate", "p", "--erode-px", "none"], "--erode-px official or 1 to 99"),
    "guidance": (["generate", "p", "--guidance-scale", "0.5"], "--guidance-scale from 1"),
    "shift": (["generate", "p", "--shift", "nan"], "--shift above 0"),
    "memory": (["generate", "p", "--max-vram", "much"], "--max-vram auto or GiB"),
    "steps": (["generate", "p", "--steps", "-3"], "--steps from 1 to 1000"),
    "attention": (["generate", "p", "--weights", "tiny", "--attention", "sage"], "--attention sage that works here"),
    "adapter": (["generate", "p", "--weights", "tiny", "--adapter", "a"], "a folder or file of weights, or one of"),
    "no such config": (["generate", "--from", "none.json"], "a config.json that `ex4d generate` wrote, at none.json"),
    "model flags without model": (["run", "clip.mp4", "--steps", "4"], "--generator wan with flags of the diffusion"),
    "run without weights": (["run", "{clip}", "--generator", "wan"], "ex4d weights pull 480p"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_and_leave_nothing(
    name: str, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    words, expected = ERRORS[name]
    seen = ex4d(capsys, *[word.format(clip=media / "clip.mp4") for word in words])
    assert (seen.code, seen.out) == (2, "")
    assert len([line for line in seen.err.splitlines() if not line.startswith("·")]) == 1
    assert seen.err.splitlines()[-1].startswith("error: expected ")
    assert expected in seen.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["generate", "p", "--preset", "fast"], ["generate", "p", "--steps", "x"], ["run", "c", "--gpus", "2"]]
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    seen = ex4d(capsys, *words)
    assert (seen.code, seen.out) == (2, "")
    assert "--help" in seen.err
    assert "Traceback" not in seen.err


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 and depth.npz."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4")
    write_depth(folder / "depth.npz")
    return folder


@pytest.fixture(scope="module")
def prior(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ex4d recon` makes of it; not to be changed."""
    from ex4d.cli.main import main

    out = tmp_path_factory.mktemp("prior") / "out"
    assert main(["recon", str(media / "clip.mp4"), "--depth", str(media / "depth.npz"), "-o", str(out)]) == 0
    return out


def test_run_is_recon_and_generate(
    media: Path, prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `run --from` repeats it to the byte."""
    clip, out, again = media / "clip.mp4", tmp_path / "out", tmp_path / "again"
    done = ex4d(capsys, "run", clip, "--depth", media / "depth.npz", "--generator", "wan", *TINY, "-o", out)
    assert done.code == 0, done.err
    assert "generated at 32x32 in 1 window, " in done.out
    assert "tiny weights, plan cpu" in done.out
    assert "random weights" in done.err
    assert_published(out)
    record = json.loads((out / "prior.json").read_text("utf-8"))
    assert record["config"]["generator"] == "wan"
    assert record["result"]["settings"] == asdict(tiny_config())
    assert probe_video(out / "result.mp4").num_frames == 4

    apart = ex4d(capsys, "generate", prior, *TINY, "-o", tmp_path / "apart")
    assert (apart.code, apart.out) == (0, f"{tmp_path / 'apart' / 'result.mp4'}\n")
    assert (tmp_path / "apart" / "result.mp4").read_bytes() == (out / "result.mp4").read_bytes()
    assert ex4d(capsys, "run", "--from", out, "-o", again).code == 0
    assert snapshot(again, skip=["timings.json"]) == snapshot(out, skip=["timings.json"])
    resumed = ex4d(capsys, "run", "--from", out, "-o", out, "--resume")
    assert "nothing to do" in resumed.out


def test_from_says_what_changed(prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "prior"
    shutil.copytree(prior, own)
    first = tmp_path / "first"
    assert ex4d(capsys, "generate", own, *TINY, "-o", first).code == 0
    same = ex4d(capsys, "generate", "--from", first, "-o", tmp_path / "same")
    assert same.code == 0
    assert "not a repetition" not in same.err
    info = json.loads((own / "prior.json").read_text())
    (own / "prior.json").write_text(json.dumps({**info, "seed": info["seed"] + 1}))
    other = ex4d(capsys, "generate", "--from", first, "-o", tmp_path / "other")
    assert other.code == 0
    assert "not a repetition: prior.json changed since" in other.err


def test_generate_from_its_config(prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into the default folder, then again elsewhere; flags typed beside --from win."""
    folder = tmp_path / "prior"
    shutil.copytree(prior, folder)
    first = folder / "generated"
    assert ex4d(capsys, "generate", folder, *TINY, "--seed", "5").out == f"{folder / 'generated' / 'result.mp4'}\n"
    assert ex4d(capsys, "generate", "--from", first, "-o", tmp_path / "again").code == 0
    assert snapshot(tmp_path / "again", skip=["timings.json"]) == snapshot(first, skip=["timings.json"])
    words = ["--from", first / "config.json", "--seed", "6", "--prompt", "rain", "-o", tmp_path / "other"]
    assert ex4d(capsys, "generate", *words).code == 0
    old, new = (json.loads((path / "config.json").read_text())["request"] for path in (first, tmp_path / "other"))
    assert (new.pop("seed"), old.pop("seed"), new["generate"].pop("prompt")) == (6, 5, "rain")
    old["generate"].pop("prompt")
    assert new == old
    refused = ex4d(capsys, "generate", "--from", first, "-o", first)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    complete = ex4d(capsys, "generate", "--from", first, "-o", first, "--resume")
    assert complete.code == 0
    assert "nothing to do" in complete.err


def test_as_the_releases_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = picture_frames(5) * 0 + 255
    write_video(tmp_path / "c.mp4", picture_frames(5), sound=True)
    write_video(tmp_path / "m.mp4", seen)
    words = ["generate", "--color-video", "c.mp4", "--mask-video", "m.mp4", "--output-video", "v.mp4", *TINY]
    assert ex4d(capsys, *words).out == "v.mp4\n"
    video = (tmp_path / "v.mp4").read_bytes()
    assert video == (tmp_path / "v.ex4d" / "result.mp4").read_bytes()
    info = probe_video(tmp_path / "v.mp4")
    assert (info.num_frames, info.has_audio) == (5, True)
    refused = ex4d(capsys, *words)
    assert refused.code == 2
    assert "no file at v.mp4" in refused.err
    assert ex4d(capsys, *words, "--overwrite", "--seed", "1").code == 0
    assert (tmp_path / "v.mp4").read_bytes() != video
    (tmp_path / "v.mp4").unlink()
    assert ex4d(capsys, *words, "--resume", "--seed", "1").code == 0, "placed again, not made again"
    assert (tmp_path / "v.mp4").exists()
    before = snapshot(tmp_path)
    for name in ("c.mp4", "m.mp4"):
        assert ex4d(capsys, *words[:6], name, *TINY, "--overwrite").code == 2
    assert snapshot(tmp_path) == before


def test_interrupted_it_says_how_to_go_on(
    prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    begin = ConsoleReporter.begin

    def stop(reporter: ConsoleReporter, stage: str, total: int | None, unit: str = "frames") -> None:
        if stage == "encode":
            raise KeyboardInterrupt
        begin(reporter, stage, total, unit)

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleReporter, "begin", stop)
        seen = ex4d(capsys, "generate", prior, *TINY, "-o", out)
    assert (seen.code, seen.out) == (130, "")
    assert seen.err.splitlines()[-1] == (
        f"interrupted; finished windows are kept in {out}: go on with the same command and --resume"
    )
    resumed = ex4d(capsys, "generate", prior, *TINY, "-o", out, "--resume")
    assert resumed.code == 0
    assert "load model" not in resumed.err, "every window was finished"


WITHOUT = """
import sys
lost = set(sys.argv.pop(1).split(","))
class Without:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in lost else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from ex4d.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["generate", "run"])
def test_packages_that_are_missing(command: str, media: Path, tmp_path: Path) -> None:
    """As after a plain `pip install ex4d`."""
    words = (
        ["generate", str(tmp_path)] if command == "generate" else ["run", str(media / "clip.mp4"), "--generator", "wan"]
    )
    lost = "torch,diffusers,transformers,peft,accelerate,safetensors,ftfy,sentencepiece,huggingface_hub"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, lost, *words, "--weights", "tiny", "-o", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "error: expected the package 'torch' for generation with the diffusion model; got it is not installed; "
        "to fix: pip install 'ex4d[gen]'"
    )
    assert not (tmp_path / "out").exists()


def test_libraries_keep_quiet(prior: Path, tmp_path: Path) -> None:
    """Only our own words reach the terminal."""
    words = ["generate", str(prior), *TINY, "-o", str(tmp_path / "out"), "--preview-every", "1"]
    done = subprocess.run([sys.executable, "-m", "ex4d", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out' / 'result.mp4'}\n")
    assert [line for line in done.stderr.splitlines() if not re.match(r"· |  [a-z ]+ +\d+\.\d\d s", line)] == []
    assert len(list((tmp_path / "out" / "previews").iterdir())) == 1
