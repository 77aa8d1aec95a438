"""What a Figma job has computed of answers and files, and what a failure of that means."""

from collections.abc import Callable, Hashable
from typing import Any

from worker.computing import Broken, TooMuchMemory, TooSlow
from worker.computing.pool import Pool
from worker.figma.faults import Fault, TooLarge

SECONDS = (
    60.0  # on a processor: an answer of 64 MB takes about two, a file of 512 MB some ten to be compressed
)
PICTURE_SECONDS = 20.0
_PATIENCE_SECONDS = 300.0  # for a free child


async def compute(
    pool: Pool,
    function: Callable[..., Any],
    *arguments: Any,
    seconds: float = SECONDS,
    share: Hashable = None,
) -> Any:
    """As Pool.compute. Raises TooLarge, Fault `computation_failed`, and Rejected where the function does."""
    try:
        return await pool.compute(
            function, *arguments, seconds=seconds, share=share, patience=_PATIENCE_SECONDS
        )
    except TooSlow as error:
        raise TooLarge("What Figma answered takes too long to be read.") from error
    except TooMuchMemory as error:
        raise TooLarge("What Figma answered takes too much memory to be read.") from error
    except Broken as error:
        raise Fault("computation_failed", "The worker could not read Figma's answer just now.") from error
