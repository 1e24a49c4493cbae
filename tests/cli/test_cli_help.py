"""Help, flags and their way into the configuration."""

import re
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from cli_tools import ex4d

from ex4d.camera.presets import PRESETS
from ex4d.cli.depth import DepthCommand
from ex4d.cli.main import COMMANDS, main, parse
from ex4d.cli.options import FIELDS, ReconOptions
from ex4d.cli.recon import ReconCommand
from ex4d.cli.run import RunCommand
from ex4d.fill.config import FillConfig
from ex4d.pipeline.config import CameraConfig, RunConfig

RECON_FLAGS = [
    "--cam", "--depth", "--depth-anchor", "--depth-device", "--depth-kind", "--depth-scale", "--depth-size",
    "--download", "--end", "--focal-px", "--fov-deg", "--fps", "--frames", "--freeze", "--from", "--geometry",
    "--help", "--max-depth", "--max-side", "--motion", "--no-cache", "--no-snap", "--num-frames", "--official-files",
    "--output-dir", "--overwrite", "--pivot", "--resume", "--save-mesh", "--seed", "--source-cameras", "--start",
    "--subject-mask", "--supersample", "--tear-angle-deg", "--tear-disparity-jump",
]  # fmt: skip
DEPTH_FLAGS = [
    "--depth", "--depth-anchor", "--depth-device", "--depth-kind", "--depth-scale", "--depth-size", "--download",
    "--end", "--focal-px", "--format", "--fov-deg", "--fps", "--frames", "--help", "--max-depth", "--max-side",
    "--no-cache", "--no-snap", "--output-dir", "--overwrite", "--resume", "--seed", "--source-cameras", "--start",
    "--subject-mask",
]  # fmt: skip
MASK_FLAGS = [
    "--dilate-px", "--elevation-deg", "--erode-px", "--kind", "--noise-px", "--num-masks", "--style", "--tracker",
    "--yaw-deg",
]  # fmt: skip
MODEL_FLAGS = [
    "--adapter", "--attention", "--cache", "--compile", "--erode-px", "--fuse-lora", "--guidance-scale", "--max-vram",
    "--negative-prompt", "--no-fallback", "--no-mask-quirk", "--output-size", "--overlap-frames", "--plan", "--preset",
    "--prompt", "--shift", "--size", "--square", "--steps", "--tile", "--vae-dtype", "--weights", "--window-frames",
]  # fmt: skip
GENERATE_FLAGS = [
    "--color-video", "--from", "--gpus", "--help", "--mask-video", "--output-dir", "--output-video", "--overwrite",
    "--preview-every", "--resume", "--seed",
]  # fmt: skip
FLAGS = {
    "run": sorted([*RECON_FLAGS, *MODEL_FLAGS, "--generator"]),
    "recon": RECON_FLAGS,
    "depth": DEPTH_FLAGS,
    "masks": sorted({*DEPTH_FLAGS, *MASK_FLAGS} - {"--format"}),
    "generate": sorted([*GENERATE_FLAGS, *MODEL_FLAGS]),
    "weights": ["--help"],
    "fill": [
        "--color-tolerance",
        "--depth-tolerance",
        "--help",
        "--min-hole-share",
        "--no-temporal",
        "--num-neighbors",
        "--overwrite",
        "--stability",
    ],
    "demo": ["--help", "--output-dir", "--overwrite", "--seed", "--small"],
    "doctor": ["--help"],
}
TYPED = {
    "depth": "layout", "depth_kind": "disparity", "depth_scale": "1000.5", "max_depth": "20.5", "fov_deg": "60.5",
    "depth_anchor": "none", "depth_size": "196", "depth_device": "cpu", "subject_mask": "m.png",
    "source_cameras": "static", "focal_px": "500.5", "pivot": "near", "motion": "world", "freeze": "2",
    "num_frames": "7", "start": "1.5",
    "end": "9.5", "frames": "1:3", "max_side": "320", "fps": "12.5", "geometry": "official", "tear_angle_deg": "3.5",
    "tear_disparity_jump": "0.25", "supersample": "2", "seed": "5", "save_mesh": None, "official_files": None,
}  # fmt: skip


@pytest.mark.parametrize("command", FLAGS)
def test_flags_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ex4d(capsys, command, "--help")
    assert shown.code == 0
    # rows of the table start with a border (a space where it cannot be drawn); continuation rows are indented
    table = [line for line in shown.out.splitlines() if re.match(r"[│| ] -", line)]
    assert sorted({flag for line in table for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", line)}) == FLAGS[command]
    if command in ("run", "recon", "depth", "masks", "generate", "demo"):
        assert any("-o FOLDER, --output-dir FOLDER" in line for line in table)


def test_help_without_a_command_names_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    bare, asked = ex4d(capsys), ex4d(capsys, "--help")
    assert bare == asked
    assert asked.code == 0
    for name in COMMANDS:
        assert f"• {name}" in asked.out
    assert "Exit codes" in asked.out


@pytest.mark.parametrize("command", ["run", "recon"])
def test_help_ends_with_every_preset_and_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = ex4d(capsys, command, "--help").out
    tail = text[text.index("camera presets") :]
    for preset in PRESETS.values():
        assert f"\n  {preset.usage}" in tail
    assert f"ex4d {command} " in tail[tail.index("examples") :]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from ex4d.cli.main import main\n"
        "for words in (['--help'], ['run', '--help'], ['recon', '--help'], ['fill', '--help'], ['demo', '--help'],\n"
        "              ['depth', '--help'], ['masks', '--help'], ['generate', '--help'], ['weights', '--help'],\n"
        "              ['doctor', '--help'], ['--version']):\n"
        "    assert main(words) == 0\n"
        "heavy = {'numba', 'cv2', 'av', 'torch', 'diffusers', 'PIL', 'trimesh', 'OpenEXR'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "ex4d", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"ex4d \d+\.\S+\n|ex4d 0\+unknown\n", done.stdout)


def test_no_flag_is_the_default_configuration() -> None:
    assert RunCommand(input="clip.mp4").resolve() == RunConfig(input="clip.mp4")
    assert ReconCommand(input="clip.mp4").resolve() == RunConfig(input="clip.mp4", generator="none")


def test_every_setting_flag_is_in_the_table() -> None:
    handled = {"input", "cam", "output_dir", "no_cache", "no_snap", "download", "resume", "overwrite", "from_"}
    assert {field.name for field in fields(ReconOptions)} == handled | set(FIELDS)
    assert set(TYPED) == set(FIELDS)


@pytest.mark.parametrize("name", TYPED)
def test_each_flag_changes_its_field_and_no_other(name: str) -> None:
    flag, word = f"--{name.replace('_', '-')}", TYPED[name]
    options = parse(["run", "clip.mp4", flag, *([] if word is None else [word])])
    assert isinstance(options, RunCommand)
    before, after = asdict(RunConfig(input="clip.mp4")), asdict(options.resolve())
    section, field = FIELDS[name]
    holder = after[section] if section else after
    assert str(holder.pop(field)) == ("True" if word is None else word)
    (before[section] if section else before).pop(field)
    assert after == before


@pytest.mark.parametrize("name", [name for name in TYPED if f"--{name.replace('_', '-')}" in DEPTH_FLAGS])
def test_flags_of_depth_mean_what_they_mean_to_recon(name: str) -> None:
    words = ["clip.mp4", f"--{name.replace('_', '-')}", *([] if TYPED[name] is None else [TYPED[name] or ""])]
    depth, recon = parse(["depth", *words]), parse(["recon", *words])
    assert isinstance(depth, DepthCommand)
    assert isinstance(recon, ReconCommand)
    assert depth.resolve() == recon.resolve() != DepthCommand(input="clip.mp4").resolve()


def test_switches_of_depth() -> None:
    options = parse(
        ["depth", "clip.mp4", "--no-cache", "--no-snap", "--download", "--format", "mkv", "--format", "exr"]
    )
    assert isinstance(options, DepthCommand)
    depth = options.resolve().depth
    assert (depth.cache, depth.snap, depth.download) == (False, False, True)
    assert options.format == ("mkv", "exr")
    assert DepthCommand(input="clip.mp4").resolve() == RunConfig(input="clip.mp4", generator="none")


def test_cameras_are_repeated_and_may_be_negative() -> None:
    for words in (["--cam", "-45", "--cam", "full"], ["--cam=-45", "--cam=full"]):
        options = parse(["run", "clip.mp4", *words])
        assert isinstance(options, RunCommand)
        assert options.resolve().camera.cam == ("-45", "full")


@pytest.mark.parametrize("flag", ["-o", "--output-dir", "--output_dir"])
def test_spellings_of_the_output_folder(flag: str) -> None:
    options = parse(["recon", "clip.mp4", "--cam", "180", flag, "out", "--save_mesh", "--no_cache"])
    assert isinstance(options, ReconCommand)
    config = options.resolve()
    assert options.output_dir == Path("out")
    assert config.save_meshes
    assert not config.depth.cache


def test_fill_flags_reach_its_config() -> None:
    options = parse(["fill", "out", "--no-temporal", "--stability", "0.5"])
    assert getattr(options, "fill", None) == FillConfig(temporal=False, stability=0.5)


@pytest.mark.parametrize(
    "words", [["run", "clip.mp4", "--bla"], ["paint"], ["run", "clip.mp4", "--geometry", "x"], ["fill"]]
)
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "Traceback" not in seen.err
    assert "--help" in seen.err


def test_camera_defaults_of_help_and_config_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """The default of --cam stands in its help text, because an appended flag has none of its own."""
    text = " ".join(ex4d(capsys, "run", "--help").out.translate({ord(c): " " for c in "│|"}).split())
    assert f"several cameras (default: {CameraConfig().cam[0]})" in text
