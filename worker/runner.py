"""The worker's life: claim into free slots, tend the queue, beat, drain."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sidejob import channels
from worker import VERSION
from worker.attempt import Attempt, Workshop
from worker.clock import DatabaseClock
from worker.errors import ProjectError, Refused, SignInRefused
from worker.live import Live
from worker.metrics import Metrics
from worker.project import Project
from worker.retry import delays
from worker.settings import Settings
from worker.supervision import supervised

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0  # between looks at a queue that does not answer
_STALLED_SECONDS = 120.0  # a claim loop that is so much later than it had planned is ill
_SECOND_LOOK_SECONDS = 0.25  # after a wake-up: the database sends one in 100 ms, however many jobs come
_UPKEEP = ("release_expired_leases", "settle_dependencies", "run_schedules")  # every SWEEP_SECONDS
_CLEANING = ("remove_old_jobs", "remove_leftovers")
_CLEANING_SECONDS = 60.0
_FIRST_UPKEEP_SECONDS = 5.0
_MAX_UPKEEP_CALLS = 10  # of one kind in a row, while there is something to do
_LAST_WORD_SECONDS = 3.0  # for the final heartbeat and for handing jobs back after a second signal


class Runner:
    """Claims and runs attempts until `drain`.

    browser_ready: whether there is a browser now. browserless: the beginning of the types that need none;
    they alone are claimed while the browser is away.
    """

    def __init__(
        self,
        settings: Settings,
        project: Project,
        shop: Workshop,
        metrics: Metrics,
        browser_ready: Callable[[], bool],
        browserless: str | None = None,
    ) -> None:
        self.agent_id = settings.agent_id
        self._settings = settings
        self._project = project
        self._shop = shop
        self._metrics = metrics
        self._browser_ready = browser_ready
        self._browserless = browserless
        self._attempts: dict[Attempt, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()  # something may be claimable, or a slot became free
        self._beat_now = asyncio.Event()
        self._draining = asyncio.Event()
        self._at_once = asyncio.Event()
        self._live: Live | None = None
        self._hinted = False  # a wake-up came since the last look
        self._answering = False
        self._stalled_at = time.monotonic() + _STALLED_SECONDS
        self._clock = DatabaseClock()
        self._sweep_at = 0.0
        self._clean_at = 0.0
        self._tending: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Ends when drained: no job in work, none claimed. Raises SignInRefused or Refused if sign-in or
        membership are wrong at its start, and SignInRefused, drained, when the password was changed since;
        survives everything else."""
        if not await self._arrive():
            return
        await self._say("idle")  # Realtime lets an agent speak whom the queue has heard of
        beating = [
            asyncio.create_task(supervised("heartbeats", self._beat)),
            *(asyncio.create_task(supervised("live messages", live.run)) for live in self._listeners()),
        ]
        try:
            await self._claim_until_draining()
            await self._finish_or_hand_back()
        finally:
            ending = [*beating, *filter(None, [self._sweeping, self._tending])]
            for task in ending:
                task.cancel()
            await asyncio.wait(ending, timeout=_LAST_WORD_SECONDS)
            await self._say("offline")
            log.info("drained")
        if self._project.locked_out is not None:
            raise self._project.locked_out

    def drain(self) -> None:
        """Once: claim no more, finish what ends in time, hand back the rest. Twice: hand back at once."""
        if self._draining.is_set():
            self._at_once.set()
        self._draining.set()
        self._woken.set()
        self._show()

    def wake(self) -> None:
        """Looks at the queue now, and once more a little later."""
        self._hinted = True
        self._woken.set()

    def look(self, job_id: str) -> None:
        """Somebody says that this job was cancelled."""
        for attempt in self._attempts:
            if attempt.claim.job.id == job_id:
                attempt.look()

    def alive(self) -> bool:
        return time.monotonic() < self._stalled_at or self._draining.is_set()

    def readiness(self) -> dict[str, object]:
        browser, draining = self._browser_ready(), self._draining.is_set()
        return {
            "ready": self._answering and browser and not draining,
            "queue": self._answering,
            "realtime": self._listening,
            "browser": browser,
            "draining": draining,
            "running": len(self._attempts),
        }

    def metrics_text(self) -> str:
        return self._metrics.text(
            {
                "running_jobs": len(self._attempts),
                "capacity_jobs": self._settings.max_jobs,
                "ready": int(bool(self.readiness()["ready"])),
                "draining": int(self._draining.is_set()),
            }
        )

    async def _arrive(self) -> bool:
        """Signs in and takes a name; False when a drain came first."""
        for pause in delays(0.5, _LONGEST_PAUSE_SECONDS):
            self._turn(pause)
            try:
                self._identity = await self._project.identify()
                worker_id = self._identity.worker_id
                self.agent_id = self.agent_id or f"{worker_id}-{os.urandom(4).hex()}"
                log.info("arrived", extra={"fields": {"workerId": worker_id, "agentId": self.agent_id}})
                return True
            except (SignInRefused, Refused):
                raise
            except ProjectError as error:
                log.warning("the project does not answer yet: %s", error)
            if await self._pause(pause, self._draining):
                return False
        raise AssertionError("delays never end")

    def _listeners(self) -> list[Live]:
        settings = self._settings
        if not settings.realtime:
            return []
        self._live = Live(
            settings.supabase_url,
            settings.publishable_key,
            self._project.token,
            self.agent_id,
            [channels.executor(home, settings.executor_id) for home in self._identity.workspace_ids],
            state=self._state,
            figures=lambda: {"running": len(self._attempts), **self._figures()},
            wake=self.wake,
            cancelled=self.look,
            now=self._clock.now,
            every_seconds=max(5.0, settings.heartbeat_seconds),
        )
        return [self._live]

    @property
    def _listening(self) -> bool:
        return self._live is not None and self._live.listening

    def _state(self) -> Mapping[str, Any]:
        return {
            "agentId": self.agent_id,
            "executorId": self._settings.executor_id,
            "status": self._status,
            "version": VERSION,
            "running": len(self._attempts),
            "capacity": self._settings.max_jobs,
        }

    @property
    def _status(self) -> str:
        return "draining" if self._draining.is_set() else "busy" if self._attempts else "idle"

    async def _claim_until_draining(self) -> None:
        pauses = delays(1, _LONGEST_PAUSE_SECONDS)
        while not self._draining.is_set():
            self._turn()
            self._woken.clear()
            hinted, self._hinted = self._hinted, False
            usual = self._settings.idle_poll_seconds if self._listening else self._settings.poll_seconds
            pause = (_SECOND_LOOK_SECONDS if hinted else usual) * random.uniform(0.75, 1.25)
            free = self._settings.max_jobs - len(self._attempts)
            try:
                if free and await self._claim(free):
                    # There may be more: look again as soon as there is a free slot, and that may be now.
                    pause = _LONGEST_PAUSE_SECONDS if self._full else 0.0
                self._turn()
                await self._tend()
                self._answer(True)
                pauses = delays(1, _LONGEST_PAUSE_SECONDS)
            except ProjectError as error:
                if self._answering:
                    log.warning("the queue does not answer: %s", error)
                self._answer(False)
                pause = next(pauses)
            except Exception:
                log.exception("the claim loop met a bug")
                self._answer(False)
                pause = next(pauses)
            if self._project.locked_out is not None:
                log.error("handing back what there is: %s", self._project.locked_out)
                self.drain()
                self.drain()  # at once, while the session lasts
            self._turn(pause)
            await self._pause(pause, self._woken)

    def _turn(self, pause: float = 0.0) -> None:
        """The loop turns, and will turn again after this pause."""
        self._stalled_at = time.monotonic() + pause + _STALLED_SECONDS

    @property
    def _full(self) -> bool:
        return len(self._attempts) >= self._settings.max_jobs

    async def _claim(self, free: int) -> bool:
        """Starts what it gets; True if every free slot was filled. Without a browser nothing is claimed that
        may need it."""
        browser = self._browser_ready()
        if not browser and self._browserless is None:
            return False
        claims = await self._project.claim(self.agent_id, free, None if browser else self._browserless)
        self._metrics.add("claims_total", found="jobs" if claims else "nothing")
        self._metrics.add("claimed_jobs_total", len(claims))
        for claim in claims:
            attempt = Attempt(claim, self._shop)
            task = self._attempts[attempt] = asyncio.create_task(attempt.run())
            task.add_done_callback(partial(self._ended, attempt))
            self._show()
        return len(claims) >= free

    def _ended(self, attempt: Attempt, _: object) -> None:
        if self._full:
            self._woken.set()
        del self._attempts[attempt]
        self._show()
        if self._draining.is_set() and not self._attempts:
            self._at_once.set()

    def _show(self) -> None:
        """What others see of this worker has changed."""
        self._beat_now.set()
        if self._live is not None:
            self._live.changed()

    def _answer(self, answering: bool) -> None:
        if answering and not self._answering:
            log.info("the queue answers")
        self._answering = answering

    async def _tend(self) -> None:
        """Looks after the queue from time to time, beside the claims: a large backlog must not delay them.
        The first time is waited for a while, so that a worker that is ready has done so."""
        if time.monotonic() < self._sweep_at or (self._tending is not None and not self._tending.done()):
            return
        self._sweep_at = time.monotonic() + self._settings.sweep_seconds * random.uniform(0.75, 1.25)
        first = self._tending is None
        self._tending = asyncio.create_task(self._tend_one_by_one())
        if first:
            await asyncio.wait([self._tending], timeout=_FIRST_UPKEEP_SECONDS)

    async def _tend_one_by_one(self) -> None:
        """Each call is a transaction of its own, and one that fails does not stop those that follow."""
        for call in _UPKEEP:
            await self._tend_fully(call)
        if time.monotonic() < self._clean_at:
            return
        self._clean_at = time.monotonic() + _CLEANING_SECONDS
        for call in _CLEANING:
            await self._tend_fully(call)
        due = await self._tend_once("begin_object_sweep")
        if due and (self._sweeping is None or self._sweeping.done()):
            self._sweeping = asyncio.create_task(self._sweep_artifacts())

    async def _tend_fully(self, call: str) -> None:
        """Repeats a call that found something to do, since each does a bounded part of it."""
        total = 0
        for _ in range(_MAX_UPKEEP_CALLS):
            done = await self._tend_once(call)
            total += done
            if not done or self._draining.is_set():
                break
        if total and call == "release_expired_leases":
            self._metrics.add("swept_leases_total", total)
            log.info("put expired leases back", extra={"fields": {"count": total}})

    async def _tend_once(self, call: str) -> int:
        try:
            return await self._project.tend(call)
        except ProjectError as error:
            log.warning("%s failed (it is called again): %s", call, error)
        except Exception:
            log.exception("%s met a bug", call)
        return 0

    async def _sweep_artifacts(self) -> None:
        try:
            if removed := await self._project.sweep_artifacts():
                log.info("removed files that nobody needs", extra={"fields": {"count": removed}})
        except ProjectError as error:
            log.warning("stored files were not swept (the next sweep finds them): %s", error)
        except Exception:
            log.exception("stored files were not swept: this is a bug")

    async def _finish_or_hand_back(self) -> None:
        log.info("draining", extra={"fields": {"running": len(self._attempts)}})
        if self._attempts:
            await self._pause(self._settings.drain_seconds, self._at_once)
            for attempt in self._attempts:
                attempt.hand_back()
            await asyncio.gather(*self._attempts.values(), return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            self._beat_now.clear()
            await self._say(self._status)
            # A burst of short jobs must not become a burst of heartbeats.
            await asyncio.sleep(min(1.0, self._settings.heartbeat_seconds))
            await self._pause(self._settings.heartbeat_seconds - 1, self._beat_now)

    async def _say(self, status: str) -> None:
        try:
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                beat = await self._project.heartbeat(
                    self.agent_id, status, len(self._attempts), self._figures()
                )
            self._clock.hear(beat.at)
            for job_id in beat.cancelled:
                self.look(job_id)
        except (ProjectError, TimeoutError) as error:
            log.debug("no heartbeat: %s", error)

    def _figures(self) -> Mapping[str, Any]:
        return {"browser": self._browser_ready(), "load": round(os.getloadavg()[0], 2)}

    @staticmethod
    async def _pause(seconds: float, until: asyncio.Event) -> bool:
        """Waits; True when `until` came first."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await until.wait()
                return True
        except TimeoutError:
            return False
