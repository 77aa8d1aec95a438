"""The database's time, as far as this process knows it."""

import time
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """Goes by this machine's monotonic clock from what the database said last. Others are shown this time,
    since the machine's own may be wrong by minutes."""

    def __init__(self) -> None:
        self._said: datetime | None = None
        self._heard_at = 0.0  # time.monotonic()

    def hear(self, moment: datetime | None) -> None:
        """The database says that it is this moment now."""
        if moment is not None:
            self._said, self._heard_at = moment, time.monotonic()

    def now(self) -> datetime:
        """Until the database has said anything, this machine's time."""
        if self._said is None:
            return datetime.now(UTC)
        return self._said + timedelta(seconds=time.monotonic() - self._heard_at)
