"""What a browser job has computed of its page, and what a failure of that means."""

from collections.abc import Callable
from typing import Any

from worker.browser.budget import Budget
from worker.browser.faults import Fault
from worker.computing import Broken, Rejected, TooMuchMemory, TooSlow
from worker.computing.pool import Pool

_LONGEST_WAIT_SECONDS = 60.0


async def compute(
    pool: Pool, budget: Budget, function: Callable[..., Any], *arguments: Any, seconds: float
) -> Any:
    """As Pool.compute; waits for a free child as long as the job has time. Raises Fault: `page_too_large`,
    `computation_failed`, and what the function rejects its input with."""
    try:
        with budget.measured("compute"):
            patience = budget.left(_LONGEST_WAIT_SECONDS)
            return await pool.compute(function, *arguments, seconds=seconds, patience=patience)
    except TooSlow as error:
        raise Fault("page_too_large", f"The page takes more than {seconds:g} s to be computed.") from error
    except TooMuchMemory as error:
        raise Fault("page_too_large", "The page takes too much memory to be computed.") from error
    except Broken as error:
        raise Fault("computation_failed", "The worker could not compute the page just now.") from error
    except Rejected as rejected:
        raise Fault(rejected.reason, rejected.message) from rejected
