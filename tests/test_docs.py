"""Documentation that is checked: links, paths, flags, presets, fields, limits, and the code blocks run."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ex4d.camera.keyframes import parse_keyframes
from ex4d.camera.presets import DEGREES, PRESETS
from ex4d.cli.main import COMMANDS, main
from ex4d.core.camera import Camera, CameraPath
from ex4d.core.depth import DepthVideo
from ex4d.core.mesh import DepthMesh
from ex4d.core.video import Video
from ex4d.core.view import RenderedView
from ex4d.io.cameras.own_json import cameras_from_dict
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.intrinsics import PixelConvention, to_corner_origin
from ex4d.model.config import GenerateConfig
from ex4d.model.estimates import PLANS, Workload, estimate
from ex4d.model.memory import DOWNWARDS, Machine, choose_plan
from ex4d.model.presets import PRESETS as GENERATION_PRESETS
from ex4d.pipeline.generate_folder import generate_folder
from ex4d.pipeline.generation_request import GenerationRequest
from ex4d.pipeline.progress import SilentReporter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted(REPO.glob("*.md")) + sorted((REPO / "docs").glob("*.md"))
IDS = [page.relative_to(REPO).as_posix() for page in PAGES]
FOREIGN_FLAGS = {"--pythonpath", *(f"--{name}" for name in ("no-deps", "no-index", "only-binary", "target"))}
FOREIGN_FLAGS |= {"--platform", "--python-version"}
"""Flags of other programs that the pages may mention."""
WEIGHTS_ACTIONS = ("list", "pull", "verify", "convert", "export")
MEMORY_COLUMNS = ((49, 512, 512), (81, 480, 832), (81, 720, 1280))
"""Windows (frames, height, width) of the memory table in docs/generate.md."""

EXPECTED_PAGES = {
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{name}.md" for name in ("architecture", "benchmarks", "cameras", "conventions", "depth", "fidelity")),
    *(f"docs/{name}.md" for name in ("dataset", "generate", "masks", "prior_folder", "scaling", "training")),
}


def read(name: str) -> str:
    return (REPO / name).read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Fenced code blocks of a language ("" for plain ones)."""
    return [
        body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if kind == language
    ]


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """GitHub's anchors of the headings of a page."""
    found = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def links(text: str) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", without_blocks(text))


def test_all_pages_are_there() -> None:
    assert set(IDS) == EXPECTED_PAGES


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text("utf-8")):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert file.is_relative_to(REPO), link
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_files_and_tests_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    functions = {
        name
        for file in (REPO / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text("utf-8"))
    }
    for path in re.findall(r"(?<![\w/])((?:src|tests|docs|benchmarks|examples|\.ci)/[\w./-]*\w)", text):
        assert (REPO / path).exists(), path
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text):
        assert f"def {name}(" in read(path), f"{path}::{name}"
    for name in re.findall(r"`(test_\w+)`", text):
        assert name in functions, name


def test_modules_named_in_the_architecture_exist() -> None:
    for package, body in re.findall(
        r"^\*\*`(\w+)`\*\*(.*?)\n\n", read("docs/architecture.md"), re.MULTILINE | re.DOTALL
    ):
        root = REPO / "src/ex4d" / package
        assert root.is_dir() or root.with_suffix(".py").is_file(), package
        for module in re.findall(r"\(`(\w+)`\)", body):
            assert (root / f"{module}.py").is_file(), f"{package}/{module}"


def test_every_package_has_its_paragraph() -> None:
    described = set(re.findall(r"^\*\*`(\w+)`\*\*", read("docs/architecture.md"), re.MULTILINE))
    packages = {path.parent.name for path in (REPO / "src/ex4d").glob("*/__init__.py")} | {"errors"}
    assert described == packages


def test_layers_are_those_that_are_checked() -> None:
    contract = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    real = [" | ".join(name for name in row.split(" | ") if not name.startswith("(")) for row in contract]
    drawn = next(block for block in blocks(read("docs/architecture.md"), "") if block.startswith("cli\n"))
    assert drawn.split("\n")[:-1] == [row for row in real if row and row != "__main__"]


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """The flags that each command's help names, and those it accepts under other spellings."""
    import contextlib
    import io

    found: dict[str, set[str]] = {}
    for words in [*([command] for command in COMMANDS), *(["weights", action] for action in WEIGHTS_ACTIONS)]:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main([*words, "--help"]) == 0
        options = out.getvalue().partition("camera presets")[0]
        found.setdefault(words[0], set()).update(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", options))
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_flags_exist(page: Path, flags: dict[str, set[str]]) -> None:
    scripts = "".join(file.read_text("utf-8") for file in REPO.glob("benchmarks/*.py"))
    known = set.union(*flags.values()) | FOREIGN_FLAGS | {"--version"} | set(re.findall(r'"(--[a-z-]+)"', scripts))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*", re.sub(r"<!--.*?-->", "", page.read_text("utf-8"))))
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_take_the_flags_beside_them(page: Path, flags: dict[str, set[str]]) -> None:
    for command, rest in re.findall(r"(?<![\w/])ex4d ([a-z]+)\b([^`\n#]*)", page.read_text("utf-8")):
        if command not in COMMANDS:
            continue
        for flag in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest):
            assert flag in flags[command], f"ex4d {command} {flag}"


def test_readme_names_every_command() -> None:
    text = read("README.md") + read("CHANGELOG.md")
    for command in COMMANDS:
        assert re.search(rf"`?(ex4d )?{command}\b", text), command


def test_every_preset_is_explained_and_counted() -> None:
    table = read("docs/cameras.md")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    words = {word.partition(":")[0] for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert set(PRESETS) - {DEGREES} <= words
    assert f"{len(PRESETS)} camera presets" in read("README.md")
    assert f"{len(PRESETS)} camera presets" in read("CHANGELOG.md")


def test_json_examples_are_valid() -> None:
    keyframes, cameras = (json.loads(text) for text in blocks(read("docs/cameras.md"), "json"))
    assert len(parse_keyframes(keyframes).keys) == 3
    assert len(cameras_from_dict(cameras).K) == 1


def test_nouns_have_the_fields_that_the_conventions_name() -> None:
    text = read("docs/conventions.md")
    for noun in (Video, DepthVideo, Camera, CameraPath, DepthMesh, RenderedView):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{noun.__name__}`"))
        named = set(re.findall(r"`(\w+)`", row)) - {noun.__name__}
        assert named <= {field.name for field in dataclasses.fields(noun)}, noun.__name__


@pytest.mark.parametrize(
    ("row", "convention"),
    [
        ("COLMAP", "colmap"),
        ("Blender", "blender"),
        ("TUM RGB-D", "tum"),
        ("Record3D", "record3d"),
        ("EX-4D release npz", "official"),
    ],
)
def test_half_pixels_are_as_the_table_says(row: str, convention: PixelConvention) -> None:
    cell = next(line for line in read("docs/conventions.md").splitlines() if line.startswith(f"| {row} |")).split("|")[
        3
    ]
    shift = to_corner_origin(np.eye(3), convention)[0, 2]
    assert float(re.match(r"\s*\+?([\d.]+)", cell).group(1)) == shift  # pyright: ignore[reportOptionalMemberAccess]


def test_security_names_the_limits_of_the_code() -> None:
    text, limits = " ".join(read("SECURITY.md").split()), DecodeLimits()
    assert limits.max_pixels == 2**26
    assert "2^26 pixels" in text
    assert f"{limits.max_frames:,}".replace(",", " ") + " frames" in text
    assert f"{limits.memory_gib:g} GiB of address space" in text
    assert f"for {limits.stall_timeout_s:g} seconds" in text


def test_version_and_citation() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    citation = read("CITATION.cff")
    assert f"\nversion: {version}\n" in citation
    assert "arXiv:2506.05554" in citation
    assert version in read("CHANGELOG.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where README's code ran on a tiny clip."""
    folder = tmp_path_factory.mktemp("readme")
    clip = scene_clip(make_scene(0), num_frames=8, fps=12.0, height=48, width=64)
    video = clip.read(0, 8)
    with DeliveryWriter(folder / "clip.mp4", height=48, width=64, fps=Fraction(12)) as writer:
        writer.write(video.frames, video.timestamps_s)
    run_block(blocks(read("README.md"), "python")[0], folder)
    return folder


def run_block(code: str, folder: Path) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(code, "documentation", "exec"), scope)
    return scope


def test_readme_code_makes_a_video(folder: Path) -> None:
    assert len([line for line in blocks(read("README.md"), "python")[0].splitlines() if line]) == 5
    assert (folder / "out/result.mp4").stat().st_size > 0


def test_prior_folder_code_runs(folder: Path) -> None:
    scope = run_block(blocks(read("docs/prior_folder.md"), "python")[0], folder)
    assert scope["view"].observed.shape == (8, 48, 64)
    from ex4d.io.prior import close_prior

    close_prior(scope["prior"])


def test_every_file_and_field_of_a_prior_folder_is_documented(folder: Path) -> None:
    text = read("docs/prior_folder.md")
    out = folder / "out"
    for file in (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()):
        assert f"| `{file}` |" in text, file
    info = json.loads((out / "prior.json").read_text("utf-8"))
    groups = ("input", "depth", "z_min", "source_cameras")
    names = set(info) - set(groups)
    names |= {f"{group}.{name}" for group in groups for name in info[group]}
    documented = set(re.findall(r"`([\w.]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert names <= documented


def test_every_setting_of_generation_is_explained(flags: dict[str, set[str]]) -> None:
    text = read("docs/generate.md") + read("docs/fidelity.md")
    own = flags["generate"] - flags["doctor"] - {"-o", "--output-dir", "--overwrite"}
    assert {flag for flag in own if not re.search(rf"{flag}\b", text)} == set()


def test_memory_table_is_what_is_estimated() -> None:
    page = read("docs/generate.md")
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*((?:\|[^|\n]*){4})\|$", page, re.MULTILINE))
    for name in DOWNWARDS:
        *peaks, host = (cell.strip() for cell in rows[name].strip("|").split("|"))
        for (frames, height, width), peak in zip(MEMORY_COLUMNS, peaks, strict=True):
            work = Workload(num_frames=frames, height=height, width=width, text_cached=True)
            whole, tiled = (estimate(replace(PLANS[name], vae_tiling=tiling), work) for tiling in (False, True))
            assert peak == f"{whole.peak_gib:.1f} / {tiled.peak_gib:.1f}"
            assert host == f"{whole.host_gib:.0f}"


@pytest.mark.parametrize(
    ("vram_gib", "gguf_gib", "plan"),
    [(80, None, "bf16"), (48, None, "bf16"), (24, None, "fp8"), (16, None, "offload"), (12, None, "offload"),
     (8, None, "offload"), (24, 9.4, "fp8"), (16, 9.4, "gguf"), (12, 9.4, "gguf"), (8, 9.4, "offload")],
)  # fmt: skip
def test_plans_that_the_page_names_for_a_gpu(vram_gib: float, gguf_gib: float | None, plan: str) -> None:
    unavailable: dict[Any, str] = {} if gguf_gib else {"gguf": "no file"}
    machine = Machine(
        device="cuda", total_gib=vram_gib, free_gib=vram_gib, host_gib=64, gguf_gib=gguf_gib, unavailable=unavailable
    )
    assert choose_plan(machine, Workload(num_frames=49, height=512, width=512)).plan.name == plan


def test_presets_are_those_of_the_code() -> None:
    words = {True: ("fused", "yes"), False: ("beside", "no")}
    for name, preset in GENERATION_PRESETS.items():
        config = GenerateConfig(preset=name)
        scale = config.effective_guidance_scale
        row = [str(config.num_inference_steps), f"{scale:g}" if scale > 1 else "none"]
        row += [words[preset.fuse_lora][0], words[preset.compile][1], preset.cache]
        assert f"| `{name}` | {' | '.join(row)} |" in read("docs/generate.md")


def test_generation_code_runs(folder: Path) -> None:
    table, pipeline = blocks(read("docs/generate.md"), "python")
    run_block(table, folder)
    scope = run_block(pipeline, folder)
    assert scope["result"].frames.shape == (5, 48, 64, 3)


def test_every_field_of_config_json_is_documented(folder: Path) -> None:
    output = folder / "generated"
    request = GenerationRequest(prior=str(folder / "out"), generate=GenerateConfig(weights="tiny", size="32x48"))
    generate_folder(request, output, reporter=SilentReporter())
    text = read("docs/prior_folder.md")
    info = json.loads((output / "config.json").read_text("utf-8"))
    names = {*info, *(f"result.{name}" for name in info["result"])}
    documented = set(re.findall(r"`([\w.]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert names <= documented
    assert {path.name for path in output.iterdir()} == {"result.mp4", "sheet.png", "timings.json", "config.json"}


def test_picture_is_small_enough() -> None:
    assert (REPO / "docs/images/demo.png").stat().st_size <= 400_000
