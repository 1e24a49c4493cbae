"""`ex4d train` and `ex4d weights export`, with the random miniature: from a dataset to a generated video."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_tools import ex4d
from PIL import Image

from dataset.dataset_tools import SMALL, write_dataset
from ex4d.cli.main import parse
from ex4d.cli.train import TrainOptions
from ex4d.errors import ConfigError, OutputError
from ex4d.model.tiny import save_tiny
from ex4d.pipeline.progress import SilentReporter
from ex4d.training.checkpoint import read_state
from ex4d.training.config import load_recipe
from ex4d.training.folder import claimed, list_checkpoints
from ex4d.training.log import read_log
from ex4d.training.run import train
from ex4d.training.start import TrainRequest
from generation_tools import picture_frames, write_video

RECIPE = """num_steps = 4
[model]
rank = 4
alpha = 4.0
precision = "fp32"
[optimizer]
lr = 1e-3
ema_decay = 0.9
[data]
num_micro_batches = 2
caption_dropout = 0.5
[output]
checkpoint_every = 2
validate_every = 4
validation_steps = 1
guidance_scale = 2.0
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, a dataset; `base`, weights; and `recipe.toml`."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("training")
    write_dataset(folder / "data", (SMALL, SMALL))
    save_tiny(folder / "base")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def _words(made: Path, output: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("train", made / "recipe.toml", "--dataset", made / "data", "-o", output, *more)


def test_trained_exported_generated(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, adapter, base = tmp_path / "run", tmp_path / "adapter", made / "base"
    done = ex4d(capsys, *_words(made, run, "--weights", base))
    assert done.code == 0, done.err
    assert "+ LoRA 11,264 = " in done.err
    assert f"ex4d weights export {run}" in done.out
    assert [entry["step"] for entry in read_log(run)] == [1, 2, 3, 4]
    sheet = np.asarray(Image.open(run / "validation/step-00000004.png"))
    assert sheet.shape[1] > 3 * SMALL[2]
    exported = ex4d(capsys, "weights", "export", run, "-o", adapter, "--official", "ckpt")
    official = f"{adapter / 'official/ex4d.ckpt'} (as the release)"
    assert (exported.code, exported.out) == (0, f"{adapter} (step 4, running averages)\n{official}\n")
    below = ex4d(capsys, "weights", "export", run, "-o", made / "recipe.toml/adapter")
    assert (below.code, f"got the file {made / 'recipe.toml'}; to fix: choose another folder" in below.err) == (2, True)
    assert (adapter / "official/ex4d.ckpt").is_file()
    frames = picture_frames(9)
    color, mask = write_video(tmp_path / "c.mp4", frames), write_video(tmp_path / "m.mp4", np.full_like(frames, 255))
    made_video = ex4d(
        capsys,
        *("generate", "--color-video", color, "--mask-video", mask, "--output-video", tmp_path / "out.mp4"),
        *("--weights", base, "--adapter", adapter, "--size", "32x32", "--steps", "1"),
        *("--window-frames", "9", "--overlap-frames", "5"),
    )
    assert made_video.code == 0, made_video.err
    used = json.loads((tmp_path / "out.ex4d/config.json").read_text())
    assert str(adapter) in json.dumps(used)
    assert (tmp_path / "out.mp4").is_file()


def test_resume_goes_on_and_a_used_folder_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert ex4d(capsys, *_words(made, run, "--weights", "tiny", "--num-steps", "1")).code == 0
    again = ex4d(capsys, *_words(made, run, "--weights", "tiny"))
    assert again.code == 2
    assert "add --resume to go on with it" in again.err
    resumed = ex4d(capsys, *_words(made, run, "--weights", "tiny", "--num-steps", "2", "--resume"))
    assert resumed.code == 0, resumed.err
    assert "going on after step 1" in resumed.err
    assert [entry["step"] for entry in read_log(run)] == [1, 2]
    other = ex4d(capsys, *_words(made, run, "--weights", "tiny", "--resume", "--seed", "9"))
    assert other.code == 2
    assert f"recipe, dataset and weights of the run in {run}; got another seed; to fix: repeat" in other.err
    assert "parameters" not in other.err, "something was loaded"
    assert json.loads((run / "run.json").read_text())["config"]["seed"] == 0


def test_two_runs_do_not_share_a_folder(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with claimed(run, resume=False):
        for more in ((), ("--resume",)):
            second = ex4d(capsys, *_words(made, run, "--weights", "tiny", *more))
            assert second.code == 2
            assert f"expected no other run at work in {run}; got one is" in second.err
            assert len(second.err.splitlines()) == 1
        request = TrainRequest(config=load_recipe(str(made / "recipe.toml")), dataset=made / "data", weights="tiny")
        with pytest.raises(OutputError, match="no other run at work"):
            train(request, run, reporter=SilentReporter())
    assert not list(run.iterdir())
    assert ex4d(capsys, *_words(made, run, "--weights", "tiny", "--num-steps", "1")).code == 0


def test_resume_without_a_checkpoint_begins_and_says_so(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    first = ex4d(capsys, *_words(made, run, "--weights", "tiny", "--num-steps", "1", "--resume"))
    assert (first.code, "no checkpoint yet: from the beginning" in first.err) == (0, True)
    for path in list_checkpoints(run):
        shutil.rmtree(path)
    again = ex4d(capsys, *_words(made, run, "--weights", "tiny", "--num-steps", "1", "--resume"))
    assert (again.code, "no checkpoint yet: from the beginning" in again.err) == (0, True)


@pytest.mark.parametrize("changed", ["dataset", "weights or adapter"])
def test_a_run_of_something_else_is_refused_before_loading(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    run = tmp_path / "run"
    assert ex4d(capsys, *_words(made, run, "--weights", "tiny", "--num-steps", "1")).code == 0
    shutil.rmtree(run / "checkpoints")
    if changed == "dataset":
        stored = json.loads((run / "run.json").read_text())
        stored["dataset"]["fingerprint"] = "0"
        (run / "run.json").write_text(json.dumps(stored))
    weights = made / "base" if changed == "weights or adapter" else "tiny"
    other = ex4d(capsys, *_words(made, run, "--weights", weights, "--num-steps", "1", "--resume"))
    assert other.code == 2
    assert f"got another {changed}; to fix" in other.err
    assert "parameters" not in other.err, "something was loaded"


def test_a_start_that_came_to_nothing_leaves_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a/run"
    failed = ex4d(capsys, *_words(made, run, "--weights", "tiny", "--latents", "none-such"))
    assert failed.code == 2
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    recipe = tmp_path / "diverging.toml"
    recipe.write_text("num_steps = 2\n[model]\nalpha = 1e300\nprecision = 'fp32'\n")
    words = ("train", recipe, "--dataset", made / "data", "-o", tmp_path / "there", "--weights", "tiny")
    failed = ex4d(capsys, *words)
    assert "a finite" in failed.err
    assert not list((tmp_path / "there").iterdir())


def test_a_bad_start_is_refused_before_torch_is_imported(made: Path, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from ex4d.cli.main import main
        for words in map(str.split, sys.argv[1:]):
            assert main(words) == 2, words
            assert "torch" not in sys.modules, words
    """
    end = f"--dataset {made / 'data'} --weights tiny -o {tmp_path / 'run'}"
    (tmp_path / "file").touch()
    commands = (
        f"train nonsense {end}",
        f"train tiny {end} --num-steps 0",
        f"train tiny --dataset {made / 'base'} --weights tiny -o {tmp_path / 'run'}",
        f"train tiny --dataset {made / 'data'} --weights tiny -o {tmp_path / 'file'}",
        f"train tiny --dataset {made / 'data'} --weights none -o {tmp_path / 'run'}",
        f"train tiny --dataset {made / 'data'} --weights tiny -o {made}",
        f"weights export {made} -o {tmp_path / 'run'}",
    )
    done = subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.prove
@pytest.mark.parametrize("gpus", ["1", "2"])
def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(made: Path, tmp_path: Path, gpus: str) -> None:
    run = tmp_path / "run"
    out, err, code = _stopped(made, run, signal.SIGINT, gpus)
    last = read_state(list_checkpoints(run)[-1]).step
    assert (code, out) == (130, ""), err
    assert last == read_log(run)[-1]["step"] >= 3, err
    said = f"interrupted; step {last} is kept in {run}; go on with the same command and --resume"
    assert err.strip().splitlines()[-1] == said
    assert ("the miniature computes on the CPU, which the 2 processes share" in err) == (gpus == "2")


@pytest.mark.prove
@pytest.mark.parametrize("gpus", ["1", "2"])
def test_sigterm_keeps_a_checkpoint_and_is_no_failure(made: Path, tmp_path: Path, gpus: str) -> None:
    run = tmp_path / "run"
    out, err, code = _stopped(made, run, signal.SIGTERM, gpus)
    assert code == 0, err
    last = read_state(list_checkpoints(run)[-1]).step
    assert last == read_log(run)[-1]["step"] >= 3
    assert out == f"told to end: step {last} is kept in {run}; go on with the same command and --resume\n"


def _stopped(made: Path, run: Path, number: signal.Signals, gpus: str) -> tuple[str, str, int]:
    """What a long run says to a signal after some steps, and its exit code."""
    words = _words(made, run, "--weights", "tiny", "--num-steps", "100000", "--gpus", gpus)
    process = subprocess.Popen(
        [sys.executable, "-m", "ex4d", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 90
        while len(read_log(run)) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return out, err, process.returncode


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "none.toml", "--dataset", "data", "-o", "run"), "paper, tiny or a TOML file; got none.toml"),
        (("train", "paper", "--dataset", "data", "-o", "run"), "samples of 49x512x512; got a dataset of 5x32x48"),
        (("train", "tiny", "--dataset", "base", "-o", "run"), "a finished dataset at base"),
        (("train", "tiny", "--dataset", "data", "-o", "run", "--weights", "none"), "none"),
        (("train", "tiny", "--dataset", "data", "-o", "run", "--latents", "abc", "--weights", "tiny"), "latents/abc"),
        (("train", "tiny", "--dataset", "data", "-o", "run", "--gpus", "0"), "--gpus from 1 to 64"),
        (
            ("weights", "export", "data", "-o", "out"),
            "a folder that `ex4d train` wrote at data; got no run.json there; to fix: name the -o",
        ),
    ],
)
def test_bad_input_is_said_in_one_line(
    made: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    failed = ex4d(capsys, *words)
    assert failed.code == 2
    assert said in failed.err.strip().splitlines()[-1]
    assert not list((made / "run/checkpoints").glob("step-*"))


def test_what_is_typed_beside_a_recipe_wins() -> None:
    options = parse(["train", "paper", "--dataset", "d", "-o", "o", "--num-steps", "7", "--latents", "none"])
    assert isinstance(options, TrainOptions)
    config = options.resolve()
    assert (config.num_steps, config.data.latents) == (7, "")
    assert options.weights == "480p"
    with pytest.raises(ConfigError, match="num_steps of at least 1"):
        parse_steps("0")


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    for words in (
        ("train", "tiny", "--dataset", tmp_path, "-o", tmp_path / "run"),
        ("weights", "export", "r", "-o", "a"),
    ):
        failed = ex4d(capsys, *words)
        assert failed.code == 2
        assert "pip install 'ex4d[train]'" in failed.err


def parse_steps(number: str) -> None:
    """Resolve a command with so many steps."""
    options = parse(["train", "tiny", "--dataset", "d", "-o", "o", "--num-steps", number])
    assert isinstance(options, TrainOptions)
    options.resolve()
