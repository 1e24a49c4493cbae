"""Executors give every result once, raise the first error, and know which part is theirs."""

from pathlib import Path

import pytest

from ex4d.errors import ConfigError, MediaError
from ex4d.jobs.executor import Executor, Part
from ex4d.jobs.local import LocalExecutor
from ex4d.jobs.ray_cluster import AUTH_VARIABLE, RayExecutor
from jobs.job_tools import Squares


@pytest.mark.parametrize("num_workers", [1, 3])
def test_local_results(num_workers: int) -> None:
    executor: Executor = LocalExecutor(num_workers=num_workers)
    assert sorted(executor.run(Squares(), list(range(10)))) == [n * n for n in range(10)]
    assert list(executor.run(Squares(), [])) == []


def test_an_error_of_a_worker_is_raised_when_the_others_are_done() -> None:
    seen: list[int] = []
    with pytest.raises(MediaError, match="got 3"):
        seen.extend(LocalExecutor(num_workers=2).run(Squares(wrong=3), list(range(40))))
    assert len(seen) < 39


def test_parts() -> None:
    assert Part.parse("0/2") == Part(index=0, count=2)
    shards = list(range(7))
    assert Part.parse("0/2").of(shards) == [0, 2, 4, 6]
    assert Part.parse("1/2").of(shards) == [1, 3, 5]
    assert Part().of(shards) == shards
    for wrong in ("2/2", "1", "a/2", "0/0", "-1/2", "1/2/3"):
        with pytest.raises(ConfigError, match="--shard"):
            Part.parse(wrong)


def test_values_out_of_range() -> None:
    with pytest.raises(ConfigError, match="--workers"):
        LocalExecutor(num_workers=0)
    with pytest.raises(ConfigError, match="--workers"):
        RayExecutor(num_workers=0)


def test_a_cluster_without_tokens_is_joined_on_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTH_VARIABLE, "Disabled")
    for address in ("10.1.2.3:6379", "auto", "head.example:6379", "ray://[2001:db8::1]:10001"):
        with pytest.raises(ConfigError, match="token"):
            RayExecutor(address=address)
    for address in (None, "127.0.0.1:6379", "localhost:6379", "ray://[::1]:10001"):
        RayExecutor(address=address)
    monkeypatch.setenv(AUTH_VARIABLE, "token")
    RayExecutor(address="10.1.2.3:6379")


@pytest.fixture
def workers_find_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers import `jobs.job_tools` as this file does."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))


@pytest.mark.prove
@pytest.mark.usefixtures("workers_find_tests")
def test_ray_tasks(tmp_path: Path) -> None:
    """Results, errors, and a worker that is killed: its job is done again."""
    executor: Executor = RayExecutor(num_workers=2)
    assert sorted(executor.run(Squares(), list(range(10)))) == [n * n for n in range(10)]
    assert list(executor.run(Squares(), [])) == []
    with pytest.raises(MediaError, match="got 3"):
        list(executor.run(Squares(wrong=3), list(range(8))))
    assert sorted(executor.run(Squares(deadly=tmp_path / "killed"), list(range(6)))) == [n * n for n in range(6)]
    assert (tmp_path / "killed").exists()
    with pytest.raises(ConfigError, match="a GPU in the cluster"):
        list(RayExecutor(num_workers=2, use_gpus=True).run(Squares(), [1]))


@pytest.mark.prove
@pytest.mark.usefixtures("workers_find_tests")
def test_ray_actors(tmp_path: Path) -> None:
    """One for each GPU of the cluster (Ray only counts them)."""
    import ray

    ray.init(
        "local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1"
    )
    try:
        executor: Executor = RayExecutor(use_gpus=True)
        assert sorted(executor.run(Squares(), list(range(10)))) == [n * n for n in range(10)]
        assert sorted(executor.run(Squares(deadly=tmp_path / "killed"), list(range(6)))) == [n * n for n in range(6)]
        assert (tmp_path / "killed").exists()
        with pytest.raises(MediaError, match="got 3"):
            list(executor.run(Squares(wrong=3), list(range(8))))
        assert ray.is_initialized(), "it ended a cluster that it did not start"
    finally:
        ray.shutdown()


def test_a_cluster_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="Ray cluster at 127"):
        list(RayExecutor(address="127.0.0.1:1").run(Squares(), [1]))
