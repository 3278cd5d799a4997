//! `evert demo`: the payments example on an embedded server with its doors open.
//!
//! A generator appends payments to the log at a steady rate, or a Postgres's write-ahead log brings
//! them. The views stay live and are read as their readers would read them. At the end each is
//! compared with a replay from the log's beginning.

mod feed;
mod freshness;
mod panels;
pub(crate) mod payments;
mod postgres;
mod screen;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use evert_model::{Lsn, Position};
use evert_view::{Name, Views};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::output::print;
use crate::serve::{Addresses, Server};
use crate::settings::Settings;
use feed::{Feed, Target, Telling, watch_cuts};
use panels::Reader;
use payments::{FOLDED, Payments, TABLE, VIEWS, merchants_sql, views_sql};
use postgres::{Origin, RELATION, SOURCE, Totals};
use screen::{Figures, Screen, print_panels};

/// The settlement is read as of this long after the start.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

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
    /// Commit the payments in this Postgres (wal_level = logical), in a table public.payments that
    /// comes and goes, and take them from its write-ahead log; with --keep they stay there
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

/// Runs the demo.
///
/// # Errors
/// When the server cannot start, or a view differs from its replay.
pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let mut interrupts = Interrupts::new()?;
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    let dir = args.keep.clone().unwrap_or_else(|| scratch.path().to_path_buf());
    let origin = match &args.postgres {
        Some(url) => Some(Arc::new(Origin::open(url).await?)),
        None => None,
    };
    let outcome = serve(dir, &args, origin.as_ref(), &mut interrupts).await;
    let left = match &origin {
        Some(origin) if args.keep.is_none() => origin.leave().await,
        _ => Ok(()),
    };
    let differing = outcome?;
    left?;
    if let Some(dir) = &args.keep {
        print_next_steps(dir, origin.is_some())?;
    }
    if differing > 0 {
        bail!("{differing} of {} views differ from their replay", VIEWS.len());
    }
    Ok(())
}

/// What ends the demo early, also while it is being set up: nothing may be left behind in another
/// server then.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs a server and plays on it; gives how many views differ from their replay.
async fn serve(
    dir: PathBuf,
    args: &DemoArgs,
    origin: Option<&Arc<Origin>>,
    interrupts: &mut Interrupts,
) -> Result<usize> {
    let server = start(dir).await?;
    let outcome = play(&server, args, origin, interrupts).await;
    let dropped = match origin {
        // Its slot would make that server keep its write-ahead log for ever.
        Some(_) if args.keep.is_none() => drop_source(&server).await,
        _ => Ok(()),
    };
    let stopped = server.stop().await;
    let differing = outcome?;
    dropped?;
    stopped?;
    Ok(differing)
}

async fn drop_source(server: &Server) -> Result<()> {
    let client = connect(&server.addresses).await?;
    let dropped = client.batch_execute(&format!("DROP SOURCE IF EXISTS {SOURCE} CASCADE")).await;
    dropped.context("the source's replication slot is left behind in that Postgres")
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

async fn play(
    server: &Server,
    args: &DemoArgs,
    origin: Option<&Arc<Origin>>,
    interrupts: &mut Interrupts,
) -> Result<usize> {
    let client = connect(&server.addresses).await?;
    print(&format!("evert demo: {}\n", server.addresses))?;
    let relation = set_up(&client, origin.map(Arc::as_ref)).await?;
    let first_id = match origin {
        Some(origin) => origin.first_id,
        None => next_payment_id(&client).await?,
    };
    let settled_at = chrono::Utc::now() + SETTLED_AFTER;
    let reader = Reader { client, keyvalue: server.addresses.keyvalue, settled_at };

    let telling = Telling::default();
    let watcher = tokio::spawn(watch_cuts(server.views.clone(), telling.clone()));
    let started = Instant::now();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let feed = Feed {
        views: server.views.clone(),
        target: origin.map_or(Target::Log, |origin| Target::Postgres(Arc::clone(origin))),
        payments: Payments::new(started.elapsed().as_nanos() as u64 ^ first_id, first_id),
        rate: args.rate,
        telling: telling.clone(),
    };
    let feeding = tokio::spawn(feed.run(stopped));
    let mut screen = Screen::new()?;
    let end = args.seconds.map(|seconds| started + Duration::from_secs(seconds));
    let mut shown = Ok(());
    while !feeding.is_finished() && shown.is_ok() {
        tokio::select! {
            () = tokio::time::sleep(screen.period()) => {
                let panels = if screen.is_live() { reader.panels().await? } else { Vec::new() };
                shown = screen.show(&panels, &figures(&server.views, &telling, started.elapsed()));
            }
            () = until(end) => break,
            () = interrupts.next() => break,
        }
    }
    stop.send_replace(true);
    let last = feeding.await.context("the generator ended in a panic")??;
    let elapsed = started.elapsed();
    drop(screen);
    // Not before the generator has stopped.
    shown?;
    let names: Vec<_> = VIEWS[..FOLDED].iter().copied().map(Name::public).collect();
    server.views.pin(&names, last, Duration::from_secs(60)).await?;
    let spent = figures(&server.views, &telling, elapsed);
    watcher.abort();
    print_panels(&reader.panels().await?)?;
    let mut differing = verify(&reader.client, last).await?;
    if let Some(origin) = origin {
        differing += usize::from(!agrees(&reader.client, origin, relation).await?);
    }
    print(&format!("{}\n", spent.line()))?;
    Ok(differing)
}

/// Makes the relation and its views; gives the relation's name.
async fn set_up(client: &Client, origin: Option<&Origin>) -> Result<&'static str> {
    let relation = match origin {
        Some(origin) => {
            let created = client.batch_execute(&origin.source_sql()).await;
            created.context("that Postgres's write-ahead log cannot be read")?;
            RELATION
        }
        None => {
            client.batch_execute(TABLE).await?;
            "payments"
        }
    };
    for statement in views_sql(relation) {
        client.batch_execute(&statement).await?;
    }
    client.batch_execute(&merchants_sql()).await?;
    Ok(relation)
}

/// What the line above the panels says.
fn figures(views: &Views, telling: &Telling, elapsed: Duration) -> Figures {
    let told = telling.get();
    let [p50, p99] = told.freshness.quantiles([0.5, 0.99]);
    let (shown, end) = (views.position(), views.log().end());
    let mut lag = format!("views at position {shown} of {end}");
    if let Some(committed) = told.committed {
        let here = views.source_state(SOURCE).map_or(Lsn::new(0), |state| state.lsn);
        lag.push_str(&format!(
            ", at LSN {} of {} ({} bytes behind)",
            here.to_postgres(),
            committed.to_postgres(),
            committed.get().saturating_sub(here.get()),
        ));
    }
    Figures { elapsed, facts: told.payments, p50, p99, lag }
}

/// Whether the payments are what that Postgres says they are.
async fn agrees(client: &Client, origin: &Origin, relation: &str) -> Result<bool> {
    let sql = format!(
        "SELECT (SELECT count(*) FROM {relation})::text, \
         (SELECT coalesce(sum(captured), 0) FROM settlement)::text"
    );
    let row = client.query_one(&sql, &[]).await?;
    let here = Totals { payments: row.get(0), captured: row.get(1) };
    let there = origin.totals().await?;
    let equal = here == there;
    let Totals { payments, captured } = &there;
    let verdict = if equal { "equal".to_owned() } else { format!("DIFFERENT: {here:?}") };
    print(&format!(
        "compare with Postgres: {payments} payments, {captured} captured, {verdict}\n"
    ))?;
    Ok(equal)
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

/// Compares each view with a replay from zero; gives how many differ.
async fn verify(client: &Client, last: Position) -> Result<usize> {
    let mut differing = 0;
    print("\n")?;
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
        print(&format!(
            "verify {name} at position {}: {} rows live, {} rows replayed from zero, {}\n",
            told("position"),
            told("rows_live"),
            told("rows_replayed"),
            if equal { "equal" } else { "DIFFERENT" },
        ))?;
        differing += usize::from(!equal);
    }
    Ok(differing)
}

fn print_next_steps(dir: &Path, from_postgres: bool) -> Result<()> {
    let dir = dir.display();
    let topic = if from_postgres { "demo.public.payments" } else { "payments" };
    print(&format!(
        "\nThe data is in {dir}. Serve it:\n\
         \n  evert serve --data {dir}\n\
         \nand, in another terminal:\n\
         \n  psql -h 127.0.0.1 -p 7432 -c 'SELECT * FROM by_city ORDER BY city'\
         \n  redis-cli -p 7379 HGETALL merchant_today:m42\
         \n  curl -s '127.0.0.1:7080/payments_search/_search?q=riya&size=1'\
         \n  psql -h 127.0.0.1 -p 7432 -c 'SHOW VIEWS'\
         \n  kcat -b 127.0.0.1:9092 -t {topic} -C -o -3 -e\n"
    ))?;
    if from_postgres {
        print(&format!(
            "\nThat Postgres keeps its write-ahead log for it until:\n\
             \n  psql -h 127.0.0.1 -p 7432 -c 'DROP SOURCE {SOURCE} CASCADE'\n"
        ))?;
    }
    Ok(())
}
