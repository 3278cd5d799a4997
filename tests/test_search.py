"""Full-text search: SQL, Elasticsearch's client, kills, damage, and how fresh it all is."""

import json
import shutil
import threading
import time
import urllib.error
import urllib.request

import psycopg
import pytest
from elasticsearch import BadRequestError, Elasticsearch, NotFoundError, helpers
from evert_server import wait_until

TABLE = (
    "CREATE TABLE payments (payment_id text PRIMARY KEY, email text, status text, amount numeric(12,2),"
    " card_last4 text, paid_at timestamptz)"
)
INDEX = (
    "CREATE SEARCH INDEX payments_search ON payments (email, payment_id, card_last4, status, amount, paid_at)"
    " WITH (status='keyword')"
)


@pytest.fixture
def server(new_server):
    return new_server().start()


@pytest.fixture
def client(server):
    with Elasticsearch(f"http://{server.http}", request_timeout=30) as client:
        yield client


def pay(server, first: int, count: int) -> None:
    statuses = ["captured", "failed", "pending"]
    people = ["riya.sharma@example.com", "arjun@shop.test", "meera rao"]
    rows = ", ".join(
        f"('pay_{i:05}', '{people[i % 3]}', '{statuses[i % 3 if i % 7 else 1]}', {i}.50, '{i % 10000:04}',"
        f" '2024-01-{i % 28 + 1:02} 10:00:00+00')"
        for i in range(first, first + count)
    )
    server.query(f"INSERT INTO payments VALUES {rows}")


def make(server, rows: int = 60) -> None:
    server.query(TABLE)
    pay(server, 0, rows)
    server.query(INDEX)


def rows_of(client, **search) -> dict[str, dict]:
    found = client.search(index="payments_search", size=10_000, **search)
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


def end_of(server) -> int:
    return int(server.query("SHOW POSITION")[0][0])


def as_in_sql(server) -> dict[str, dict]:
    columns = "payment_id, email, status, amount::text, card_last4"
    return {row[0]: row[1:] for row in server.query(f"SELECT {columns} FROM payments")}


def as_searched(client, position: int) -> dict[str, tuple]:
    answer = client.options(headers={"Evert-After": str(position)}).search(
        index="payments_search", size=10_000, query={"match_all": {}}
    )
    assert int(answer.meta.headers["Evert-Position"]) >= position
    sources = {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}
    return {
        key: (row["email"], row["status"], row["amount"], row["card_last4"]) for key, row in sources.items()
    }


def test_elasticsearch_s_client_reads(server, client):
    make(server)
    client.indices.refresh(index="payments_search")
    assert client.info()["tagline"] == "You Know, for Search"
    assert client.indices.exists(index="payments_search")
    assert client.count(index="payments_search")["count"] == 60

    found = client.search(
        index="payments_search",
        query={"bool": {"must": {"match": {"email": "riya.sharma"}}, "filter": {"term": {"status": "failed"}}}},
        sort=[{"amount": "desc"}],
        highlight={"fields": {"email": {}}},
        aggs={
            "by_day": {"date_histogram": {"field": "paid_at", "calendar_interval": "month"}},
            "by_status": {"terms": {"field": "status"}, "aggs": {"sum": {"sum": {"field": "amount"}}}},
        },
    )
    expected = sorted((i for i in range(60) if i % 3 == 0 and i % 7 == 0), reverse=True)
    assert [hit["_id"] for hit in found["hits"]["hits"]] == [f"pay_{i:05}" for i in expected]
    assert found["hits"]["total"] == {"value": len(expected), "relation": "eq"}
    assert found["hits"]["hits"][0]["highlight"]["email"] == ["<em>riya.sharma</em>@example.com"]
    assert found["aggregations"]["by_day"]["buckets"][0]["doc_count"] == len(expected)
    [bucket] = found["aggregations"]["by_status"]["buckets"]
    assert bucket["sum"]["value"] == sum(i + 0.5 for i in expected)

    mapping = client.indices.get_mapping(index="payments_search")
    fields = mapping["payments_search"]["mappings"]["properties"]
    assert fields["email"]["fields"]["keyword"]["type"] == "keyword" and fields["status"]["type"] == "keyword"
    assert client.get(index="payments_search", id="pay_00007")["_source"]["status"] == "failed"
    several = client.msearch(searches=[{"index": "payments_search"}, {"size": 1}, {"index": "nope"}, {}])
    assert several["responses"][0]["status"] == 200 and several["responses"][1]["status"] == 404
    [listed] = client.cat.indices(format="json")
    assert (listed["index"], listed["docs.count"], listed["health"]) == ("payments_search", "60", "green")
    server.query("CREATE SEARCH INDEX a_search ON payments (email)")
    client.indices.refresh(index="a_search")
    assert client.cat.indices(h="i,dc", s="index:desc").body == "payments_search 60\na_search        60\n"
    server.query("DROP SEARCH INDEX a_search")

    with pytest.raises(NotFoundError) as missing:
        client.search(index="nope")
    assert missing.value.error == "index_not_found_exception"
    with pytest.raises(BadRequestError) as wrong:
        client.search(index="payments_search", query={"nope": {}})
    assert wrong.value.error == "parsing_exception"
    with pytest.raises(Exception, match="follow the log"):
        client.index(index="payments_search", id="x", document={"a": 1})
    with pytest.raises(NotFoundError):
        client.get(index="payments_search", id="pay_99999")


def test_routes_and_media_types(server):
    make(server, 3)

    def get(path: str, accept: str | None = None):
        headers = {"Accept": accept} if accept else {}
        request = urllib.request.Request(f"http://{server.http}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.headers, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.loads(error.read())

    nine = "application/vnd.elasticsearch+json; compatible-with=9"
    for root in ("", "/es"):
        status, headers, body = get(f"{root}/payments_search/_search?q=riya.sharma&after={end_of(server)}", nine)
        assert (status, body["hits"]["total"]["value"]) == (200, 1)
        assert headers["X-Elastic-Product"] == "Elasticsearch"
        assert headers["Content-Type"] == "application/vnd.elasticsearch+json;compatible-with=9"
    assert get("/")[2]["name"] == "evert" and "links" in get("/")[2]
    assert get("/", nine)[2]["version"]["number"].startswith("8.")
    assert get("/es/")[2]["tagline"] == "You Know, for Search"
    assert get("/es/_nothing/at/all/there")[0] == 400
    assert get("/payments_search/_search?size=10001")[2]["error"]["type"] == "illegal_argument_exception"
    assert get("/healthz")[0] == 200, "the door's own words are not taken for indexes"


def test_words_of_a_url_are_acted_on_or_refused(server, client):
    make(server, 3)
    client.indices.refresh(index="payments_search")
    with pytest.raises(BadRequestError, match=r"\[scroll\] is not supported: .*\[search_after\]"):
        list(helpers.scan(client, index="payments_search"))

    def refused(path: str) -> str:
        with pytest.raises(BadRequestError) as error:
            client.perform_request("GET", path, headers={"accept": "application/json"})
        assert error.value.error == "illegal_argument_exception"
        return error.value.info["error"]["reason"]

    unknown = "request [{}] contains unrecognized parameter: [bogus]"
    for path in ("/payments_search/_search", "/_search", "/payments_search/_count", "/payments_search/_mapping",
                 "/payments_search/_doc/pay_00001", "/_cat/indices", "/_cat/indices/payments_search", "/payments_search"):
        assert refused(f"{path}?bogus=1&pretty") == unknown.format(path)
    several = "request [/payments_search/_count] contains unrecognized parameters: [from], [size]"
    assert refused("/payments_search/_count?size=1&from=1") == several
    assert "[search_after]" not in refused("/payments_search/_search?stored_fields=email")

    found = client.search(
        index="payments_search", q="riya.sharma", routing="1", preference="_local", request_cache=True,
        ignore_unavailable=True, filter_path="hits.hits._id,hits.total",
    )
    assert found.body == {"hits": {"hits": [{"_id": "pay_00000"}], "total": {"value": 1, "relation": "eq"}}}
    assert client.count(index="payments_search", filter_path="-_shards").body == {"count": 3}


def test_sql_joins_what_is_found(server):
    make(server)
    with server.connect() as connection:
        # A session finds what it has just written.
        connection.execute("INSERT INTO payments VALUES ('new', 'zoya khan', 'failed', 1, '4242', now())")
        found = connection.execute("SELECT payment_id, score FROM search('payments_search', 'zoya')").fetchall()
        assert found[0][0] == "new" and found[0][1] > 0
        query = "status:failed AND riya.sharma"
        rows = connection.execute(
            "SELECT payment_id, p.amount, s.score FROM search('payments_search', %s) s"
            " JOIN payments p USING (payment_id) WHERE p.amount > %s ORDER BY s.score DESC, payment_id LIMIT 3",
            (query, -1),
        ).fetchall()
        assert [row[0] for row in rows] == ["pay_00000", "pay_00021", "pay_00042"]
        with pytest.raises(psycopg.errors.NullValueNotAllowed):
            connection.execute("SELECT * FROM search('payments_search', %s)", (None,))
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM search('nope', 'x')")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="Failed to parse query"):
            connection.execute("SELECT * FROM search('payments_search', '(riya')")


def test_updates_deletes_and_views_are_followed(server, client):
    make(server)
    server.query("CREATE MATERIALIZED VIEW per_person AS SELECT email, count(*) AS n FROM payments GROUP BY email")
    server.query("CREATE SEARCH INDEX people ON per_person (email, n)")
    server.query("UPDATE payments SET status = 'refunded' WHERE payment_id < 'pay_00010'")
    server.query("DELETE FROM payments WHERE payment_id >= 'pay_00050'")
    server.query("DELETE FROM payments WHERE email = 'meera rao'")
    assert as_searched(client, end_of(server)) == as_in_sql(server)
    there = client.options(headers={"Evert-After": str(end_of(server))})
    people = there.search(index="people", query={"range": {"n": {"gte": 1}}}, sort=["email.keyword"])
    assert [hit["_id"] for hit in people["hits"]["hits"]] == ["arjun@shop.test", "riya.sharma@example.com"]
    server.verify("payments_search")
    server.verify("people")


def test_a_stream_s_equal_rows_are_all_there(server, client):
    server.query("CREATE STREAM clicks (page text)")
    server.query("CREATE SEARCH INDEX clicks_search ON clicks (page)")
    for _ in range(3):
        server.query("INSERT INTO clicks VALUES ('home page'), ('home page'), ('about')")
    client.indices.refresh(index="clicks_search")
    assert client.count(index="clicks_search", query={"match": {"page": "home"}})["count"] == 6
    assert client.count(index="clicks_search")["count"] == 9
    server.verify("clicks_search")


def test_kills_at_any_moment_lose_and_repeat_nothing(server, client):
    make(server, 10)
    stop = threading.Event()

    def write():
        number = 10
        while not stop.is_set():
            try:
                with server.connect() as connection:
                    while not stop.is_set():
                        connection.execute(
                            f"INSERT INTO payments VALUES ('pay_{number:05}', 'p{number} x', 'failed', {number}, '1', now())"
                        )
                        connection.execute(f"DELETE FROM payments WHERE payment_id = 'pay_{number - 5:05}'")
                        number += 1
            except (psycopg.Error, OSError):
                time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for pause in (0.7, 1.1, 0.4):
            time.sleep(pause)
            server.kill9()
            server.start()
    finally:
        stop.set()
        writer.join()
    assert as_searched(client, end_of(server)) == as_in_sql(server)
    server.verify("payments_search")


def test_a_lost_or_damaged_directory_comes_back(server, client):
    make(server)
    as_searched(client, end_of(server))
    outlets = server.data / "outlets"
    [directory] = outlets.iterdir()

    # Deleted under a running server: that index is built anew, and nothing else notices.
    shutil.rmtree(directory)
    server.query("INSERT INTO payments VALUES ('after', 'riya again', 'failed', 1, '1', now())")
    assert len(server.query("SELECT * FROM payments")) == 61
    wait_until(lambda: (directory / "meta.json").exists(), 20, "the index is there again")
    assert as_searched(client, end_of(server)) == as_in_sql(server)

    # Damaged while the server was down.
    server.terminate()
    store = max(directory.glob("*.store"), key=lambda path: path.stat().st_size)
    content = bytearray(store.read_bytes())
    content[len(content) // 3] ^= 0xFF
    store.write_bytes(content)
    server.start()
    assert as_searched(client, end_of(server)) == as_in_sql(server)
    assert "built anew" in server.log()

    server.query("REBUILD VIEW payments_search")
    assert as_searched(client, end_of(server)) == as_in_sql(server)
    server.query("DROP SEARCH INDEX payments_search")
    wait_until(lambda: not directory.exists(), 10, "a dropped index leaves nothing behind")
    with pytest.raises(NotFoundError):
        client.search(index="payments_search")


def test_it_stays_within_a_second(server, client):
    make(server, 1)
    stop = threading.Event()

    def write():
        with server.connect() as connection:
            first = 1
            while not stop.is_set():
                values = ", ".join(f"('w{i}', 'someone else', 'failed', 1, '1', now())" for i in range(first, first + 50))
                connection.execute(f"INSERT INTO payments VALUES {values}")
                first += 50
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    late = []
    try:
        for number in range(6):
            server.query(f"INSERT INTO payments VALUES ('seen{number}', 'marker{number}', 'failed', 1, '1', now())")
            begin = time.monotonic()
            found = lambda: client.count(index="payments_search", query={"match": {"email": f"marker{number}"}})["count"]
            wait_until(found, 20, "what was written is found", pause=0.02)
            late.append(time.monotonic() - begin)
    finally:
        stop.set()
        writer.join()
    # A second, and room for a machine that does other things as well.
    assert sorted(late)[len(late) // 2] < 2.0, late


def test_an_index_says_what_it_cannot(server, client):
    make(server)
    with psycopg.connect(server.dsn, autocommit=True) as session:
        for name in ('"es"', "api", "_foo", '"A B"', '"a,b"'):
            with pytest.raises(psycopg.Error, match="cannot be the name of a search index"):
                session.execute(f"CREATE SEARCH INDEX {name} ON payments (email)")
        session.execute("SET evert.after = '{}'".format(end_of(server)))
        found = "SELECT count(*) FROM search('payments_search', '*')"
        assert session.execute(found).fetchone() == (60,)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="AS OF for search index"):
            session.execute(f"{found} AS OF POSITION {end_of(server)}")
        with pytest.raises(psycopg.errors.WrongObjectType, match="is a search index") as refused:
            session.execute("SELECT * FROM payments_search")
        assert "search('payments_search', 'words')" in refused.value.diag.message_hint
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="anything but a view"):
            session.execute("CREATE OR REPLACE SEARCH INDEX s ON payments (email)")
        # What stands still is not waited for.
        tag = session.execute("PAUSE SEARCH INDEX payments_search").statusmessage
        assert tag == "PAUSE SEARCH INDEX"
        state = "SELECT state, rows FROM evert.views WHERE name = 'payments_search'"
        assert session.execute(state).fetchone() == ("paused", 60)
        session.execute("INSERT INTO payments VALUES ('new', 'x@y.z', 'failed', 1, '1', now())")
        began = time.monotonic()
        with pytest.raises(psycopg.Error, match="is paused at position"):
            session.execute(found)
        session.execute("RESUME SEARCH INDEX payments_search")
        session.execute("CREATE MATERIALIZED VIEW v AS SELECT payment_id, status FROM payments")
        session.execute("CREATE SEARCH INDEX vs ON v (status)")
        session.execute("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT payment_id FROM payments")
        with pytest.raises(psycopg.Error, match="has other columns now"):
            session.execute("SELECT count(*) FROM search('vs', '*')")
        for call in ("_search", "_count"):
            status, body = server.get(f"/vs/{call}")
            error = json.loads(body)["error"]
            assert (status, error["type"]) == (503, "no_shard_available_action_exception")
            assert "has other columns now" in error["reason"]
        assert time.monotonic() - began < 10


@pytest.fixture
def shop(server, client):
    """Orders o0 to o11, one a month, with numbers in arrays; beside them others, of 200 labels in all."""
    server.query("CREATE TABLE orders (id text PRIMARY KEY, kind text, label text, nums bigint[], paid timestamptz)")
    rows = ", ".join(
        f"('o{i}', '{'abbccc'[i % 6]}', 'l{i % 200}', ARRAY[{i}, {100 - 3 * i}, 1],"
        f" '2024-{i + 1:02}-05 00:00:00+00')"
        for i in range(12)
    )
    server.query(f"INSERT INTO orders VALUES {rows}")
    many = ", ".join(f"('x{i}', 'x', 'l{i % 200}', NULL, NULL)" for i in range(400))
    server.query(f"INSERT INTO orders VALUES {many}")
    server.query("CREATE SEARCH INDEX orders_search ON orders (kind, label, nums, paid) WITH (kind='keyword', label='keyword')")
    client.indices.refresh(index="orders_search")

    def search(**body):
        return client.search(index="orders_search", **body)

    return search


def buckets_of(search, kind: str, **options):
    query = {"exists": {"field": "paid"}}
    return search(size=0, query=query, aggs={"a": {kind: options}})["aggregations"]["a"]["buckets"]


def refusal_of(search, **body) -> str:
    with pytest.raises(BadRequestError) as refused:
        search(**body)
    return refused.value.info["error"]["reason"]


def test_buckets_are_in_the_order_and_bounds_asked_for(shop):
    quarter = {"field": "paid", "calendar_interval": "quarter", "format": "yyyy-MM"}
    keyed = buckets_of(shop, "date_histogram", **quarter, keyed=True)
    assert {name: bucket["doc_count"] for name, bucket in keyed.items()} == {
        "2024-01": 3, "2024-04": 3, "2024-07": 3, "2024-10": 3}
    assert keyed["2024-04"]["key_as_string"] == "2024-04" and isinstance(keyed["2024-04"]["key"], int)
    bounds = {"min": "2023-08-15", "max": "2025-01"}
    extended = buckets_of(shop, "date_histogram", **quarter, extended_bounds=bounds, order={"_key": "desc"})
    assert [(bucket["key_as_string"], bucket["doc_count"]) for bucket in extended] == [
        ("2025-01", 0), ("2024-10", 3), ("2024-07", 3), ("2024-04", 3), ("2024-01", 3), ("2023-10", 0), ("2023-07", 0)]
    assert len(buckets_of(shop, "date_histogram", **quarter, extended_bounds=bounds, min_doc_count=1)) == 4
    days = buckets_of(shop, "date_histogram", field="paid", fixed_interval="90d", min_doc_count=1, order={"_key": "desc"})
    assert [bucket["key"] for bucket in days] == sorted((bucket["key"] for bucket in days), reverse=True)
    steps = buckets_of(shop, "histogram", field="nums", interval=50, order=[{"_count": "asc"}, {"_key": "desc"}])
    counts = [(bucket["doc_count"], -bucket["key"]) for bucket in steps]
    assert len(counts) > 1 and counts == sorted(counts)

    def terms(order) -> list[str]:
        return [bucket["key"] for bucket in buckets_of(shop, "terms", field="label", size=3, order=order)]

    assert terms([{"_count": "desc"}, {"_key": "desc"}]) == ["l9", "l8", "l7"]
    assert terms([{"_count": "desc"}]) == terms({"_count": "asc"}) == ["l0", "l1", "l10"]
    by_kind = buckets_of(shop, "terms", field="kind", order={"_count": "asc"}, shard_size=50)
    assert [(bucket["key"], bucket["doc_count"]) for bucket in by_kind] == [("a", 2), ("b", 4), ("c", 6)]
    found = shop(size=0, aggs={"n": {"cardinality": {"field": "label", "precision_threshold": 100}},
                               "by": {"terms": {"field": "kind"}, "aggs": {"n": {"cardinality": {"field": "label"}}}}})
    assert found["aggregations"]["n"]["value"] == 200
    assert {it["key"]: it["n"]["value"] for it in found["aggregations"]["by"]["buckets"]} == {"x": 200, "a": 2, "b": 4, "c": 6}


def test_what_would_change_the_answer_is_refused_by_name(shop):
    month = {"field": "paid", "calendar_interval": "month"}
    cases = [
        ("terms", {"field": "kind", "foo": 1}, "[terms] unknown field [foo]"),
        ("terms", {"field": "kind", "order": {"_count": "up"}}, "Unknown order direction [up]"),
        ("terms", {"field": "nums", "format": "0.0"}, "does not support custom formats"),
        ("avg", {"field": "nums", "script": {}}, "[avg] unknown field [script]"),
        ("cardinality", {"field": "kind", "foo": 1}, "[cardinality] unknown field [foo]"),
        ("filters", {"filters": {}, "foo": 1}, "[filters] unknown field [foo]"),
        ("global", {"field": "kind"}, "[global] unknown field [field]"),
        ("range", {"field": "nums", "ranges": [{"from": 1, "until": 2}]}, "[range] unknown field [until]"),
        ("histogram", {"field": "nums", "interval": 5, "missing": 1}, "[histogram] unknown field [missing]"),
        ("histogram", {"field": "nums", "interval": 5, "order": {"m": "asc"}}, "does not support [order] by [m]"),
        ("date_histogram", {**month, "hard_bounds": {"min": "2024"}}, "[hard_bounds]"),
        ("date_histogram", {**month, "offset": "1d"}, "[offset]"),
        ("date_histogram", {**month, "missing": "2024"}, "[date_histogram] unknown field [missing]"),
    ]
    for kind, options, expected in cases:
        assert expected in refusal_of(shop, aggs={"a": {kind: options}}), (kind, options)
    sorts = [
        ({"nums": {"mode": "middle"}}, "Unknown SortMode [middle]"),
        ({"kind": {"mode": "avg"}}, "AVG, MEDIAN and SUM on number based fields"),
        ({"nums": {"nested": {"path": "n"}}}, "does not support [nested]"),
        ({"nums": {"foo": 1}}, "unknown field [foo]"),
        ({"nums": {"format": "0.0"}}, "[format]"),
        ({"paid": {"numeric_type": "double"}}, "[numeric_type]"),
    ]
    for sort, expected in sorts:
        assert expected in refusal_of(shop, sort=[sort]), sort
    assert "yyyy" in refusal_of(shop, fields=[{"field": "paid", "format": "yyyy"}])
    assert "[fields] unknown field [foo]" in refusal_of(shop, fields=[{"field": "paid", "foo": 1}])
    day = {"gte": "05/02/2024", "format": "dd/MM/yyyy"}
    assert "[format] [dd/MM/yyyy]" in refusal_of(shop, query={"range": {"paid": day}})


def test_modes_and_formats_are_followed(shop):
    def by(mode: str, order: str) -> list:
        sort = [{"nums": {"order": order, "mode": mode}}]
        hits = shop(size=3, query={"exists": {"field": "paid"}}, sort=sort)["hits"]["hits"]
        return [(hit["_id"], hit["sort"]) for hit in hits]

    numbers = {f"o{i}": sorted([i, 100 - 3 * i, 1]) for i in range(12)}
    # Java's rounding: halves go up.
    number_of = {"min": min, "max": max, "sum": sum, "avg": lambda of: int(sum(of) / 3 + 0.5), "median": lambda of: of[1]}
    for mode, number in number_of.items():
        for order in ("asc", "desc"):
            expected = sorted((number(of) for of in numbers.values()), reverse=order == "desc")[:3]
            found = by(mode, order)
            assert [values[0] for _, values in found] == expected, (mode, order)
            assert all(number(numbers[key]) == values[0] for key, values in found)

    def found(**ends) -> int:
        return shop(query={"range": {"paid": ends}})["hits"]["total"]["value"]

    assert found(gte=2024, lt=2025, format="yyyy") == found(gte="2024", format="strict_date_optional_time||epoch_millis") == 12
    assert found(gte="2024-03-05", lt="2024-04", format="yyyy-MM-dd||yyyy-MM") == 1
    assert found(gte=1_704_412_800, lte=1_704_412_800, format="epoch_second") == 1
    hit = shop(query={"ids": {"values": ["o0"]}}, fields=[{"field": "paid", "format": "strict_date_optional_time"}])
    assert hit["hits"]["hits"][0]["fields"]["paid"][0].startswith("2024-01-05")


def test_a_header_waits_as_the_parameter_does(server, client):
    make(server, 3)
    client.indices.refresh(index="payments_search")
    assert str(client.cat.indices(h="index,docs.deleted")).split() == ["payments_search", "0"]
    url, far = f"http://{server.http}/payments_search/_search", str(end_of(server) + 1000)
    after = {"Evert-After": far, "Evert-Timeout": "200"}
    for wanted, headers in ((url, after), (f"{url}?after={far}", {"Evert-Timeout": "200"})):
        with pytest.raises(urllib.error.HTTPError) as late:
            urllib.request.urlopen(urllib.request.Request(wanted, headers=headers))
        error = json.load(late.value)
        assert (late.value.code, error["error"]["type"]) == (504, "timeout_exception")
    with pytest.raises(urllib.error.HTTPError) as wrong:
        urllib.request.urlopen(urllib.request.Request(url, headers={"Evert-After": "soon"}))
    error = json.load(wrong.value)
    assert (wrong.value.code, error["error"]["type"]) == (400, "illegal_argument_exception")
