"""The same rows through every door: payments, readers of each kind, and a judge of what they saw.

Writers change a table of payments and a view of it all the time. Readers note what a door showed
and the position that it said. Nobody is compared with anybody while the load runs: at the end the
facts are read from the log by a consumer and from the archive with their positions, folded here in
plain Python, and every note ever taken must be the fold up to its position. So a note from before a
kill counts as well: whatever was shown must still be there.
"""

import dataclasses
import datetime
import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from decimal import Decimal

import psycopg
import redis
import requests
from confluent_kafka import Consumer, Producer, TopicPartition
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import ServiceUnavailableError

from evert_server import Server
from postgres_server import Postgres
from redis_server import Redis

PARTITIONS = 3
KEYS = [f"p{number}" for number in range(240)]
MERCHANTS = [*(f"m:{number}" for number in range(7)), None]
SETUP = (
    "CREATE TABLE payments (payment_id text PRIMARY KEY, merchant_id text, amount numeric(12,2), status text,"
    f" paid_at timestamptz) WITH (topic = 'payments', format = 'json', partitions = {PARTITIONS})",
    "CREATE MATERIALIZED VIEW by_merchant AS"
    " SELECT merchant_id, count(*) AS n, sum(amount) AS total FROM payments GROUP BY merchant_id",
    "CREATE SEARCH INDEX payments_search ON payments (payment_id, merchant_id, amount, status, paid_at)",
    "CREATE SEARCH INDEX merchants_search ON by_merchant (merchant_id, n)",
    "CREATE ARCHIVE payments_archive ON payments TO 'payments' WITH (flush_interval = '200ms')",
)
ROWS = (
    "SELECT 'payments', payment_id, merchant_id, amount::text, status, paid_at::text FROM payments"
    " UNION ALL SELECT 'by_merchant', merchant_id, n::text, total::text, NULL, NULL FROM by_merchant"
)
# The query of docs/archive.md, up to a position.
CURRENT = """SELECT payment_id, merchant_id, amount::text, status, paid_at::text FROM (
    SELECT *, row_number() OVER (
        PARTITION BY payment_id ORDER BY evert_position DESC, kafka_partition DESC, kafka_offset DESC) AS n
    FROM payments_archive WHERE evert_position <= {}) AS facts
    WHERE n = 1 AND evert_op <> 'd'"""

# A relation's rows by key.
Rows = dict[str | None, tuple]


def create_sinks(server: Server, postgres: Postgres, cache: Redis) -> None:
    for relation in ("payments", "by_merchant"):
        server.query(
            f"CREATE SINK {relation}_postgres ON {relation} INTO POSTGRES '{postgres.url}'"
            f" TABLE {relation} WITH (create = 'on')"
        )
        server.query(f"CREATE SINK {relation}_redis ON {relation} INTO REDIS '{cache.url}' WITH (prefix = '{relation}/')")


def payment(key: str, merchant: str | None, amount, status: str | None, paid_at: str | None) -> tuple:
    """A payment as every door must show it, whatever its form of a number or a moment."""
    amount = None if amount is None else f"{Decimal(amount):.2f}"
    moment = None if paid_at is None else datetime.datetime.fromisoformat(paid_at)
    return (key, merchant, amount, status, moment)


def merchant(key: str | None, n, total) -> tuple:
    return (key, int(n), None if total is None else f"{Decimal(total):.2f}")


def by_key(relation: str, rows) -> Rows:
    made = [payment(*row) if relation == "payments" else merchant(*row[:3]) for row in rows]
    keyed = {row[0]: row for row in made}
    assert len(keyed) == len(made), f"{relation}: a key is there twice"
    return keyed


def by_fields(relation: str, rows) -> Rows:
    """Of rows that are dicts without their NULLs."""
    names = ("payment_id", "merchant_id", "amount", "status", "paid_at")
    if relation == "by_merchant":
        names = ("merchant_id", "n", "total")
    for row in rows:
        assert set(row) <= set(names), row
    return by_key(relation, [tuple(row.get(name) for name in names) for row in rows])


@dataclasses.dataclass
class Note:
    """What a door showed of one relation, and the position that it said."""

    door: str
    relation: str
    position: int
    rows: Rows


# Doors: each gives notes, of one position for all that one call reads.


class Sql:
    """Both relations in one statement, which reads one cut."""

    # A view is rebuilt beside the old one, which goes on.
    kinds: set[str] = set()

    def __init__(self, server: Server):
        self.connection = server.connect()

    def read(self, after: int) -> list[Note]:
        self.connection.execute(f"SET evert.after = {after}")
        rows = self.connection.execute(ROWS).fetchall()
        [(position,)] = self.connection.execute("SHOW POSITION").fetchall()
        return self.notes("SQL", int(position), rows)

    @staticmethod
    def notes(door: str, position: int, rows: list[tuple]) -> list[Note]:
        return [
            Note(door, relation, position, by_key(relation, [row[1:] for row in rows if row[0] == relation]))
            for relation in ("payments", "by_merchant")
        ]


class Past(Sql):
    """A position that was passed lately."""

    def read(self, after: int) -> list[Note]:
        [(now,)] = self.connection.execute("SELECT max(position) FROM evert.views WHERE kind = 'table'").fetchall()
        position = max(now - random.randrange(300), after)
        if position > now:
            self.connection.execute(f"WAIT FOR POSITION {position} TIMEOUT '20s'")
        rows = self.connection.execute(f"{ROWS} AS OF POSITION {position}").fetchall()
        return self.notes("SQL, AS OF", position, rows)


class ArchiveInSql(Sql):
    """What docs/archive.md says gives the current rows."""

    kinds = {"payments_archive"}

    def read(self, after: int) -> list[Note]:
        [(now,)] = self.connection.execute("SELECT position FROM evert.views WHERE name = 'payments_archive'").fetchall()
        position = max(now, after)
        self.connection.execute(f"SET evert.after = {position}")
        rows = self.connection.execute(CURRENT.format(position)).fetchall()
        return [Note("archive, SQL", "payments", position, by_key("payments", rows))]


class KeyValue:
    """Every key that there may be, between MULTI and EXEC; one time as hashes, one time as JSON."""

    kinds: set[str] = set()

    def __init__(self, server: Server):
        host, port = server.address("keyvalue")
        options = {"decode_responses": True, "socket_timeout": 30, "single_connection_client": True}
        self.client = redis.Redis(host=host, port=port, **options)
        self.json = False

    def read(self, after: int) -> list[Note]:
        self.json = not self.json
        command = "JSON.GET" if self.json else "HGETALL"
        self.client.execute_command("EVERT.AFTER", after, "TIMEOUT", 20_000)
        pipeline = self.client.pipeline(transaction=True)
        for key in KEYS:
            pipeline.execute_command(command, f"payments:{key}")
        for name in MERCHANTS:
            pipeline.execute_command(command, "by_merchant:" + ("\\N" if name is None else name))
        pipeline.execute_command("EVERT.POSITION")
        *answers, position = pipeline.execute()
        rows = [json.loads(answer) if self.json and answer else answer for answer in answers]
        # JSON says which are NULL.
        rows = [{name: value for name, value in row.items() if value is not None} for row in rows if row]
        payments = [row for row in rows if "payment_id" in row]
        merchants = [row for row in rows if "payment_id" not in row]
        return [
            Note(f"RESP, {command}", "payments", int(position), by_fields("payments", payments)),
            Note(f"RESP, {command}", "by_merchant", int(position), by_fields("by_merchant", merchants)),
        ]


def fetch(server: Server, path: str, after: int) -> tuple[int, dict]:
    headers = {"Evert-After": str(after), "Evert-Timeout": "20000"}
    request = urllib.request.Request(f"http://{server.http}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return int(response.headers["Evert-Position"]), json.loads(response.read())


def without_nulls(row: dict) -> dict:
    return {name: value for name, value in row.items() if value is not None}


class Http:
    kinds: set[str] = set()

    def __init__(self, server: Server):
        self.server = server

    def read(self, after: int) -> list[Note]:
        notes = []
        for relation in ("payments", "by_merchant"):
            position, page = fetch(self.server, f"/api/views/{relation}?limit=1000", after)
            rows = by_fields(relation, [without_nulls(row) for row in page["rows"]])
            notes.append(Note("HTTP", relation, position, rows))
        return notes


class Search:
    kinds = {"payments_search", "merchants_search"}

    def __init__(self, server: Server):
        self.server = server

    def read(self, after: int) -> list[Note]:
        notes = []
        for relation, index in (("payments", "payments_search"), ("by_merchant", "merchants_search")):
            position, found = fetch(self.server, f"/{index}/_search?size=10000", after)
            rows = by_fields(relation, [without_nulls(hit["_source"]) for hit in found["hits"]["hits"]])
            assert found["hits"]["total"]["value"] == len(rows)
            notes.append(Note("search", relation, position, rows))
        return notes


class Iceberg:
    """The facts of a snapshot, by the position that its summary says."""

    kinds = {"payments_archive"}

    def __init__(self, server: Server):
        self.catalog = RestCatalog("evert", uri=f"http://{server.http}/iceberg")

    def table(self):
        return self.catalog.load_table("public.payments_archive")

    def read(self, after: int) -> list[Note]:
        table = self.table()
        snapshot = table.current_snapshot()
        if snapshot is None:
            return []
        facts = archived(table)
        position = int(snapshot.summary.additional_properties["evert.position"])
        fold = Fold()
        for fact in facts:
            fold.take(fact)
        return [Note("archive, Iceberg", "payments", position, fold.rows)]


class PostgresSink:
    """Rows and mark in one of Postgres's snapshots."""

    kinds = {"payments_postgres", "by_merchant_postgres"}

    def __init__(self, postgres: Postgres):
        self.connection = postgres.connect()
        self.connection.execute("SET default_transaction_isolation = 'repeatable read'")

    def read(self, after: int) -> list[Note]:
        notes = []
        for relation in ("payments", "by_merchant"):
            with self.connection.transaction():
                mark = f"SELECT position FROM evert_sink_positions WHERE sink LIKE '%{relation}_postgres'"
                marks = self.connection.execute(mark).fetchall()
                names = "amount::text, status, paid_at::text" if relation == "payments" else "total::text"
                head = "payment_id, merchant_id" if relation == "payments" else "merchant_id, n"
                rows = self.connection.execute(f"SELECT {head}, {names} FROM {relation}").fetchall()
            if marks and marks[0][0] is not None:
                notes.append(Note("sink, Postgres", relation, marks[0][0], by_key(relation, rows)))
        return notes


class RedisSink:
    """Hashes and mark in one script."""

    kinds = {"payments_redis", "by_merchant_redis"}
    script = """
        local rows = {}
        for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '/*')) do
          local fields, row = redis.call('HGETALL', key), {}
          for i = 1, #fields, 2 do row[fields[i]] = fields[i + 1] end
          rows[#rows + 1] = row
        end
        return {redis.call('HGET', ARGV[2], 'position'), cjson.encode(rows)}"""

    def __init__(self, cache: Redis):
        self.client = redis.Redis.from_url(cache.url, decode_responses=True, socket_timeout=30)

    def read(self, after: int) -> list[Note]:
        notes = []
        for relation in ("payments", "by_merchant"):
            [mark] = self.client.keys(f"evert:sink:*{relation}_redis") or [""]
            position, rows = self.client.eval(self.script, 0, relation, mark)
            # While a copy is under way there is no position, and the rows are any.
            if position is not None:
                found = json.loads(rows) or []
                notes.append(Note("sink, Redis", relation, int(position), by_fields(relation, found)))
        return notes


def doors(server: Server, postgres: Postgres, cache: Redis) -> dict:
    """What each door reads of, and how it is opened."""
    return {
        "SQL": (Sql.kinds, lambda: Sql(server)),
        "SQL, AS OF": (Past.kinds, lambda: Past(server)),
        "RESP": (KeyValue.kinds, lambda: KeyValue(server)),
        "HTTP": (Http.kinds, lambda: Http(server)),
        "search": (Search.kinds, lambda: Search(server)),
        "archive, Iceberg": (Iceberg.kinds, lambda: Iceberg(server)),
        "archive, SQL": (ArchiveInSql.kinds, lambda: ArchiveInSql(server)),
        "sink, Postgres": (PostgresSink.kinds, lambda: PostgresSink(postgres)),
        "sink, Redis": (RedisSink.kinds, lambda: RedisSink(cache)),
    }


def is_down(error: Exception) -> bool:
    """Whether a reader may see this error while the server goes down and comes up."""
    match error:
        case psycopg.Error():
            # 55000: the archive was not opened yet.
            return error.sqlstate in (None, "57P03", "57P01") or "cannot be read yet" in str(error)
        case redis.exceptions.BusyLoadingError() | redis.exceptions.ConnectionError() | redis.exceptions.TimeoutError():
            return True
        case urllib.error.HTTPError():
            return error.code == 503
        case OSError() | http.client.HTTPException():
            return True
        case ServiceUnavailableError() | requests.RequestException():
            return True
    return False


class Reader(threading.Thread):
    """Reads one door again and again, and keeps its notes."""

    def __init__(self, name: str, opened, pause: float = 0.1):
        super().__init__(daemon=True, name=name)
        self.opened, self.pause = opened, pause
        self.stopping = threading.Event()
        self.notes: list[Note] = []
        self.down = 0
        # What it reads of was taken away.
        self.troubled = False
        self.wrong: str | None = None

    def run(self) -> None:
        door = None
        while not self.stopping.is_set():
            try:
                door = door or self.opened()
                self.notes.extend(door.read(0))
            except Exception as error:
                if not (self.troubled or is_down(error)):
                    self.wrong = f"{self.name}: {error!r} {error}"
                    return
                self.down += 1
                door = None
            self.stopping.wait(self.pause)

    def reached(self) -> int:
        return max((note.position for note in self.notes[-2:]), default=-1)

    def finish(self) -> list[Note]:
        self.stopping.set()
        self.join(timeout=60)
        assert not self.is_alive(), f"{self.name} hangs"
        assert self.wrong is None, self.wrong
        return self.notes


# Writers.


class Writer(threading.Thread):
    """Says facts until it is told to stop. Each value has a number of its own in its amount's place."""

    def __init__(self, server: Server, seed: int):
        super().__init__(daemon=True)
        self.server, self.random = server, random.Random(seed)
        self.stopping = threading.Event()
        self.acknowledged = 0
        self.wrong: str | None = None

    def values(self) -> tuple:
        chance = self.random
        amount = None if chance.random() < 0.05 else f"{chance.randrange(1, 100_000) / 100:.2f}"
        status = chance.choice(["captured", "failed", "refunded", None])
        moment = datetime.datetime.fromtimestamp(chance.randrange(1_700_000_000, 1_800_000_000), datetime.timezone.utc)
        moment = moment.replace(microsecond=chance.randrange(1_000_000))
        return chance.choice(MERCHANTS), amount, status, moment.isoformat()

    def finish(self) -> None:
        self.stopping.set()
        self.join(timeout=120)
        assert not self.is_alive(), "a writer hangs"
        assert self.wrong is None, self.wrong


class SqlWriter(Writer):
    """INSERT, UPDATE, DELETE, and transactions that give a payment another key."""

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with self.server.connect() as connection:
                    while not self.stopping.is_set():
                        self.write(connection)
                        self.acknowledged += 1
                        time.sleep(0.005)
            except psycopg.errors.SerializationFailure:
                continue
            except psycopg.Error as error:
                if not is_down(error):
                    self.wrong = f"{type(error).__name__} {error.sqlstate}: {error}"
                    return
                time.sleep(0.05)

    def write(self, connection: psycopg.Connection) -> None:
        old, new = self.random.sample(KEYS, 2)
        match self.random.randrange(10):
            case 0 | 1:
                connection.execute("DELETE FROM payments WHERE payment_id = %s", (old,))
            case 2 | 3:
                connection.execute("UPDATE payments SET amount = amount + 1, status = 'captured' WHERE payment_id = %s", (old,))
            case 4 | 5:
                with connection.transaction():
                    connection.execute("DELETE FROM payments WHERE payment_id = %s", (old,))
                    connection.execute("INSERT INTO payments VALUES (%s, %s, %s, %s, %s)", (new, *self.values()))
            case 6:
                rows = ", ".join(["(%s, %s, %s, %s, %s)"] * 20)
                rows_of = [value for key in self.random.sample(KEYS, 20) for value in (key, *self.values())]
                connection.execute(f"INSERT INTO payments VALUES {rows}", rows_of)
            case _:
                connection.execute("INSERT INTO payments VALUES (%s, %s, %s, %s, %s)", (old, *self.values()))


class KafkaWriter(Writer):
    """Records, tombstones, and now and then a value that cannot be read."""

    def __init__(self, server: Server, seed: int):
        super().__init__(server, seed)
        # By partition and offset: what was acknowledged to be there.
        self.said: dict[tuple[int, int], tuple[bytes, bytes | None]] = {}

    def run(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.server.kafka, "enable.idempotence": True, "linger.ms": 2,
                # A key's records lie where INSERT puts them.
                "partitioner": "murmur2_random", "message.timeout.ms": 120_000, "log_level": 2,
                "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 200,
            }
        )  # fmt: skip
        while not self.stopping.is_set():
            key = self.random.choice(KEYS).encode()
            value = self.value(key.decode())
            producer.produce("payments", key=key, value=value, on_delivery=self.note(key, value))
            producer.poll(0.005)
            # So many on their way are enough while the server is down.
            while len(producer) > 500 and not self.stopping.is_set():
                producer.poll(0.05)
        if producer.flush(100) and not self.wrong:
            self.wrong = "records were never acknowledged"

    def note(self, key: bytes, value: bytes | None):
        def done(error, message):
            if error is not None:
                self.wrong = str(error)
                return
            self.acknowledged += 1
            self.said[message.partition(), message.offset()] = (key, value)

        return done

    def value(self, key: str) -> bytes | None:
        kind = self.random.random()
        if kind < 0.25:
            return None
        merchant_id, amount, status, paid_at = self.values()
        row = {"payment_id": key, "merchant_id": merchant_id, "amount": amount, "status": status, "paid_at": paid_at}
        text = json.dumps(row).encode()
        return text[: len(text) // 2] if kind < 0.28 else text


# The judge.


def archived(table) -> list[dict]:
    """All facts of an archive, in the order of the log."""
    facts = table.scan().to_arrow().to_pylist()
    facts.sort(key=lambda fact: (fact["evert_position"], fact["kafka_partition"], fact["kafka_offset"]))
    return facts


class Fold:
    """The rows of a table, from its facts."""

    def __init__(self):
        self.rows: Rows = {}

    def take(self, fact: dict) -> None:
        key = fact["payment_id"]
        if fact["evert_op"] == "d":
            self.rows.pop(key, None)
        else:
            paid_at = fact["paid_at"] and fact["paid_at"].isoformat()
            self.rows[key] = payment(key, fact["merchant_id"], fact["amount"], fact["status"], paid_at)

    def of(self, relation: str) -> Rows:
        if relation == "payments":
            return self.rows
        groups: dict[str | None, list] = {}
        for row in self.rows.values():
            groups.setdefault(row[1], []).append(row[2])
        sums = {key: [Decimal(amount) for amount in group if amount is not None] for key, group in groups.items()}
        return {key: merchant(key, len(group), sum(sums[key]) if sums[key] else None) for key, group in groups.items()}


def judge(facts: list[dict], notes: list[Note]) -> None:
    """Each note must be the fold of the facts up to its position."""
    fold, taken = Fold(), 0
    wrong = []
    for note in sorted(notes, key=lambda note: note.position):
        while taken < len(facts) and facts[taken]["evert_position"] <= note.position:
            fold.take(facts[taken])
            taken += 1
        expected = fold.of(note.relation)
        if note.rows != expected:
            keys = [key for key in note.rows.keys() | expected.keys() if note.rows.get(key) != expected.get(key)]
            examples = [(note.rows.get(key), expected.get(key)) for key in keys[:3]]
            wrong.append(f"{note.door} at {note.position}: {len(keys)} rows of {note.relation} differ: {examples}")
    assert not wrong, f"{len(wrong)} of {len(notes)} notes are wrong: " + "\n".join(wrong[:10])


def check_facts(server: Server, facts: list[dict], writers: list[Writer]) -> None:
    """The archive holds what another implementation of Kafka reads, and all that was acknowledged."""
    consumer = Consumer({"bootstrap.servers": server.kafka, "group.id": "judge", "enable.auto.commit": False})
    said = {}
    for partition in range(PARTITIONS):
        place = TopicPartition("payments", partition)
        low, high = consumer.get_watermark_offsets(place, timeout=10)
        place.offset = low
        consumer.assign([place])
        count = high - low
        while count > 0:
            message = consumer.poll(10)
            assert message is not None and message.error() is None, message
            said[partition, message.offset()] = (message.key(), message.value())
            count -= 1
    consumer.close()
    for writer in writers:
        if isinstance(writer, KafkaWriter):
            lost = {place: fact for place, fact in writer.said.items() if said.get(place) != fact}
            assert not lost, f"{len(lost)} acknowledged records are not there: {list(lost.items())[:3]}"
    stored = {(fact["kafka_partition"], fact["kafka_offset"]): fact for fact in facts}
    assert len(stored) == len(facts), "a fact is archived twice"
    assert stored.keys() == said.keys(), f"{len(stored)} facts are archived of {len(said)}"
    for place, (key, value) in said.items():
        fact = stored[place]
        try:
            row = json.loads(value) if value else None
        except json.JSONDecodeError:
            row = None
        assert fact["payment_id"] == key.decode() and (fact["evert_op"] == "d") == (row is None), (place, fact, value)
        if row is not None:
            fold = Fold()
            fold.take(fact)
            assert fold.rows == {key.decode(): payment(*(row[name] for name in COLUMNS))}, (fact, value)


COLUMNS = ("payment_id", "merchant_id", "amount", "status", "paid_at")
