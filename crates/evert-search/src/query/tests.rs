use serde_json::{Value, json};

use crate::fixture::{Fixture, ids};

#[test]
fn queries_find_what_elasticsearch_finds() {
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({ "match_all": {} }), &["p1", "p2", "p3", "p4", "p5", "p6"]),
        (json!({ "match": { "email": "RIYA" } }), &["p6"]),
        (json!({ "match": { "email": "riya.sharma" } }), &["p1", "p2"]),
        (json!({ "match": { "email": "meera payment" } }), &["p3", "p4", "p5"]),
        (
            json!({ "match": { "email": { "query": "meera rao", "operator": "and" } } }),
            &["p4", "p5"],
        ),
        (json!({ "match": { "email": { "query": "meara", "fuzziness": "AUTO" } } }), &["p4", "p5"]),
        (
            json!({ "match": { "email": { "query": "failed twice xyz", "minimum_should_match": 2 } } }),
            &["p3"],
        ),
        (json!({ "match": { "status": "failed" } }), &["p1", "p3"]),
        (json!({ "match": { "attempts": "3" } }), &["p3"]),
        (json!({ "match": { "nothing": "x" } }), &[]),
        (json!({ "match_phrase": { "email": "meera rao" } }), &["p4"]),
        (json!({ "match_phrase": { "email": { "query": "payment twice", "slop": 1 } } }), &["p3"]),
        (json!({ "match_phrase_prefix": { "email": "payment fa" } }), &["p3"]),
        (
            json!({ "multi_match": { "query": "failed", "fields": ["email", "status^2"] } }),
            &["p1", "p3"],
        ),
        (json!({ "multi_match": { "query": "failed" } }), &["p1", "p3"]),
        (
            json!({ "multi_match": { "query": "meera captured", "fields": ["email", "status"], "type": "cross_fields", "operator": "and" } }),
            &["p4"],
        ),
        (json!({ "term": { "status": "captured" } }), &["p2", "p4", "p6"]),
        (json!({ "term": { "email.keyword": "meera rao" } }), &["p4"]),
        (
            json!({ "term": { "status": { "value": "CAPTURED", "case_insensitive": true } } }),
            &["p2", "p4", "p6"],
        ),
        (json!({ "term": { "live": false } }), &["p4", "p6"]),
        (json!({ "term": { "amount": 12.5 } }), &["p1", "p6"]),
        (json!({ "term": { "_id": "p3" } }), &["p3"]),
        (json!({ "terms": { "status": ["failed", "pending"] } }), &["p1", "p3", "p5"]),
        (json!({ "terms": { "attempts": [1, "2", 7] } }), &["p1", "p2"]),
        (json!({ "ids": { "values": ["p2", "p9"] } }), &["p2"]),
        (json!({ "range": { "amount": { "gte": 12.5, "lt": 1000 } } }), &["p1", "p2", "p6"]),
        (json!({ "range": { "attempts": { "gt": 1.5, "lte": 3 } } }), &["p2", "p3"]),
        (
            json!({ "range": { "paid_at": { "gte": "2024-02-01", "lte": "2024-02" } } }),
            &["p3", "p4"],
        ),
        (json!({ "range": { "paid_at": { "gt": "2024-02-29" } } }), &["p5", "p6"]),
        (json!({ "range": { "paid_at": { "gte": "now-1M/M" } } }), &["p5", "p6"]),
        (
            json!({ "range": { "paid_at": { "gte": "2024-01-15T10:00:00.123456Z", "lte": "2024-01-15T10:00:00.123456Z" } } }),
            &["p1"],
        ),
        (
            json!({ "range": { "paid_at": { "gte": "2024-04-01", "time_zone": "+05:30" } } }),
            &["p6"],
        ),
        (json!({ "range": { "status": { "gte": "d", "lt": "g" } } }), &["p1", "p3"]),
        (json!({ "prefix": { "status": "capt" } }), &["p2", "p4", "p6"]),
        (json!({ "wildcard": { "email.keyword": "riya*@*.com" } }), &["p1", "p2"]),
        (
            json!({ "wildcard": { "status": { "value": "?ENDING", "case_insensitive": true } } }),
            &["p5"],
        ),
        (json!({ "regexp": { "status": "fail(ed)?|pend.*" } }), &["p1", "p3", "p5"]),
        (json!({ "fuzzy": { "status": "faild" } }), &["p1", "p3"]),
        (json!({ "exists": { "field": "attempts" } }), &["p1", "p2", "p3", "p5", "p6"]),
        (json!({ "exists": { "field": "email" } }), &["p1", "p2", "p3", "p4", "p5", "p6"]),
        (
            json!({ "bool": { "must": { "term": { "status": "captured" } }, "must_not": [{ "term": { "live": false } }] } }),
            &["p2"],
        ),
        (
            json!({ "bool": { "must_not": { "term": { "status": "captured" } } } }),
            &["p1", "p3", "p5"],
        ),
        (
            json!({ "bool": { "filter": { "term": { "live": true } }, "should": { "term": { "status": "failed" } } } }),
            &["p1", "p2", "p3", "p5"],
        ),
        (
            json!({ "bool": { "should": [{ "term": { "status": "failed" } }, { "term": { "live": true } }], "minimum_should_match": "100%" } }),
            &["p1", "p3"],
        ),
        (json!({ "constant_score": { "filter": { "term": { "status": "pending" } } } }), &["p5"]),
        (
            json!({ "dis_max": { "queries": [{ "term": { "status": "pending" } }, { "match": { "email": "kapoor" } }] } }),
            &["p5", "p6"],
        ),
        (json!({ "query_string": { "query": "riya.sharma failed" } }), &["p1", "p2", "p3"]),
        (json!({ "query_string": { "query": "riya.sharma AND failed" } }), &["p1"]),
        (
            json!({ "query_string": { "query": "status:(failed OR pending) AND NOT attempts:1" } }),
            &["p3", "p5"],
        ),
        (
            json!({ "query_string": { "query": "paid_at:[2024-03 TO *] amount:<1", "default_operator": "AND" } }),
            &["p5"],
        ),
        (json!({ "query_string": { "query": "_exists_:attempts AND status:c*" } }), &["p2", "p6"]),
        (json!({ "query_string": { "query": "RIY*" } }), &["p1", "p2", "p6"]),
        (json!({ "query_string": { "query": "meara~", "fields": ["email"] } }), &["p4", "p5"]),
        (
            json!({ "simple_query_string": { "query": "meera + -pending ((", "fields": ["email", "status"] } }),
            &["p4"],
        ),
        (json!({ "simple_query_string": { "query": "\"meera rao\" | kap*" } }), &["p4", "p6"]),
    ];
    let index = Fixture::new();
    for (query, expected) in cases {
        assert_eq!(index.ids(&query), expected, "{query}");
    }
}

#[test]
fn each_element_of_an_array_is_a_value() {
    let fixture = Fixture::new();
    let cases: [(Value, &[&str]); 6] = [
        (json!({ "match": { "tags": "lounge p1" } }), &["p1", "p3", "p5", "p6"]),
        (json!({ "term": { "tags.keyword": "vip lounge" } }), &["p3", "p5", "p6"]),
        (json!({ "match_phrase": { "tags": "p3 vip" } }), &[]),
        (json!({ "term": { "parts": 499 } }), &["p3"]),
        (json!({ "range": { "parts": { "gt": 1, "lt": 500 } } }), &["p3", "p5"]),
        (json!({ "exists": { "field": "tags" } }), &["p1", "p2", "p3", "p4", "p5", "p6"]),
    ];
    for (query, expected) in cases {
        assert_eq!(fixture.ids(&query), expected, "{query}");
    }
    let sorted =
        |order: &str| ids(&fixture.search(&json!({ "sort": [{ "parts": order }, "_id"] })));
    assert_eq!(sorted("asc"), ["p1", "p2", "p3", "p4", "p5", "p6"], "the least is 1 in each");
    assert_eq!(sorted("desc"), ["p4", "p2", "p1", "p6", "p3", "p5"]);
    let answer = fixture.search(&json!({
        "query": { "match": { "tags": "lounge" } },
        "sort": "_id",
        "highlight": { "fields": { "tags": {} } },
        "aggs": { "tags": { "terms": { "field": "tags.keyword", "size": 1 } } }
    }));
    let first = &answer["hits"]["hits"][0];
    assert_eq!(first["_source"]["tags"], json!(["of p3", null, "vip lounge"]));
    assert_eq!(first["highlight"]["tags"], json!(["vip <em>lounge</em>"]));
    let bucket = &answer["aggregations"]["tags"]["buckets"][0];
    assert_eq!(bucket, &json!({ "key": "vip lounge", "doc_count": 3 }));
}

#[test]
fn better_hits_come_first() {
    let index = Fixture::new();
    let answer = index.search(&json!({ "query": { "bool": {
        "must": { "match": { "email": "riya.sharma" } },
        "should": { "constant_score": { "filter": { "term": { "status": "captured" } }, "boost": 5 } } } } }));
    assert_eq!(ids(&answer), ["p2", "p1"]);
    let score = |at: usize| answer["hits"]["hits"][at]["_score"].as_f64().unwrap();
    assert!(score(0) > score(1) + 4.0);
    assert_eq!(answer["hits"]["max_score"].as_f64(), Some(score(0)));
    let zero = index.search(&json!({ "query": { "bool": { "filter": { "match_all": {} } } } }));
    assert_eq!(zero["hits"]["hits"][0]["_score"], 0.0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut deep = json!({ "match_all": {} });
    for _ in 0..25 {
        deep = json!({ "bool": { "must": deep } });
    }
    let many: Vec<_> = (0..1100).map(|i| json!({ "term": { "status": i.to_string() } })).collect();
    let cases = [
        (json!({ "nope": {} }), "unknown query [nope]"),
        (json!({ "match": {} }), "names no field"),
        (json!({ "match": { "a": "x", "b": "y" } }), "doesn't support multiple fields"),
        (json!({ "match": { "email": { "query": "x", "slop": 1 } } }), "does not support [slop]"),
        (json!({ "match": { "attempts": "many" } }), "is not a value of field [attempts]"),
        (json!({ "term": { "status": ["a"] } }), "unknown token [START_ARRAY]"),
        (json!({ "range": { "paid_at": { "gte": "soon" } } }), "failed to parse date"),
        (json!({ "prefix": { "amount": "1" } }), "Can only use prefix queries on keyword and text"),
        (json!({ "query_string": { "query": "(riya" } }), "Failed to parse query"),
        (json!({ "regexp": { "status": "(" } }), "invalid regular expression"),
        (json!({ "match_all": {}, "term": {} }), "malformed query"),
        (deep, "nested deeper"),
        (json!({ "bool": { "should": many } }), "maxClauseCount"),
    ];
    let index = Fixture::new();
    for (query, expected) in cases {
        let (status, reason) = index.refusal(&json!({ "query": query }));
        assert_eq!(status, 400);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn hits_are_sorted_and_paged_by_columns() {
    let index = Fixture::new();
    let by = |sort: Value| ids(&index.search(&json!({ "sort": sort })));
    assert_eq!(by(json!([{ "attempts": "desc" }])), ["p6", "p5", "p3", "p2", "p1", "p4"]);
    let first = json!([{ "attempts": { "order": "asc", "missing": "_first" } }]);
    assert_eq!(by(first), ["p4", "p1", "p2", "p3", "p5", "p6"]);
    assert_eq!(by(json!(["status", { "paid_at": "desc" }])), ["p6", "p4", "p2", "p3", "p1", "p5"]);
    assert_eq!(by(json!("email.keyword")), ["p6", "p3", "p4", "p5", "p1", "p2"]);
    let (status, reason) = index.refusal(&json!({ "sort": "email" }));
    assert!(status == 400 && reason.contains("Fielddata is disabled"), "{reason}");
    let (_, reason) = index.refusal(&json!({ "sort": "nope" }));
    assert!(reason.contains("No mapping found for [nope]"), "{reason}");
}

#[test]
fn search_after_goes_through_all_hits_once() {
    let index = Fixture::new();
    let sorts = [
        json!([{ "amount": "desc" }, "_id"]),
        json!(["status", { "_id": "desc" }]),
        json!([{ "paid_at": "asc" }, { "attempts": "asc" }]),
        json!([{ "live": "asc" }, { "email.keyword": "desc" }, "_id"]),
        json!([{ "attempts": { "order": "desc", "missing": "_first" } }, "_id"]),
    ];
    for sort in sorts {
        let whole = ids(&index.search(&json!({ "sort": sort })));
        let mut paged = Vec::new();
        let mut after = Value::Null;
        loop {
            let mut body = json!({ "sort": sort, "size": 1 });
            if !after.is_null() {
                body["search_after"] = after;
            }
            let answer = index.search(&body);
            let Some(hit) = answer["hits"]["hits"].get(0) else { break };
            paged.push(hit["_id"].as_str().unwrap().to_owned());
            after = hit["sort"].clone();
        }
        assert_eq!(paged, whole, "{sort}");
    }
}

#[test]
fn answers_have_elasticsearch_s_shape() {
    let index = Fixture::new();
    let answer = index.search(&json!({
        "query": { "match": { "email": "riya.sharma" } },
        "from": 1, "size": 1, "_source": ["status", "amount"], "track_total_hits": 1,
        "highlight": { "fields": { "email": {} } }, "fields": ["paid_at"],
    }));
    assert_eq!(answer["timed_out"], false);
    assert_eq!(answer["_shards"]["successful"], 1);
    assert_eq!(answer["hits"]["total"], json!({ "value": 1, "relation": "gte" }));
    let hit = &answer["hits"]["hits"][0];
    assert_eq!(hit["_index"], "payments");
    assert_eq!(hit["_source"].as_object().unwrap().len(), 2);
    assert_eq!(hit["highlight"]["email"][0], "<em>riya.sharma</em>@example.com");
    assert!(hit["fields"]["paid_at"][0].as_str().unwrap().starts_with("2024-01-1"));
    let none = index.search(&json!({ "size": 0, "track_total_hits": false }));
    assert_eq!(none["hits"].get("total"), None);
    let least =
        index.search(&json!({ "query": { "match": { "email": "riya" } }, "min_score": 100 }));
    assert_eq!(least["hits"]["total"]["value"], 0);
}
