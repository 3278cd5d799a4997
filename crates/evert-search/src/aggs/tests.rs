use serde_json::{Value, json};

use crate::fixture::Fixture;

fn aggregate(aggs: Value) -> Value {
    let answer = Fixture::new().search(&json!({ "size": 0, "aggs": aggs }));
    answer["aggregations"].clone()
}

#[test]
fn terms_have_counts_and_metrics() {
    let found = aggregate(json!({ "by_status": {
        "terms": { "field": "status" },
        "aggs": { "sum": { "sum": { "field": "amount" } }, "last": { "max": { "field": "paid_at" } } } } }));
    let buckets = &found["by_status"]["buckets"];
    assert_eq!(buckets[0]["key"], "captured");
    assert_eq!(buckets[0]["doc_count"], 3);
    assert_eq!(buckets[0]["sum"]["value"], 1111.5);
    assert_eq!(buckets[0]["last"]["value_as_string"], "2024-03-31T20:00:00.000Z");
    assert_eq!(buckets[0]["last"]["value"], 1_711_915_200_000.0);
    assert_eq!(buckets[1]["key"], "failed");
    assert_eq!(buckets[2]["key"], "pending");
    let found = aggregate(json!({ "s": { "terms": { "field": "status", "size": 1 } },
        "live": { "terms": { "field": "live", "order": { "_count": "asc" } } },
        "n": { "terms": { "field": "attempts", "order": { "_key": "desc" }, "size": 2 } } }));
    assert_eq!(found["s"]["sum_other_doc_count"], 3);
    assert_eq!(found["live"]["buckets"][0]["key_as_string"], "false");
    assert_eq!(found["live"]["buckets"][0]["key"], 0);
    assert_eq!(found["n"]["buckets"][0]["key"], 6);
}

#[test]
fn equal_counts_are_in_the_order_of_their_keys() {
    let found = aggregate(json!({ "ids": { "terms": { "field": "payment_id", "size": 3 } } }));
    let keys: Vec<_> = (0..3).map(|i| found["ids"]["buckets"][i]["key"].clone()).collect();
    assert_eq!(keys, ["p1", "p2", "p3"]);
}

#[test]
fn percentiles_of_few_rows_lie_between_their_values() {
    let found = aggregate(json!({
        "p": { "percentiles": { "field": "amount", "percents": [1, 50, 75, 99.0, 100] } },
        "l": { "percentiles": { "field": "attempts", "percents": [50], "keyed": false } },
        "d": { "percentiles": { "field": "paid_at", "percents": [0] } },
        "none": { "percentiles": { "field": "nothing", "percents": [5] } },
        "by": { "terms": { "field": "status" },
            "aggs": { "p": { "percentiles": { "field": "amount", "percents": [50] } } } } }));
    // 0.42, 5, 12.5, 12.5, 99, 1000
    let close = |value: &Value, wanted: f64| (value.as_f64().unwrap() - wanted).abs() < 1e-9;
    for (percent, wanted) in
        [("1.0", 0.649), ("50.0", 12.5), ("75.0", 77.375), ("99.0", 954.95), ("100.0", 1000.0)]
    {
        assert!(close(&found["p"]["values"][percent], wanted), "{percent}: {found}");
    }
    assert_eq!(found["l"]["values"], json!([{ "key": 50.0, "value": 3.0 }]));
    assert_eq!(found["d"]["values"]["0.0_as_string"], "2024-01-15T10:00:00.123Z");
    assert_eq!(found["d"]["values"]["0.0"], 1_705_312_800_123.0);
    assert_eq!(found["none"]["values"], json!({ "5.0": null }));
    let captured = &found["by"]["buckets"][0];
    assert_eq!(captured["p"]["values"]["50.0"], 99.0);
    assert_eq!(captured.as_object().unwrap().len(), 3, "{captured}");
}

#[test]
fn percentiles_of_many_rows_lie_within_them() {
    let numbers = super::percentiles::Percentiles::parse("n", &json!({}), None).expect("parsed");
    let sketch = json!({ "values": { "1.0": -5.0028, "50.0": 1.01, "99.0": 3.01 } });
    let shown = numbers.show(&sketch, &json!({ "min": -5.0, "max": 3.0 }));
    assert_eq!(shown["values"]["1.0"], -5.0);
    assert_eq!(shown["values"]["50.0"], 1.01);
    assert_eq!(shown["values"]["99.0"], 3.0);
}

#[test]
fn dates_fall_into_days_weeks_and_months() {
    let months = json!({ "m": {
        "date_histogram": { "field": "paid_at", "calendar_interval": "month", "format": "yyyy-MM" },
        "aggs": { "sum": { "sum": { "field": "amount" } } } } });
    let found = aggregate(months);
    let buckets = found["m"]["buckets"].as_array().unwrap();
    let shown: Vec<_> = buckets
        .iter()
        .map(|b| (b["key_as_string"].as_str().unwrap(), b["doc_count"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, [("2024-01", 2), ("2024-02", 2), ("2024-03", 2)]);
    assert_eq!(buckets[1]["sum"]["value"], 1005.0);
    let found = aggregate(json!({ "d": { "date_histogram": {
        "field": "paid_at", "calendar_interval": "1d", "min_doc_count": 1, "time_zone": "+05:30" } } }));
    let first = &found["d"]["buckets"][0];
    assert_eq!(first["key_as_string"], "2024-01-15T00:00:00.000+05:30");
    assert_eq!(first["key"], 1_705_257_000_000i64);
    let last = found["d"]["buckets"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["key_as_string"], "2024-04-01T00:00:00.000+05:30");
    let found = aggregate(json!({ "w": { "date_histogram": {
        "field": "paid_at", "calendar_interval": "week", "min_doc_count": 1 } } }));
    assert_eq!(found["w"]["buckets"][0]["key_as_string"], "2024-01-15T00:00:00.000Z");
    let found = aggregate(json!({ "h": { "date_histogram": {
        "field": "paid_at", "fixed_interval": "12h", "min_doc_count": 1, "keyed": true } } }));
    assert_eq!(found["h"]["buckets"]["2024-01-15T00:00:00.000Z"]["doc_count"], 1);
}

#[test]
fn ranges_may_overlap_and_hold_others() {
    let found = aggregate(json!({ "r": {
        "range": { "field": "amount", "ranges": [{ "to": 100 }, { "from": 10, "to": 1000 }, { "key": "big", "from": 1000 }] },
        "aggs": { "s": { "terms": { "field": "status" } } } } }));
    let buckets = &found["r"]["buckets"];
    assert_eq!(buckets[0]["key"], "*-100.0");
    assert_eq!(buckets[0]["doc_count"], 5);
    assert_eq!(buckets[1]["doc_count"], 3);
    assert_eq!(buckets[2]["key"], "big");
    assert_eq!(buckets[1]["s"]["buckets"][0]["key"], "captured");
}

#[test]
fn filters_stand_in_buckets_of_others() {
    let found = aggregate(json!({ "s": {
        "terms": { "field": "status" },
        "aggs": {
            "live": { "filter": { "term": { "live": true } }, "aggs": { "n": { "value_count": { "field": "attempts" } } } },
            "months": { "date_histogram": { "field": "paid_at", "calendar_interval": "month" } },
            "avg": { "avg": { "field": "amount" } } } } }));
    let captured = &found["s"]["buckets"][0];
    assert_eq!(captured["live"]["doc_count"], 1);
    assert_eq!(captured["live"]["n"]["value"], 1);
    assert_eq!(captured["months"]["buckets"].as_array().unwrap().len(), 3);
    assert_eq!(captured["avg"]["value"], 370.5);
    let found = aggregate(json!({ "f": { "filters": { "filters": {
        "bad": { "term": { "status": "failed" } }, "none": { "match_none": {} } }, "other_bucket": true } },
        "without": { "missing": { "field": "attempts" } } }));
    assert_eq!(found["f"]["buckets"]["bad"]["doc_count"], 2);
    assert_eq!(found["f"]["buckets"]["none"]["doc_count"], 0);
    assert_eq!(found["f"]["buckets"]["_other_"]["doc_count"], 4);
    assert_eq!(found["without"]["doc_count"], 1);
}

#[test]
fn metrics_are_of_the_query() {
    let index = Fixture::new();
    let answer =
        index.search(&json!({ "size": 0, "query": { "term": { "status": "failed" } }, "aggs": {
        "stats": { "stats": { "field": "amount" } },
        "people": { "cardinality": { "field": "email.keyword" } },
        "min": { "min": { "field": "paid_at" } },
        "none": { "avg": { "field": "nope" } },
        "all": { "global": {}, "aggs": { "max": { "max": { "field": "attempts" } } } },
        "steps": { "histogram": { "field": "amount", "interval": 5 } } } }));
    let found = &answer["aggregations"];
    assert_eq!(found["stats"]["count"], 2);
    assert_eq!(found["stats"]["sum"], 17.5);
    assert_eq!(found["people"]["value"], 2);
    assert_eq!(found["min"]["value_as_string"], "2024-01-15T10:00:00.123Z");
    assert_eq!(found["none"]["value"], Value::Null);
    assert_eq!(found["all"]["doc_count"], 6);
    assert_eq!(found["all"]["max"]["value"], 6.0);
    let steps = found["steps"]["buckets"].as_array().unwrap();
    assert_eq!((steps[0]["key"].as_f64(), steps.len()), (Some(5.0), 2));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cases = [
        (json!({ "a": { "nope": { "field": "status" } } }), "Unknown aggregation type [nope]"),
        (json!({ "a": { "terms": { "field": "email" } } }), "Fielddata is disabled"),
        (json!({ "a": { "terms": { "field": "status", "size": 0 } } }), "[size] must be greater"),
        (json!({ "a": { "sum": { "field": "status" } } }), "not supported for aggregation [sum]"),
        (json!({ "a": { "date_histogram": { "field": "paid_at" } } }), "Required one of fields"),
        (
            json!({ "a": { "date_histogram": { "field": "paid_at", "calendar_interval": "2d" } } }),
            "calendar interval",
        ),
        (json!({ "a": { "histogram": { "field": "amount", "interval": 0.01 } } }), "buckets"),
        (
            json!({ "a": { "sum": { "field": "amount" }, "aggs": { "b": { "sum": { "field": "amount" } } } } }),
            "cannot accept sub-aggregations",
        ),
        (
            json!({ "a": { "terms": { "field": "status" }, "sum": { "field": "amount" } } }),
            "two aggregation type",
        ),
        (json!({ "a": {} }), "Missing definition"),
    ];
    let index = Fixture::new();
    for (aggs, expected) in cases {
        let (status, reason) = index.refusal(&json!({ "aggs": aggs }));
        assert!(status == 400 && reason.contains(expected), "{aggs}: {status} {reason}");
    }
}
