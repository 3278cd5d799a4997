use super::*;
use crate::command::DropKind;
use evert_view::RelationKind;

fn one(text: &str) -> Command {
    let mut commands = parse(text).expect(text);
    assert_eq!(commands.len(), 1, "{text}");
    commands.remove(0)
}

fn refusal(text: &str) -> (&'static str, Option<usize>) {
    let error = parse(text).expect_err(text);
    (error.sqlstate, error.position)
}

#[test]
fn a_text_is_split_into_statements() {
    assert!(matches!(one(""), Command::Empty));
    assert!(matches!(one(" ; ; -- nothing"), Command::Empty));
    let commands = parse("BEGIN; INSERT INTO t VALUES (';'); COMMIT").expect("three");
    assert!(matches!(
        commands.as_slice(),
        [Command::Begin { .. }, Command::Insert(_), Command::Commit]
    ));
}

#[test]
fn syntax_errors_know_their_place() {
    assert_eq!(refusal("SELEC 1"), ("42601", Some(1)));
    assert_eq!(refusal("SELECT 1;\nSELECT 2 FROM"), ("42601", Some(24)));
    assert_eq!(refusal("SELECT 'open"), ("42601", Some(8)));
    assert_eq!(refusal("SELECT 1 1"), ("42601", Some(10)));
}

#[test]
fn tables_and_streams() {
    let text = "CREATE TABLE IF NOT EXISTS shop.orders (id bigint, line int, \"Note\" text NOT NULL, \
                PRIMARY KEY (id, line)) \
                WITH (topic='o', partitions=3, on_conflict='error', retention.ms=-1, \
                'cleanup.policy'='compact')";
    let Command::CreateRelation(create) = one(text) else { panic!("a relation") };
    assert_eq!(create.name.to_string(), "shop.orders");
    assert_eq!(create.kind, RelationKind::Table);
    assert!(create.if_not_exists && create.conflict_is_error);
    assert_eq!(create.schema.key, [0, 1]);
    assert_eq!(create.schema.columns[2].name, "Note");
    assert!(!create.schema.columns[0].nullable && !create.schema.columns[2].nullable);
    assert_eq!(create.topic.as_deref(), Some("o"));
    assert_eq!(create.partitions, 3);
    assert_eq!(create.topic_config["retention.ms"], "-1");
    assert_eq!(create.topic_config["cleanup.policy"], "compact");

    let Command::CreateRelation(create) = one("create stream s (a numeric, b numeric(10,2))")
    else {
        panic!("a relation")
    };
    assert_eq!(create.kind, RelationKind::Stream);
    assert_eq!(create.notices.len(), 1);

    assert_eq!(refusal("CREATE TABLE t (a int)").0, "42P16");
    assert_eq!(refusal("CREATE STREAM t (a int PRIMARY KEY)").0, "42P16");
    assert_eq!(refusal("CREATE TABLE t (a int, a int, PRIMARY KEY (a))").0, "42701");
    assert_eq!(refusal("CREATE TABLE t (a int, PRIMARY KEY (b))").0, "42703");
    assert_eq!(refusal("CREATE TABLE t (a circle PRIMARY KEY)").0, "42704");
    assert_eq!(refusal("CREATE TABLE t (a int PRIMARY KEY CHECK (a > 0))").0, "0A000");
    assert_eq!(refusal("CREATE STREAM t (a int) WITH (nonsense=1)").0, "22023");
}

#[test]
fn a_view_keeps_its_text() {
    let Command::CreateView(view) =
        one("CREATE MATERIALIZED VIEW v AS\n SELECT é, 'x;y'\n FROM t ; ")
    else {
        panic!("a view")
    };
    assert_eq!(view.sql, "SELECT é, 'x;y'\n FROM t");
    let Command::CreateView(view) = one("create materialized view if not exists v as select 1")
    else {
        panic!("a view")
    };
    assert!(view.if_not_exists && !view.replace);
    assert_eq!(view.sql, "select 1");
}

#[test]
fn a_view_is_replaced_or_only_compared() {
    let Command::CreateView(view) = one("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT 1") else {
        panic!("a view")
    };
    assert!(view.replace && !view.dry_run);
    let text = "CREATE OR REPLACE MATERIALIZED VIEW v DRY RUN AS SELECT 1";
    let Command::CreateView(view) = one(text) else { panic!("a view") };
    assert!(view.replace && view.dry_run);
    assert_eq!(view.sql, "SELECT 1");
    assert_eq!(refusal("CREATE MATERIALIZED VIEW v DRY RUN AS SELECT 1").0, "42601");
}

#[test]
fn sources() {
    let text = "CREATE SOURCE bank FROM POSTGRES 'postgres://u@h/db' \
                (PUBLICATION 'p', TABLES (public.orders, \"Odd\"))";
    let Command::CreateSource(new) = one(text) else { panic!("a source") };
    assert_eq!(new.publication.as_deref(), Some("p"));
    assert_eq!(new.tables, ["public.orders", "\"Odd\""]);
    assert_eq!(refusal("CREATE SOURCE s FROM MYSQL 'x'").0, "0A000");
}

#[test]
fn the_rest_of_our_own() {
    let Command::Drop(drop) = one("DROP TABLE IF EXISTS a, b.c CASCADE WITH TOPIC") else {
        panic!("a drop")
    };
    assert_eq!(drop.kind, DropKind::Table);
    assert!(drop.if_exists && drop.cascade && drop.with_topic);
    assert_eq!(drop.names.len(), 2);
    let Command::WaitForPosition { timeout_ms, .. } = one("WAIT FOR POSITION 'a/0@3' TIMEOUT '5s'")
    else {
        panic!("a wait")
    };
    assert_eq!(timeout_ms, Some(5000));
    assert!(matches!(
        one("WAIT FOR POSITION 7"),
        Command::WaitForPosition { timeout_ms: None, .. }
    ));
    assert!(matches!(one("SHOW POSITION"), Command::ShowPosition));
    assert!(matches!(one("show views"), Command::Show(name) if name == "views"));
    assert!(matches!(
        one("SHOW TRANSACTION ISOLATION LEVEL"),
        Command::Show(name) if name == "transaction isolation level"
    ));
    assert!(matches!(
        one("SET evert.after = 41"),
        Command::Set { name, value: Some(value), .. } if name == "evert.after" && value == "41"
    ));
    assert!(matches!(one("SET TIME ZONE 'UTC'"), Command::Set { name, .. } if name == "timezone"));
    assert!(matches!(one("VERIFY VIEW v"), Command::VerifyView(_)));
    assert!(matches!(one("REBUILD VIEW v, s.w"), Command::RebuildViews(names) if names.len() == 2));
    assert!(matches!(one("PAUSE MATERIALIZED VIEW v"), Command::PauseView(_)));
    assert!(matches!(one("resume view v"), Command::ResumeView(_)));
    assert!(matches!(one("REFRESH MATERIALIZED VIEW v"), Command::RefreshView(_)));
    assert_eq!(refusal("ALTER TABLE t DROP COLUMN b").0, "0A000");
    assert_eq!(refusal("WAIT FOR POSITION soon").0, "42601");
    assert_eq!(refusal("WAIT FOR POSITION 'soon'").0, "22023");
}
