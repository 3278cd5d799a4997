//! Statements, portals, transactions, cancelling: by a real driver.

use std::time::Duration;

use futures::{SinkExt, TryStreamExt, pin_mut};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{PgConfig, TestDoor};

#[tokio::test]
async fn simple_queries() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let messages =
        client.simple_query("SERIES 3; INSERT; SHOW application_name").await.expect("ok");
    let mut seen = Vec::new();
    for message in &messages {
        seen.push(match message {
            SimpleQueryMessage::Row(row) => row.get(0).expect("a value").to_owned(),
            SimpleQueryMessage::CommandComplete(count) => format!("{count} rows"),
            SimpleQueryMessage::RowDescription(columns) => columns[0].name().to_owned(),
            _ => "?".into(),
        });
    }
    assert_eq!(seen, ["n", "0", "1", "2", "3 rows", "3 rows", "v", "tests", "1 rows"]);
    assert!(client.simple_query("").await.is_ok());
    assert!(client.simple_query(" ; ").await.is_ok());
}

#[tokio::test]
async fn an_error_ends_a_simple_query_and_says_all_it_knows() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let error = client.simple_query("INSERT; MISSING; INSERT").await.expect_err("no such word");
    let error = error.as_db_error().expect("from the server");
    assert_eq!(error.code(), &SqlState::UNDEFINED_TABLE);
    assert_eq!(error.message(), "\"MISSING\" does not exist");
    assert_eq!((error.detail(), error.hint()), (Some("a detail"), Some("a hint")));
    assert_eq!(error.position(), Some(&tokio_postgres::error::ErrorPosition::Original(7)));
    let ran = door.engine.ran.lock().expect("unharmed").clone();
    assert_eq!(&ran[1..], ["INSERT", "MISSING"], "the first error ends the query");
    assert!(client.simple_query("INSERT").await.is_ok(), "the session goes on");
}

#[tokio::test]
async fn a_long_result_arrives_whole() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let rows = client.query("SERIES 100500", &[]).await.expect("rows");
    assert_eq!(rows.len(), 100_500);
    assert!(rows.iter().zip(0..).all(|(row, n)| row.get::<_, i64>(0) == n));
}

#[tokio::test]
async fn portals_give_rows_in_portions() {
    let door = TestDoor::open().await;
    let mut client = door.client().await;
    let transaction = client.transaction().await.expect("begins");
    let portal = transaction.bind("SERIES 2500", &[]).await.expect("binds");
    let other = transaction.bind("SERIES 2", &[]).await.expect("binds");
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(transaction.query_portal(&portal, 1000).await.expect("rows").len());
    }
    assert_eq!(sizes, [1000, 1000, 500, 0]);
    assert_eq!(transaction.query_portal(&other, 0).await.expect("rows").len(), 2);
    transaction.commit().await.expect("commits");
}

#[tokio::test]
async fn an_error_in_a_transaction_fails_it_wherever_it_arises() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    for broken in ["MISSING", "SERIES 10 BREAKS"] {
        client.batch_execute("BEGIN").await.expect("begins");
        client.query(broken, &[]).await.expect_err("fails");
        let after = client.batch_execute("INSERT").await.expect_err("fails");
        assert_eq!(after.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION), "{broken}");
        client.batch_execute("ROLLBACK").await.expect("rolls back");
        client.batch_execute("INSERT").await.expect("works again");
    }
}

#[tokio::test]
async fn pipelined_statements_answer_in_order() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let (one, two, three) = tokio::join!(
        client.query("SERIES 3", &[]),
        client.query("MISSING", &[]),
        client.query("SERIES 5", &[]),
    );
    assert_eq!(one.expect("rows").len(), 3);
    assert_eq!(two.expect_err("fails").code(), Some(&SqlState::UNDEFINED_TABLE));
    assert_eq!(three.expect("rows").len(), 5, "an error skips to Sync, not further");
}

#[tokio::test]
async fn statements_by_name() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let statement = client.prepare_typed("ECHO 1", &[Type::INT4]).await.expect("prepares");
    assert_eq!(statement.params(), [Type::INT4]);
    for n in [1_i32, 2] {
        let row = client.query_one(&statement, &[&n]).await.expect("a row");
        assert_eq!(row.get::<_, i32>(0), n);
    }
    client.batch_execute("DEALLOCATE ALL").await.expect("known here");
    let gone = client.query(&statement, &[&1_i32]).await.expect_err("deallocated");
    assert_eq!(gone.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME));
    let several = client.prepare("INSERT; INSERT").await.expect_err("two statements");
    assert_eq!(several.code(), Some(&SqlState::SYNTAX_ERROR));
    // The driver sends "unknown" types as they are: no type, inferred by the engine.
    let wrong = client.query("ECHO 2", &[&"a", &"b"]).await.expect("inferred as text");
    assert_eq!(wrong[0].get::<_, &str>(1), "b");
}

#[tokio::test]
async fn cancelling_reaches_both_halves_of_a_statement() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    for statement in ["SLEEP", "STALL"] {
        let token = client.cancel_token();
        let canceller = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            token.cancel_query(NoTls).await.expect("sends");
        };
        let (result, ()) = tokio::join!(client.simple_query(statement), canceller);
        let error = result.expect_err("cancelled");
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{statement}");
        assert!(client.simple_query("INSERT").await.is_ok(), "the session goes on");
    }
}

#[tokio::test]
async fn notices_and_settings_reach_the_client() {
    let door = TestDoor::open().await;
    let config = format!("host=127.0.0.1 port={} user=me dbname=test", door.address.port());
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.expect("connects");
    let (sender, mut notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
        pin_mut!(messages);
        while let Ok(Some(message)) = messages.try_next().await {
            if let tokio_postgres::AsyncMessage::Notice(notice) = message {
                sender.send(notice.message().to_owned()).expect("the test listens");
            }
        }
    });
    client.batch_execute("NOTICE").await.expect("ok");
    assert_eq!(notices.recv().await.as_deref(), Some("so you know"));
}

#[tokio::test]
async fn stopping_lets_idle_clients_know() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let busy = door.client().await;
    let sleeping = tokio::spawn(async move { busy.simple_query("SLEEP").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    door.stop.send_replace(true);
    // The sleeper is cancelled after its grace; nobody keeps the door from closing.
    tokio::time::timeout(Duration::from_secs(8), door.serving).await.expect("ends").expect("ends");
    assert!(client.simple_query("INSERT").await.is_err());
    let error = sleeping.await.expect("joins").expect_err("cancelled");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(tokio::net::TcpStream::connect(door.address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_transaction_that_is_left_alone_ends_with_its_session() {
    let door = TestDoor::open().await;
    let (client, socket) = door.connect().await.expect("connects");
    client.simple_query("SET idle_ms TO '50'").await.expect("set");
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.simple_query("BEGIN").await.expect("an idle session is not ended");
    tokio::time::timeout(Duration::from_secs(10), socket).await.expect("ends").expect("ends");
    assert!(client.is_closed());
}

#[tokio::test]
async fn rows_are_copied_out_as_they_come() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let lines = "a\\tb\\\\c\ta\\tb\\\\c\n\\N\t\\N\n\t\n";
    let copied = client.copy_out("COPYOUT ENDS").await.expect("begins");
    let copied: Vec<_> = copied.try_collect().await.expect("ends");
    assert_eq!(String::from_utf8(copied.concat()).expect("text"), lines);

    // What is there arrives although more is to come.
    let endless = client.copy_out("COPYOUT STAYS").await.expect("begins");
    pin_mut!(endless);
    let mut seen = Vec::new();
    while seen.len() < lines.len() {
        let next = tokio::time::timeout(Duration::from_secs(10), endless.try_next()).await;
        seen.extend(next.expect("in time").expect("no error").expect("not the end"));
    }
    assert_eq!(String::from_utf8(seen).expect("text"), lines);
    client.cancel_token().cancel_query(NoTls).await.expect("asked");
    let error = endless.try_next().await.expect_err("cancelled");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(client.simple_query("INSERT").await.is_ok(), "the session goes on");
}

#[tokio::test]
async fn csv_has_a_header_and_its_own_nulls() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let copied = client.copy_out("COPYOUT ENDS CSV").await.expect("begins");
    let copied: Vec<_> = copied.try_collect().await.expect("ends");
    let lines = "v,v\na\tb\\c,a\tb\\c\n,\n\"\",\"\"\n";
    assert_eq!(String::from_utf8(copied.concat()).expect("text"), lines);
}

#[tokio::test]
async fn rows_are_copied_in() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let sink = client.copy_in("COPYIN").await.expect("begins");
    pin_mut!(sink);
    for line in ["a\tb\n", "c\td\ne\t", "f\n"] {
        sink.send(bytes::Bytes::from_static(line.as_bytes())).await.expect("taken");
    }
    assert_eq!(sink.finish().await.expect("ends"), 3);

    // A line that is refused ends the COPY at once; what is sent after it is nobody's.
    let sink = client.copy_in("COPYIN").await.expect("begins");
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"BAD\n")).await.expect("sent");
    let _ = sink.send(bytes::Bytes::from_static(b"more\n")).await;
    let error = sink.finish().await.expect_err("refused");
    let error = error.as_db_error().expect("the server's");
    assert_eq!((error.code().code(), error.where_()), ("22P04", Some("COPY t, line 1")));
    assert!(client.simple_query("INSERT").await.is_ok(), "the session goes on");

    // A client that gives up sends CopyFail.
    let sink = client.copy_in::<_, bytes::Bytes>("COPYIN").await.expect("begins");
    drop(sink);
    assert!(client.simple_query("INSERT").await.is_ok());
    let ran = door.engine.ran.lock().expect("unharmed").clone();
    let copies: Vec<_> = ran.iter().filter(|sql| sql.starts_with("COPY")).collect();
    let expected = ["COPYIN", "COPY ENDED", "COPYIN", "COPY ABANDONED", "COPYIN", "COPY ABANDONED"];
    assert_eq!(copies, expected);
}

#[tokio::test]
async fn copies_without_an_end_do_not_delay_a_stop() {
    let door = TestDoor::open().await;
    let (following, filling) = (door.client().await, door.client().await);
    let endless = following.copy_out("COPYOUT STAYS").await.expect("begins");
    pin_mut!(endless);
    assert!(endless.try_next().await.expect("no error").is_some());
    let sink = filling.copy_in::<_, bytes::Bytes>("COPYIN").await.expect("begins");
    pin_mut!(sink);
    door.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(2), door.serving).await.expect("soon").expect("ends");
    let error = loop {
        match endless.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN));
    assert!(sink.finish().await.is_err());
}

#[tokio::test]
async fn a_copy_that_waits_for_data_can_be_cancelled() {
    let door = TestDoor::open().await;
    let client = door.client().await;
    let sink = client.copy_in::<_, bytes::Bytes>("COPYIN").await.expect("begins");
    pin_mut!(sink);
    client.cancel_token().cancel_query(NoTls).await.expect("asked");
    let error = sink.finish().await.expect_err("cancelled");
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(client.simple_query("INSERT").await.is_ok(), "the session goes on");
}

#[tokio::test]
async fn an_endless_copy_ends_when_its_client_leaves() {
    let config = PgConfig { connections_max: 1, ..PgConfig::default() };
    let door = TestDoor::with(config).await;
    let (client, socket) = door.connect().await.expect("a place is free");
    let mut endless = Box::pin(client.copy_out("COPYOUT STAYS").await.expect("begins"));
    assert!(endless.try_next().await.expect("no error").is_some());
    // The end of its statement is on its way when the socket closes.
    drop(endless);
    socket.abort();
    // The only place is free again.
    let again = async {
        while door.try_client().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the connection has ended");
}
