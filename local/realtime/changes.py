"""postgres_changes: each change of a published table to the subscribers who asked for it and may see it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import psycopg

from local.realtime.authorization import Pool
from local.realtime.bindings import Binding
from local.realtime.catalog import Catalog, Table
from local.realtime.events import Event, Subscriber, Texts
from local.realtime.filters import Test, Tests, ask
from local.realtime.frames import dumps
from local.realtime.tokens import Identity
from local.realtime.values import ask_json
from local.realtime.wal import Change

if TYPE_CHECKING:
    from local.realtime.channel import Channel

_REFUSED = "Unable to subscribe to changes with given parameters."
Question = tuple[Test, str | None]


class Changes:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._catalog = Catalog(pool)
        self._tests = Tests(pool)
        # By schema and table, either None for any; dictionaries for their order.
        self._subscribers: dict[tuple[str | None, str | None], dict[Subscriber, None]] = defaultdict(dict)

    def add(self, channel: "Channel") -> None:
        for binding in channel.bindings:
            self._subscribers[binding.schema, binding.table][channel, binding] = None

    def remove(self, channel: "Channel") -> None:
        for binding in channel.bindings:
            name = (binding.schema, binding.table)
            self._subscribers[name].pop((channel, binding), None)
            if not self._subscribers[name]:
                del self._subscribers[name]

    async def refusal(self, bindings: Iterable[Binding], identity: Identity) -> str | None:
        """Why one of them cannot be served, in upstream's words. Raises psycopg.Error without a database."""
        for binding in bindings:
            if binding.error:
                return binding.error
            found = await self._catalog.published(binding.schema, binding.table)
            if not found:
                hint = "Please check Realtime is enabled for the given connect parameters"
                return f"{_REFUSED} {hint}: {binding.described()}"
            for table_id in found if binding.conditions or binding.select else ():
                if problem := await self._mismatch(binding, await self._catalog.table(table_id), identity):
                    hint = "An exception happened so please check your connect parameters"
                    return f"{_REFUSED} {hint}: {binding.described()}. Exception: {problem}"
        return None

    async def _mismatch(self, binding: Binding, table: Table, identity: Identity) -> str | None:
        readable = await self._catalog.readable(table, identity.role)
        if binding.select and (binding.schema is None or binding.table is None):
            return "ERROR P0001 (raise_exception) select needs an explicit schema and table"
        for column in binding.select or ():
            if column not in readable:
                return f"ERROR P0001 (raise_exception) invalid column for select {column}"
        for condition in binding.conditions:
            if condition.column not in readable:
                return f"ERROR P0001 (raise_exception) invalid column for filter {condition.column}"
            try:
                await self._tests.make(condition, table.types[condition.column])
            except psycopg.OperationalError:
                raise
            except psycopg.Error as error:
                return f"ERROR {error.sqlstate} {error.diag.message_primary}"
        return None

    async def consume(self, changes: Sequence[Change]) -> None:
        """Sends a batch out, in order. Raises psycopg.Error without a database: the batch is then lost."""
        events = [event for change in changes if (event := await self._event(change))]
        if not events:
            return
        await self._apply_filters(events)
        await self._make_json(events)
        await self._apply_policies(events)
        for event in events:
            await self._send(event)

    async def _event(self, change: Change) -> Event | None:
        schema, table = change.relation.schema, change.relation.name
        wanted = [
            subscriber
            for name in ((schema, table), (schema, None), (None, table), (None, None))
            for subscriber in self._subscribers.get(name, ())
            if subscriber[1].event in ("*", change.kind)
        ]
        if not wanted:
            return None
        event = Event(change, await self._catalog.of(change.relation), [])
        if not event.table.types:
            return None  # it was dropped meanwhile
        for channel, binding in wanted:
            barred = event.bars(await self._catalog.readable(event.table, channel.identity.role))
            (event.barred if barred else event.wanted).append((channel, binding))
        return event

    async def _apply_filters(self, events: Sequence[Event]) -> None:
        doubtful: list[tuple[Event, Subscriber, list[Question]]] = []
        for event in events:
            kept = []
            for subscriber in event.wanted:
                questions: list[Question] = []
                if await self._may_hold(subscriber[1], event.table, event.filtered, questions):
                    kept.append(subscriber)
                    if questions:
                        doubtful.append((event, subscriber, questions))
            event.wanted = kept
        asked = list({question: None for *_, questions in doubtful for question in questions})
        answers = dict(zip(asked, await ask(self._pool, asked), strict=True))
        for event, subscriber, questions in doubtful:
            if not all(answers[question] for question in questions):
                event.wanted.remove(subscriber)

    async def _may_hold(
        self, binding: Binding, table: Table, values: Texts, questions: list[Question]
    ) -> bool:
        """Do all conditions hold, as far as one can tell? `questions` gets what Postgres has to say."""
        for condition in binding.conditions:
            kind = table.types.get(condition.column)
            if kind is None or condition.column not in values:
                return False
            test, value = await self._tests.make(condition, kind), values[condition.column]
            if value is None and test.null is not None:
                holds = test.null
            elif value is not None and test.quick is not None:
                holds = test.quick(value)
            else:
                questions.append((test, value))
                continue
            if not holds:
                return False
        return True

    async def _make_json(self, events: Sequence[Event]) -> None:
        places = [place for event in events if event.wanted for place in event.open_values()]
        known = await ask_json(self._pool, (value for *_, value in places))
        for target, name, value in places:
            target[name] = known[value]

    async def _apply_policies(self, events: Sequence[Event]) -> None:
        """Takes away who may not see the row as it is now; one question a table for all subscribers."""
        # One may get a new token while the question is on its way: the answer is that of the old one.
        identities = {channel: channel.identity for event in events for channel, _ in event.wanted}
        asked: dict[int, dict[Identity, dict[tuple[str, ...], None]]] = {}
        for event in events:
            for channel, _ in event.wanted if event.checked else ():
                asked.setdefault(event.table.id, {}).setdefault(identities[channel], {})[event.key] = None
        visible: set[tuple[int, Identity, tuple[str, ...]]] = set()
        for table_id, keys_by_identity in asked.items():
            checks = [
                {"role": identity.role, "claims": identity.claims_json, "keys": [*keys]}
                for identity, keys in keys_by_identity.items()
            ]
            async with self._pool.connection() as connection:
                query = "select realtime.visible(%s::oid, %s::jsonb)"
                row = await (await connection.execute(query, (table_id, dumps(checks)))).fetchone()
            for (identity, keys), places in zip(keys_by_identity.items(), row[0] if row else (), strict=True):
                listed = [*keys]
                visible.update((table_id, identity, listed[place]) for place in places)
        for event in events:
            if event.checked:
                event.wanted = [
                    (channel, binding)
                    for channel, binding in event.wanted
                    if (event.table.id, identities[channel], event.key) in visible
                ]

    async def _send(self, event: Event) -> None:
        """One frame a channel, with the ids of all its bindings."""
        bindings: dict[Channel, list[Binding]] = defaultdict(list)
        for channel, binding in (*event.barred, *event.wanted):
            bindings[channel].append(binding)
        frames: dict[object, bytes] = {}
        for channel, matching in bindings.items():
            select = matching[0].select if len(matching) == 1 else None
            readable = await self._catalog.readable(event.table, channel.identity.role)
            ids = ",".join(str(binding.id) for binding in matching)
            name = (channel.connection.serializer, channel.address, ids, readable, select)
            if name not in frames:
                payload = f'{{"ids":[{ids}],"data":{event.data(readable, select)}}}'
                frames[name] = channel.connection.serializer.encode(
                    None, None, channel.address, "postgres_changes", payload
                )
            channel.connection.send(frames[name])
