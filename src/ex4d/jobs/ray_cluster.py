"""Jobs on a Ray cluster, or on one that is started on this machine (``ex4d[ray]``). Ray only schedules: what is done
is committed by the jobs themselves.
"""

import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ex4d.errors import ConfigError, Ex4dError, MissingDependencyError
from ex4d.jobs.executor import WorkerFactory

AUTH_VARIABLE = "RAY_AUTH_MODE"
_RETRIES = 3
"""Times that a job is done again when the process or machine that did it was lost."""
_IN_FLIGHT_PER_CPU = 2
_LOCAL = "127.0.0.1"
_ANSWERS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RayExecutor:
    """Satisfies `Executor`. Jobs without a GPU are tasks; jobs with one go to actors, which keep their models.

    Attributes:
        address: of a cluster (``HOST:PORT``, ``auto``); None: one is started here and ended afterwards.
        num_workers: jobs in flight at most; None: two for each processor, or one for each GPU.
        use_gpus: whether each worker gets a GPU.
    """

    address: str | None = None
    num_workers: int | None = None
    use_gpus: bool = False

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError("--workers of at least 1", str(self.num_workers))
        if os.environ.get(AUTH_VARIABLE, "").lower() == "disabled" and not _is_loopback(self.address):
            raise ConfigError(
                f"a cluster that asks for a token at {self.address}",
                f"{AUTH_VARIABLE}=disabled: whoever reaches it runs what they like on it",
                f"unset {AUTH_VARIABLE} (and see `ray get-auth-token`)",
            )

    def run(self, factory: WorkerFactory, jobs: Sequence[Any]) -> Iterator[Any]:
        """See `Executor.run`.

        Raises:
            MissingDependencyError: Ray is not installed.
            ConfigError: no cluster answers at the address, or it has no GPU where one is needed.
            Ex4dError: a job whose process was lost again and again.
        """
        ray = _require_ray()
        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        try:
            submitter = _Actors(ray, factory, self._num_actors(ray, jobs)) if self.use_gpus else _Tasks(ray, factory)
            limit = self.num_workers or int(ray.cluster_resources().get("CPU", 1)) * _IN_FLIGHT_PER_CPU
            yield from _bounded(ray, submitter, jobs, submitter.limit or limit)
        finally:
            if started:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            # loopback: nobody else is invited
            settings |= {"include_dashboard": False, "num_cpus": self.num_workers, "_node_ip_address": _LOCAL}
        try:
            if self.address is not None:
                _knock(self.address)
            ray.init(self.address or "local", **settings)
        except (OSError, RuntimeError, ValueError) as error:
            text = str(error).split("\n")[0]
            fix = f"check --ray-address; `ray start` makes clusters that ask for a token: {AUTH_VARIABLE}=token"
            raise ConfigError(f"a Ray cluster at {self.address or 'this machine'}", text, fix) from error

    def _num_actors(self, ray: Any, jobs: Sequence[Any]) -> int:
        num_gpus = int(ray.cluster_resources().get("GPU", 0))
        if num_gpus == 0:
            raise ConfigError("a GPU in the cluster", "none", "use --depth-device cpu")
        return max(1, min(num_gpus, self.num_workers or num_gpus, len(jobs)))


class _Tasks:
    """A task a job: runs wherever there is a processor."""

    limit: int | None = None

    def __init__(self, ray: Any, factory: WorkerFactory) -> None:
        self._task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_do_one)
        self._factory = ray.put(factory)

    def submit(self, job: Any) -> Any:
        return self._task.remote(self._factory, job)

    def finished(self, reference: Any) -> None:
        """Nothing is kept of a task."""


class _Actors:
    """One worker a GPU, each with one job at a time."""

    def __init__(self, ray: Any, factory: WorkerFactory, count: int) -> None:
        kind = ray.remote(num_gpus=1, max_restarts=-1, max_task_retries=_RETRIES)(_Holder)
        self._idle = [kind.remote(factory) for _ in range(count)]
        self._busy: dict[Any, Any] = {}
        self.limit = count

    def submit(self, job: Any) -> Any:
        actor = self._idle.pop()
        reference = actor.run.remote(job)
        self._busy[reference] = actor
        return reference

    def finished(self, reference: Any) -> None:
        """Its actor takes another job."""
        self._idle.append(self._busy.pop(reference))


class _Holder:
    """An actor's state."""

    def __init__(self, factory: WorkerFactory) -> None:
        self._worker = factory.open()

    def run(self, job: Any) -> Any:
        return self._worker.run(job)


def _do_one(factory: WorkerFactory, job: Any) -> Any:
    worker = factory.open()
    try:
        return worker.run(job)
    finally:
        worker.close()


def _bounded(ray: Any, submitter: _Tasks | _Actors, jobs: Sequence[Any], limit: int) -> Iterator[Any]:
    """Results as they come, with at most `limit` jobs in flight: a plan of a million is not put into Ray at once."""
    waiting, running = list(reversed(jobs)), list[Any]()
    while waiting or running:
        while waiting and len(running) < limit:
            running.append(submitter.submit(waiting.pop()))
        (ready, *_), running = ray.wait(running, num_returns=1)
        submitter.finished(ready)
        try:
            result = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            text = str(error).split("\n")[0]
            raise Ex4dError("workers that run to the end", text, "look into Ray's logs; then run it again") from error
        yield result


def _require_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingDependencyError("ray", "ray", "--executor ray") from error
    return ray


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray would ask for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN_S).close()


def _is_loopback(address: str | None) -> bool:
    """Whether nobody but this machine reaches an address."""
    if address is None:
        return True
    host = address.removeprefix("ray://").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
