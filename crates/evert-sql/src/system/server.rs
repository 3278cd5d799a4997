//! Functions that tell how far the server is: `txid_current()`, ...

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::scalar::ScalarValue;
use evert_view::Views;

/// The position of the last cut, which grows with each commit as a transaction's number does.
pub(super) fn transaction(name: &str, views: &Views) -> ScalarUDF {
    let views = views.clone();
    create_udf(
        name,
        Vec::new(),
        DataType::Int64,
        Volatility::Stable,
        Arc::new(move |_| {
            let position = views.watch().borrow().position.get();
            let number = i64::try_from(position).unwrap_or(i64::MAX);
            Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(number))))
        }),
    )
}

/// `pg_is_wal_replay_paused()`: there is no replay.
pub(super) fn not_replaying() -> ScalarUDF {
    create_udf(
        "pg_is_wal_replay_paused",
        Vec::new(),
        DataType::Boolean,
        Volatility::Stable,
        Arc::new(|_| Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(false))))),
    )
}
