//! Archive: Iceberg tables folded from the log.
