"""One pool of children for all tests of the worker: see the fixture `_computing` in conftest."""

from worker.computing.pool import Pool

_opened: list[Pool] = []


def set_pool(pool: Pool) -> None:
    _opened[:] = [pool]


def computing() -> Pool:
    return _opened[0]
