//! The words of a URL: which an operation knows, and which it refuses.
//!
//! (Elasticsearch reference, "Query parameters" of each API)
//!
//! Invariants
//! - A word is acted on, or leaves the answer as it is, or is refused.

use crate::api::{Call, Operation};
use crate::error::EsError;

type Words = &'static [&'static str];

/// Known everywhere. `source` is a body in the URL.
const COMMON: Words = &[
    "after",
    "error_trace",
    "filter_path",
    "format",
    "human",
    "pretty",
    "source",
    "source_content_type",
];
/// How several indexes, or none, are meant: there is one.
const INDICES: Words =
    &["allow_no_indices", "expand_wildcards", "ignore_throttled", "ignore_unavailable"];
/// Where a request goes, and how it waits for a master: there is one place.
const PLACE: Words = &["local", "master_timeout", "preference", "routing", "timeout"];
/// A query in the URL.
const QUERY: Words = &["analyze_wildcard", "default_operator", "df", "lenient", "q"];
const SOURCE: Words =
    &["_source", "_source_excludes", "_source_includes", "force_synthetic_source"];
const SEARCH: Words = &[
    "from",
    "size",
    "sort",
    "stats",
    "terminate_after",
    "track_scores",
    "track_total_hits",
    "version",
];
/// How a search goes about its shards and caches, and the shape of its answer.
const MANNER: Words = &[
    "allow_partial_search_results",
    "batched_reduce_size",
    "ccs_minimize_roundtrips",
    "include_named_queries_score",
    "max_concurrent_searches",
    "max_concurrent_shard_requests",
    "min_compatible_shard_node",
    "pre_filter_shard_size",
    "request_cache",
    "rest_total_hits_as_int",
    "search_type",
    "typed_keys",
];

/// Words of Elasticsearch's that would change the answer, and what there is instead.
const UNSUPPORTED: [(&str, &str); 14] = [
    ("analyzer", "the index's own analyzer reads the query"),
    ("docvalue_fields", "ask for [fields]"),
    ("explain", "[track_scores] shows the scores"),
    ("help", "the columns are those of [_cat/indices?v]"),
    ("min_score", "put [min_score] into the body of [_search]"),
    ("scroll", "sort, and go on with [search_after]"),
    ("seq_no_primary_term", "rows have no sequence numbers"),
    ("stored_fields", "ask for [_source] or [fields]"),
    ("suggest_field", "there are no suggesters"),
    ("suggest_mode", "there are no suggesters"),
    ("suggest_size", "there are no suggesters"),
    ("suggest_text", "there are no suggesters"),
    ("terminate_after", "all rows are counted"),
    ("version_type", "rows have no versions"),
];

/// The words that an operation knows besides the common ones; `None` where they are not looked at.
fn known(operation: Operation) -> Option<&'static [Words]> {
    let words: &'static [Words] = match operation {
        Operation::Search => &[INDICES, PLACE, QUERY, SOURCE, SEARCH, MANNER],
        Operation::Count => &[INDICES, PLACE, QUERY],
        Operation::MultiSearch => &[INDICES, PLACE, MANNER],
        Operation::Mapping => &[INDICES, PLACE],
        Operation::Index => &[INDICES, PLACE, &["features", "flat_settings", "include_defaults"]],
        Operation::Document | Operation::Source => &[PLACE, SOURCE, &["realtime", "refresh"]],
        Operation::CatIndices => {
            &[INDICES, PLACE, &["bytes", "h", "health", "include_unloaded_segments", "s", "v"]]
        }
        Operation::Refresh => &[INDICES],
        Operation::FieldCaps => &[INDICES, &["fields", "include_empty_fields", "include_unmapped"]],
        // Writes are refused whatever they say.
        Operation::Root | Operation::Health | Operation::Write | Operation::Unknown => return None,
    };
    Some(words)
}

/// Refuses the words that an operation does not know.
pub(crate) fn check(call: &Call) -> Result<(), EsError> {
    let Some(known) = known(call.operation) else { return Ok(()) };
    let is_known = |word: &str| COMMON.contains(&word) || known.iter().any(|it| it.contains(&word));
    let mut unknown: Vec<_> =
        call.params.iter().map(|(word, _)| word.as_str()).filter(|word| !is_known(word)).collect();
    for (word, instead) in UNSUPPORTED {
        if unknown.contains(&word) {
            return Err(EsError::argument(format!("[{word}] is not supported: {instead}")));
        }
    }
    if unknown.is_empty() {
        return check_format(call);
    }
    unknown.sort_unstable();
    unknown.dedup();
    let noun = if unknown.len() > 1 { "parameters" } else { "parameter" };
    Err(EsError::argument(format!(
        "request [{}] contains unrecognized {noun}: [{}]",
        path(call),
        unknown.join("], [")
    )))
}

fn check_format(call: &Call) -> Result<(), EsError> {
    match call.param("format") {
        None | Some("json") => Ok(()),
        Some("text" | "txt") if call.operation == Operation::CatIndices => Ok(()),
        Some(other) => Err(EsError::argument(format!("[format] cannot be [{other}]"))),
    }
}

/// The path that a call came by.
fn path(call: &Call) -> String {
    let word = match call.operation {
        Operation::Search => "_search",
        Operation::Count => "_count",
        Operation::MultiSearch => "_msearch",
        Operation::Mapping => "_mapping",
        Operation::FieldCaps => "_field_caps",
        Operation::Refresh => "_refresh",
        Operation::Document => "_doc",
        Operation::Source => "_source",
        Operation::CatIndices => "_cat/indices",
        _ => "",
    };
    let (index, id) = (call.index.as_str(), call.id.as_str());
    let parts = match call.operation {
        Operation::CatIndices => [word, index, id],
        _ => [index, word, id],
    };
    parts.iter().filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(operation: Operation, words: &[(&str, &str)]) -> Result<(), String> {
        let (index, id) = ("payments".to_owned(), String::new());
        let params =
            words.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let (body, timeout) = (bytes::Bytes::new(), std::time::Duration::ZERO);
        let call = Call { operation, index, id, params, body, after: None, timeout };
        check(&call).map_err(|error| error.reason)
    }

    #[test]
    fn words_that_are_not_known_are_refused() {
        use Operation::{CatIndices, Count, Search, Write};
        assert_eq!(checked(Search, &[("pretty", ""), ("q", "a"), ("routing", "1")]), Ok(()));
        assert_eq!(checked(Write, &[("refresh", "true")]), Ok(()));
        assert_eq!(
            checked(Search, &[("size", "1"), ("bogus", "1")]).unwrap_err(),
            "request [/payments/_search] contains unrecognized parameter: [bogus]"
        );
        assert_eq!(
            checked(CatIndices, &[("size", "1"), ("from", "1")]).unwrap_err(),
            "request [/_cat/indices/payments] contains unrecognized parameters: [from], [size]"
        );
        let refused = checked(Search, &[("bogus", "1"), ("scroll", "1m")]).unwrap_err();
        assert!(refused.contains("[scroll]") && refused.contains("[search_after]"), "{refused}");
        assert!(checked(Search, &[("terminate_after", "1")]).is_ok());
        assert!(checked(Count, &[("terminate_after", "1")]).is_err());
        assert!(checked(Search, &[("format", "yaml")]).is_err());
        assert!(checked(CatIndices, &[("format", "text")]).is_ok());
    }
}
