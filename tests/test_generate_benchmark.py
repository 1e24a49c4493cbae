"""The benchmark of generation on the miniature: every case runs to its end, and what it reports is reckoned right."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ex4d.model.components import expected_shapes, make_component, shipped_config
from ex4d.model.gguf_files import load_gguf
from ex4d.model.presets import fixed_schedule
from ex4d.model.tiny import CONFIGS, make_tiny_pipeline, make_tiny_tokenizer
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.wan_pipeline import encode_texts

# what importing PyTorch's own compiler warns of
pytestmark = [
    pytest.mark.prove,  # a minute, for a benchmark
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]
REPO = Path(__file__).parents[1]
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU reports")


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    """The scripts import each other by name; tensors this small are slower with several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPO / "benchmarks"))
        yield
    torch.set_num_threads(threads)


def script(name: str) -> Any:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def results(_scripts: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Case → its line of JSON, of one run of everything."""
    gpu, file = script("generate_gpu"), tmp_path_factory.mktemp("results") / "results.json"
    slowdowns = script("official_execution").SLOWDOWNS
    common = ["--tiny", "--commit", "abc1234", "-o", str(file)]
    assert gpu.main(["--price", ",".join(slowdowns), *common]) == 0
    assert gpu.main(["--case", *gpu.CASES, *common]) == 0
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len(lines) == len(gpu.CASES) + 1 + len(slowdowns)
    return {line["case"]: line for line in lines}


def test_every_case_is_timed_as_stated(results: dict[str, dict[str, Any]]) -> None:
    for name, result in results.items():
        assert result["error"] == "", name
        assert (result["tiny"], result["video"], result["commit"]) == (True, "5x32x48", "abc1234")
        assert len(result["step_s"]) == 5
        assert result["num_steps"] == (4 if name == "draft" else 25)
        assert result["median_step_s"] == sorted(result["step_s"])[2] > 0
        assert result["encode_s"] > 0
        assert result["decode_s"] > 0
        assert (result["whole_s"] is not None) == (name == "official")
        assert result["goals"] == {}
        if name != "balanced-cache":
            assert result["total_s"] == pytest.approx(result["num_steps"] * result["median_step_s"])
    assert {name for name, result in results.items() if result["text_s"]} == {
        *("official", "reference", "balanced+per-layer-offload")
    }


def test_a_cache_is_timed_by_its_schedule(results: dict[str, dict[str, Any]]) -> None:
    result = results["balanced-cache"]
    assert len(result["skipped_step_s"]) == 5
    assert result["computed_steps"] == sum(fixed_schedule(25)) == 15
    skipped = sorted(result["skipped_step_s"])[2]
    assert skipped < result["median_step_s"]
    assert result["total_s"] == pytest.approx(15 * result["median_step_s"] + 10 * skipped)


def test_cases_are_what_generate_would_run(results: dict[str, dict[str, Any]]) -> None:
    plans = {name: results[name]["plan"] for name in ("official", "fp8", "int8", "gguf", "offload", "reference")}
    expected = {name: name for name in ("fp8", "int8", "gguf", "offload")} | {"official": "bf16", "reference": "bf16"}
    assert plans == expected
    ways = {name: result["acceleration"] for name, result in results.items()}
    assert {name for name, way in ways.items() if not way["fuse_lora"]} == {
        *("official", "gguf", "reference", "balanced+unfused-lora")
    }
    assert {name for name, way in ways.items() if not way["compile"]} == {
        *("official", "gguf", "draft", "reference", "balanced+no-compile")
    }


@WITHOUT_GPU
def test_what_needs_a_gpu_says_so(results: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert all(result["peak_load"] is None and result["mfu"] is not None for result in results.values())
    assert "no GPU: fp8 weights alone, products in bfloat16" in results["fp8"]["notes"]
    assert script("generate_gpu").main(["--case", "fp8", "--commit", "x"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["error"] == "no GPU was available"
    assert result["goals"]["gib"] == {"goal": 21.0, "measured": None, "met": None}


def velocity(transformer: EX4DTransformer3DModel) -> Tensor:
    """Of one call with seeded inputs, 3x8x12 latents."""
    random = torch.Generator().manual_seed(0)
    shapes = ((1, 36, 3, 8, 12), (1, 512, 32), (1, 257, 32), (1, 64, 3, 4, 6))
    latents, text, image, geometry = (torch.randn(shape, generator=random) for shape in shapes)
    with torch.no_grad():
        return transformer(latents, torch.tensor([700.3]), text, image, geometry_latents=geometry, return_dict=False)[0]


def test_flops_are_those_of_the_model() -> None:
    flops = script("generate_results").forward_flops
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        velocity(make_tiny_pipeline(attach=False).transformer)
    assert flops(CONFIGS["transformer"], 3 * 4 * 6) == counter.get_total_flops()
    step = 2 * flops(shipped_config("transformer"), 13 * 32 * 32) / 1e12
    assert step == pytest.approx(950, abs=2)


def test_the_release_executed_gives_the_same_result() -> None:
    execution = script("official_execution")
    expected = velocity(make_tiny_pipeline().transformer)
    for slowdowns in (("complex-rope",), ("fp32-residual",), execution.SLOWDOWNS):
        transformer = make_tiny_pipeline().transformer
        execution.slow_down(transformer, slowdowns)
        assert (velocity(transformer) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert transformer.rope(torch.zeros(1, 36, 3, 8, 12)).dtype == torch.complex128


def test_residual_stays_in_float32_while_products_do_not() -> None:
    transformer = make_tiny_pipeline().transformer.to(torch.bfloat16)
    script("official_execution").slow_down(transformer, ("fp32-residual",))
    seen: dict[str, torch.dtype] = {}
    block: Any = transformer.blocks[1]
    block.register_forward_hook(lambda m, i, o: seen.update(residual=o.dtype))
    block.ffn.net[2].register_forward_hook(lambda m, i, o: seen.update(product=o.dtype))
    shapes = ((1, 36, 1, 4, 4), (1, 512, 32), (1, 257, 32))
    latents, text, image = (torch.randn(shape).to(torch.bfloat16) for shape in shapes)
    with torch.no_grad():
        transformer(latents, torch.tensor([1.0]), text, image)
    assert seen == {"residual": torch.float32, "product": torch.bfloat16}


def test_streamed_layers_leave_nothing_behind() -> None:
    pipe = make_tiny_pipeline(attach=False)
    tokenizer, encoder = make_tiny_tokenizer(), pipe.text_encoder
    expected = encode_texts(["a street"], tokenizer, encoder)[0]
    streamed = script("official_execution").StreamedEncoder(encoder, torch.device("cpu"))
    assert torch.equal(encode_texts(["a street"], tokenizer, streamed)[0], expected)
    assert all(parameter.is_meta for parameter in encoder.parameters())


def test_gguf_holds_one_block_in_all_places(tmp_path: Path) -> None:
    stack = script("random_stack")
    file = stack.write_random_gguf(stack.Site(device=torch.device("cpu"), tiny=True, scratch=tmp_path))
    transformer = load_gguf(file, tmp_path)
    state = transformer.state_dict()
    assert state.keys() == expected_shapes(make_component("transformer", CONFIGS["transformer"])).keys()
    name = "attn1.to_q.weight"
    assert torch.equal(torch.as_tensor(state[f"blocks.0.{name}"]), torch.as_tensor(state[f"blocks.1.{name}"]))
    assert file.stat().st_size < 2 * (tmp_path / "one_block" / "one.gguf").stat().st_size


def fake(case: str, **fields: Any) -> Any:
    """A result as of a GPU."""
    defaults = {
        "video": "49x512x512",
        "tiny": False,
        "date": "2026-12-01T00:00:00",
        "device": "GPU",
        "commit": "abc1234",
        "num_steps": 25,
        "computed_steps": 25,
        "step_tflop": 950.0,
        "median_step_s": 1.2,
        "total_s": 30.0,
        "encode_s": 1.0,
        "decode_s": 2.0,
        "peak_load": {"allocated": 30.0, "reserved": 30.5, "device": 31.0},
        "peak_run": {"allocated": 35.0, "reserved": 36.0, "device": 36.5},
    }
    return script("generate_results").Result(case=case, **(defaults | fields))


def test_goals_take_the_strictest_reading() -> None:
    goals = fake("balanced").goals()
    assert goals["seconds"] == {"goal": 32.0, "measured": 30.0, "met": True}
    assert goals["gib"] == {"goal": 37.0, "measured": 36.5, "met": True}
    assert fake("balanced", total_s=32.1).goals()["seconds"]["met"] is False
    assert fake("official", whole_s=45.1).goals()["seconds"]["met"] is False  # not its 30 s of steps
    assert fake("fp8").goals() == {"gib": {"goal": 21.0, "measured": 36.5, "met": False}}
    assert fake("balanced", video="81x480x832").goals() == {}
    assert fake("balanced").mfu == pytest.approx(950 * 25 / 30 / 989)
    assert fake("balanced").floor_s == pytest.approx(30.06, abs=0.01)


def test_table_shows_what_is_measured_and_says_what_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu, file = script("generate_gpu"), tmp_path / "results.json"
    measured = [fake("balanced"), fake("balanced+complex-rope", median_step_s=1.3, total_s=32.5), fake("fp8")]
    file.write_text("".join(result.to_json() + "\n" for result in measured), "utf-8")
    assert gpu.main(["--table", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    source = "2026-12-01, GPU, abc1234"
    assert (
        "| balanced (≤ 32 s, ≤ 37 GiB) | 1.200 | 30.00 s (met) | 30.1 s | 80 % | 1.00 s, 2.00 s | cached | "
        f"31.0 / 36.5 (met) | {source} |"
    ) in lines
    assert f"| complex-rope | 1.300 | +2.50 s | {source} |" in lines
    assert any(line.startswith("| fp8 (≤ 21 GiB)") and "(MISSED)" in line for line in lines)
    rows = [
        line for line in lines if line.startswith("| ") and source not in line and not line.endswith("| measured |")
    ]
    assert len(rows) == 2 * (len(gpu.CASES) + len(script("official_execution").SLOWDOWNS)) - 3
    assert all(row.count("not measured") >= 2 and row.endswith("| no: no GPU was available |") for row in rows)


def test_the_document_lists_every_case() -> None:
    text = (REPO / "docs" / "benchmarks.md").read_text("utf-8")
    for name in (*script("generate_gpu").CASES, *script("official_execution").SLOWDOWNS):
        assert text.count(f"| {name} ") >= 2, name
