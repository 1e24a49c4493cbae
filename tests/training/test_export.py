"""From a run to weights: ours, and the release's layout."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_tools import make_config, make_stack, make_trainer

from ex4d.errors import OutputError, WeightsError
from ex4d.io.atomic import write_json_atomic
from ex4d.model.adapter import Lora, read_adapter, read_official_adapter
from ex4d.model.tiny import CONFIGS
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.pipeline.progress import SilentReporter
from ex4d.training.checkpoint import Tensors, read_tensors_of
from ex4d.training.config import config_to_json
from ex4d.training.export import Exported, export_run, official_tensors
from ex4d.training.folder import RUN, list_checkpoints
from ex4d.training.model import adapter_of
from ex4d.training.processes import open_processes
from ex4d.weights.verify import verify_folder

ORACLE = Path(__file__).parents[1] / "data/oracle/ex4d_ckpt_tiny.safetensors"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, checkpoints of 2 and 4."""
    folder = tmp_path_factory.mktemp("run")
    config = make_config(4)
    with open_processes(device="cpu") as processes:
        trainer = make_trainer(config, folder, processes)
        trainer.run(SilentReporter())
    write_json_atomic(folder / RUN, {"config": config_to_json(config)})
    return folder


def test_the_adapter_is_the_averaged_checkpoint(run: Path, tmp_path: Path) -> None:
    assert export_run(run, tmp_path / "adapter") == Exported(4, averaged=True)
    transformer = make_stack(make_config()).pipe.transformer
    transformer.unload_lora()
    assert export_run(run, tmp_path / "last", averaged=False) == Exported(4, averaged=False)
    folders: dict[Tensors, str] = {"ema": "adapter", "model": "last"}
    for which, folder in folders.items():
        encoder, lora = read_adapter(tmp_path / folder, transformer)
        of_encoder, of_lora = adapter_of(read_tensors_of(list_checkpoints(run)[-1], which))
        assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in of_encoder.items())
        assert lora.tensors.keys() == of_lora.keys()
        assert all(torch.equal(lora.tensors[name], tensor) for name, tensor in of_lora.items())
    assert export_run(run, tmp_path / "second", step=2).step == 2


def test_the_official_layout_is_the_releases_key_for_key(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "adapter", official=("safetensors", "ckpt"))
    flat = load_file(tmp_path / "adapter/official/ex4d.safetensors")
    assert flat.keys() == load_file(ORACLE).keys()
    assert len(flat) == 48
    pickled = torch.load(tmp_path / "adapter/official/ex4d.ckpt", weights_only=True)
    assert all(torch.equal(pickled[name], flat[name]) for name in flat)
    transformer = EX4DTransformer3DModel(**CONFIGS["transformer"])
    encoder, lora = read_official_adapter(
        flat, transformer, encoder_config=CONFIGS["geometry_encoder"], lora_config=CONFIGS["lora"]
    )
    own_encoder, own_lora = read_adapter(tmp_path / "adapter", transformer)
    assert all(torch.equal(lora.tensors[name], own_lora.tensors[name]) for name in lora.tensors)
    assert all(torch.equal(value, own_encoder.state_dict()[name]) for name, value in encoder.state_dict().items())
    report = verify_folder(tmp_path / "adapter")
    assert (report.kind, list(report.problems)) == ("adapter", [])


def test_another_scale_is_put_into_the_official_matrices() -> None:
    tensors = {
        "blocks.0.ffn.net.2.lora_A.weight": torch.full((2, 3), 2.0),
        "blocks.0.ffn.net.2.lora_B.weight": torch.full((4, 2), 3.0),
    }
    flat = official_tensors({}, Lora(tensors=tensors, rank=2, alpha=1.0))
    assert flat["blocks.0.ffn.2.lora_A.default.weight"].unique().tolist() == [2.0]
    assert flat["blocks.0.ffn.2.lora_B.default.weight"].unique().tolist() == [1.5]


def test_a_broken_checkpoint_names_the_flag_for_another(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    newest = list_checkpoints(tmp_path / "run")[-1]
    for path in newest.glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:100])
    (newest / "state.json").unlink()
    with pytest.raises(WeightsError, match="choose another with --step"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert export_run(tmp_path / "run", tmp_path / "out", step=2).step == 2


def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a folder that `ex4d train` wrote"):
        export_run(tmp_path, tmp_path / "out")
    with pytest.raises(WeightsError, match=r"checkpoint of step 3 .*; got 2, 4"):
        export_run(run, tmp_path / "out", step=3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        export_run(run, tmp_path / "full")
    assert not (tmp_path / "out").exists()
