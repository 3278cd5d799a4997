//! `evert demo`: the payments example on an embedded server with its doors open.
//!
//! A generator appends payments to the log at a steady rate, or a Postgres's write-ahead log brings
//! them. The views stay live and are read as their readers would read them. At the end each is
//! compared with a replay from the log's beginning.

mod freshness;
mod panels;
mod payments;
mod screen;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use evert_log::{NewCommit, NewPart};
use evert_model::{PartitionId, Position};
use evert_view::{Name, Views};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::serve::{Addresses, Server};
use crate::settings::Settings;
use freshness::Freshness;
use panels::Reader;
use payments::{FOLDED, Payments, SETUP, VIEWS, merchants_sql};
use screen::{Figures, Screen, print_panels};

/// The settlement is read as of this long after the start.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Commits a second: each carries its share of the rate.
const COMMITS_PER_SECOND: u32 = 100;

/// The flags of `evert demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// End after this many seconds [default: run until interrupted]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Keep the data in this directory, for `evert serve --data DIR`
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Payments a second
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
}

/// Runs the demo.
///
/// # Errors
/// When the server cannot start, or a view differs from its replay.
pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    let dir = args.keep.clone().unwrap_or_else(|| scratch.path().to_path_buf());
    let server = start(dir).await?;
    let outcome = play(&server, &args).await;
    let stopped = server.stop().await;
    let differing = outcome?;
    stopped?;
    if let Some(dir) = &args.keep {
        print_next_steps(dir);
    }
    if differing > 0 {
        bail!("{differing} of {} views differ from their replay", VIEWS.len());
    }
    Ok(())
}

/// The server on the usual ports if they are free, else on others.
async fn start(dir: PathBuf) -> Result<Server> {
    let settings = Settings { data: Some(dir), ..Settings::default() };
    let usual = [settings.kafka(), settings.sql(), settings.keyvalue(), settings.http()];
    let free = usual.into_iter().flatten().all(|addr| std::net::TcpListener::bind(addr).is_ok());
    let any = || Some("127.0.0.1:0".to_owned());
    let settings = if free {
        settings
    } else {
        Settings { kafka: any(), sql: any(), keyvalue: any(), http: any(), ..settings }
    };
    Server::start(&settings).await
}

async fn play(server: &Server, args: &DemoArgs) -> Result<usize> {
    let client = connect(&server.addresses).await?;
    println!("evert demo: {}", server.addresses);
    for statement in SETUP {
        client.batch_execute(statement).await?;
    }
    client.batch_execute(&merchants_sql()).await?;
    let first_id = next_payment_id(&client).await?;
    let settled_at = chrono::Utc::now() + SETTLED_AFTER;
    let reader = Reader { client, keyvalue: server.addresses.keyvalue, settled_at };

    let freshness = Arc::new(Mutex::new(Freshness::default()));
    let watcher = tokio::spawn(watch(server.views.clone(), Arc::clone(&freshness)));
    let started = Instant::now();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let generator = tokio::spawn(generate(
        server.views.clone(),
        Payments::new(started.elapsed().as_nanos() as u64 ^ first_id, first_id),
        args.rate,
        Arc::clone(&freshness),
        stopped,
    ));
    let mut screen = Screen::new()?;
    let end = args.seconds.map(|seconds| started + Duration::from_secs(seconds));
    let figures = |facts| {
        let freshness = freshness.lock().unwrap_or_else(PoisonError::into_inner);
        let [p50, p99] = freshness.quantiles([0.5, 0.99]);
        Figures { elapsed: started.elapsed(), facts, p50, p99 }
    };
    let rate = u64::from(args.rate);
    while !generator.is_finished() {
        tokio::select! {
            () = tokio::time::sleep(screen.period()) => {
                let facts = (started.elapsed().as_secs_f64() * rate as f64) as u64;
                let panels = if screen.is_live() { reader.panels().await? } else { Vec::new() };
                screen.show(&panels, &figures(facts))?;
            }
            () = until(end) => break,
            signal = tokio::signal::ctrl_c() => {
                signal?;
                break;
            }
        }
    }
    stop.send_replace(true);
    let (facts, last) = generator.await.context("the generator ended in a panic")??;
    let spent = figures(facts);
    drop(screen);
    let names: Vec<_> = VIEWS[..FOLDED].iter().copied().map(Name::public).collect();
    server.views.pin(&names, last, Duration::from_secs(60)).await?;
    watcher.abort();
    print_panels(&reader.panels().await?)?;
    let differing = verify(&reader.client, last).await?;
    println!("{}", spent.line());
    Ok(differing)
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}

async fn connect(addresses: &Addresses) -> Result<Client> {
    let address = addresses.sql.context("the SQL door is closed")?;
    let url = format!("host={} port={} user=demo dbname=evert", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Kept data already holds payments: new ones go on after them.
async fn next_payment_id(client: &Client) -> Result<u64> {
    let row = client.query_one("SELECT coalesce(max(payment_id), 0) FROM payments", &[]).await?;
    Ok(row.get::<_, i64>(0) as u64 + 1)
}

/// Appends payments until told to stop; gives their number and the last commit's position.
async fn generate(
    views: Views,
    mut payments: Payments,
    rate: u32,
    freshness: Arc<Mutex<Freshness>>,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Result<(u64, Position)> {
    let topic = views.log().topic("payments").context("topic payments is gone")?;
    let mut clock = tokio::time::interval(Duration::from_secs(1) / COMMITS_PER_SECOND);
    let (started, mut sent) = (Instant::now(), 0u64);
    let mut last = Position::ZERO;
    while !*stop.borrow() {
        clock.tick().await;
        // What is due by now, so that a late tick makes up for it.
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        let count = u32::try_from(due.saturating_sub(sent)).unwrap_or(u32::MAX).min(rate);
        if count == 0 {
            continue;
        }
        let batch = payments.batch(count, chrono::Utc::now().timestamp_micros());
        let part = NewPart { topic: topic.id, partition: PartitionId::new(0), batch };
        let at = Instant::now();
        let appended = views.log().append(NewCommit { parts: vec![part] })?.await?;
        sent += u64::from(count);
        last = appended.position;
        freshness.lock().unwrap_or_else(PoisonError::into_inner).sent(last, at);
    }
    Ok((sent, last))
}

/// Notes when commits become visible.
async fn watch(views: Views, freshness: Arc<Mutex<Freshness>>) {
    let mut cuts = views.watch();
    while cuts.changed().await.is_ok() {
        let position = cuts.borrow_and_update().position;
        let mut freshness = freshness.lock().unwrap_or_else(PoisonError::into_inner);
        freshness.visible(position, Instant::now());
    }
}

/// Compares each view with a replay from zero; gives how many differ.
async fn verify(client: &Client, last: Position) -> Result<usize> {
    let mut differing = 0;
    println!();
    for name in VIEWS {
        let sql = format!("SET evert.after = {last}; VERIFY VIEW {name}");
        let rows = client.simple_query(&sql).await.with_context(|| format!("verifying {name}"))?;
        let verdict = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let verdict = verdict.with_context(|| format!("no verdict on {name}"))?;
        let told = |column| verdict.get(column).unwrap_or("?");
        let equal = verdict.get("equal") == Some("t");
        println!(
            "verify {name} at position {}: {} rows live, {} rows replayed from zero, {}",
            told("position"),
            told("rows_live"),
            told("rows_replayed"),
            if equal { "equal" } else { "DIFFERENT" },
        );
        differing += usize::from(!equal);
    }
    Ok(differing)
}

fn print_next_steps(dir: &std::path::Path) {
    let dir = dir.display();
    println!(
        "\nThe data is in {dir}. Serve it:\n\
         \n  evert serve --data {dir}\n\
         \nand, in another terminal:\n\
         \n  psql -h 127.0.0.1 -p 7432 -c 'SELECT * FROM by_city ORDER BY city'\
         \n  redis-cli -p 7379 HGETALL merchant_today:m42\
         \n  curl -s '127.0.0.1:7080/payments_search/_search?q=riya&size=1'\
         \n  psql -h 127.0.0.1 -p 7432 -c 'SHOW VIEWS'\
         \n  kcat -b 127.0.0.1:9092 -t payments -C -o -3 -e"
    );
}
