"""Computations on foreign content, in processes that are killed at their limit.

A thread cannot be stopped: one hostile page would hold it, and its core, for hours. `pool` hands a function
and its arguments to one of a few reusable children, which `process` starts, asks and kills; `child` is the
program that runs in them, `frames` what is written between the two, and `turns` says whose computation comes
next.

Pebble's ProcessPool was weighed: it kills at a time limit too, but its children inherit the environment,
which holds the worker's password and token, import the worker's main module, know no limit of memory, and
answer in pickles, which a child that hostile content took over could fill with code for the worker to run.
Here, answers are JSON or plain bytes.
"""


class ComputingFailed(Exception):
    """A computation came to no result."""


class TooSlow(ComputingFailed):
    """It took longer than it may, and was killed. Another try would take as long."""


class TooMuchMemory(ComputingFailed):
    """It, or its answer, took more memory than it may. Another try would take as much."""


class Broken(ComputingFailed):
    """Its process died or could not be started, or the function has a bug. Another try may help."""


class Rejected(Exception):
    """Raised by a function that finds its input unacceptable, and raised again in the worker: no failure of
    the computation. `reason` is for machines, `message` a sentence that is safe to show."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
