"""Recipes: what they say, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from ex4d.errors import ConfigError
from ex4d.training.config import RECIPES, DataConfig, ModelConfig, config_from_json, config_to_json, load_recipe


def test_the_paper_recipe_is_the_papers() -> None:
    config = load_recipe("paper")
    assert (config.model.rank, config.model.alpha, config.model.trained) == (16, 16.0, "adapter")
    assert (config.optimizer.lr, config.data.only_bucket()) == (3e-5, (49, 512, 512))
    objective = config.objective
    assert (objective.num_timesteps, objective.shift, objective.weighting) == (1000, 5.0, "bell")
    assert objective.prediction == "velocity"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name: str) -> None:
    config = load_recipe(name)
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("num_steps = 4\nlearning_rate = 1.0\n", "learning_rate"),
        ("num_steps = 4\n[optimizer]\nlr = 'fast'\n", r"optimizer\.lr"),
        ("num_steps = 4\n[optimizer]\nlr = -1.0\n", r"optimizer\.lr above 0"),
        ("num_steps = 4\n[model]\nprecision = 'fp16'\n", r"model\.precision bf16 or fp32"),
        ("num_steps = 4\n[data]\nbucket = '49x512'\n", r"data\.bucket TxHxW"),
        ("num_steps = 4\n[objective]\nprediction = 'clean'\n", r"objective\.min_sigma above 0"),
        ("num_steps = 4\nsharding = 'fsdp'\n[model]\nfp8_base = true\n", "fp8_base"),
        ("num_steps = 4\n[model]\ntrained = 'all'\n", 'precision "fp32"'),
        ("[model]\nrank = 4\n", "num_steps"),
        ("num_steps = \n", "TOML"),
    ],
)
def test_bad_recipes_name_the_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_steps = 'a'\n", "expected a whole number at num_steps in {0}; got 'a'"),
        ("num_steps = 4\nmodel = 3\n", "expected a group of fields at model in {0}; got 3"),
        ("num_steps = 4\n[optimizer]\nbetas = 3\n", "expected a list at optimizer.betas in {0}; got 3"),
        ("seed = 4\n", "expected num_steps, which has no default in {0}; got none; to fix: add num_steps"),
        ("num_step = 4\n", "got num_step; to fix: did you mean num_steps?"),
        ("num_steps = 4\n[optimizer]\nrate = 1.0\n", "only known fields in optimizer (lr, betas, eps, "),
        ("num_steps = 4\n[optimizer]\nrate = 1.0\n", "got rate; to fix: remove it"),
        ("num_steps = a\n", "to fix: mend that line"),
        ("num_steps = 0\n", "num_steps of at least 1 and at most 1000000000 in {0}; got 0"),
        ("num_steps = 1\nseed = -1\n", "seed of at least 0 and at most 9223372036854775807 in {0}; got -1"),
    ],
)
def test_bad_recipes_say_what_to_do_in_plain_words(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as failed:
        load_recipe(str(path))
    assert said.format(path) in str(failed.value)


def test_differing_names_what_the_digest_is_of() -> None:
    config = load_recipe("tiny")
    other = replace(config, seed=1, num_steps=9, optimizer=replace(config.optimizer, lr=0.5))
    assert config.differing(other) == ["optimizer.lr", "seed"]


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paper, tiny or a TOML file"):
        load_recipe(str(tmp_path / "none.toml"))


def test_digest_is_of_what_decides_the_result() -> None:
    config = load_recipe("tiny")
    same = (
        replace(config, num_steps=40),
        replace(config, sharding="fsdp"),
        replace(config, output=replace(config.output, keep_last=9)),
        replace(config, data=replace(config.data, latents="abc")),
    )
    others = (
        replace(config, seed=1),
        replace(config, model=ModelConfig(rank=8, alpha=4.0, precision="fp32")),
        replace(config, data=DataConfig(micro_batch=3)),
    )
    assert {each.digest() for each in same} == {config.digest()}
    assert config.digest() not in {each.digest() for each in others}
    falling = replace(config, optimizer=replace(config.optimizer, cosine=True))
    assert falling.digest() != replace(falling, num_steps=40).digest()
