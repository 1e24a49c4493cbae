"""Jobs on this machine: a thread a worker; workers keep what may crash in processes of their own (`jobs.child`)."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ex4d.errors import ConfigError
from ex4d.jobs.executor import WorkerFactory


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExecutor:
    """Satisfies `Executor`.

    Attributes:
        num_workers: threads, >= 1.
    """

    num_workers: int

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError("--workers of at least 1", str(self.num_workers))

    def run(self, factory: WorkerFactory, jobs: Sequence[Any]) -> Iterator[Any]:
        """See `Executor.run`."""
        waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        done: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        stop = threading.Event()
        count = min(self.num_workers, len(jobs))
        threads = [
            threading.Thread(target=_work, args=(factory, waiting, done, stop), name=f"ex4d-job-{k}", daemon=True)
            for k in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from _results(done, stop, count)
        finally:
            stop.set()
        for thread in threads:
            thread.join()


def _results(done: "queue.SimpleQueue[tuple[str, Any]]", stop: threading.Event, running: int) -> Iterator[Any]:
    error: BaseException | None = None
    while running:
        kind, value = done.get()
        if kind == "result":
            yield value
            continue
        running -= 1
        if value is not None:
            error = error or value
            stop.set()
    if error is not None:
        raise error


def _work(
    factory: WorkerFactory,
    waiting: "queue.SimpleQueue[Any]",
    done: "queue.SimpleQueue[tuple[str, Any]]",
    stop: threading.Event,
) -> None:
    """Jobs until there are none, one fails, or nobody wants them any more."""
    failed: BaseException | None = None
    try:
        worker = factory.open()
        try:
            while not stop.is_set():
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    break
                done.put(("result", worker.run(job)))
        finally:
            worker.close()
    except BaseException as error:  # noqa: BLE001 - raised again where the results are read
        failed = error
    done.put(("end", failed))
