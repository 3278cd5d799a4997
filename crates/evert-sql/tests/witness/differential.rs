//! The differential test: thousands of random views, each against Postgres's answer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::case::{Case, Seeds, Setting, Verdict, Wrong};
use crate::choices::Choices;
use crate::grammar::query;
use crate::postgres::{Connection, Postgres};
use crate::served::{Kept, Shown, serve};

/// Queries that share a world.
const QUERIES_A_WORLD: u64 = 25;
const THREADS: usize = 2;
/// One world of so many is lived through by a whole server too, unless `EVERT_WITNESS_SERVED` says
/// another number.
const SERVED_EVERY: u64 = 5;
/// Wrong cases after which the rest is left.
const WRONG_MAX: usize = 60;
/// Wrong cases that are shrunk and printed.
const SHOWN_MAX: usize = 6;
const SHRINK_TRIES: usize = 400;

/// At most this many of a hundred queries may be refused, ...
const REFUSED_PERCENT_MAX: usize = 1;
/// ... may be refused with another error than "not supported", ...
const REJECTED_PERCENT_MAX: usize = 1;
/// ... may be none of Postgres's, ...
const INVALID_PERCENT_MAX: usize = 1;
/// ... or may have nothing to compare because of rows in error.
const ERRORS_PERCENT_MAX: usize = 2;

/// What came of all cases.
#[derive(Default)]
struct Tally {
    queries: usize,
    positions: usize,
    errors: usize,
    /// Servers, and what they have shown.
    servers: usize,
    shown: Shown,
    refused: Reasons,
    invalid: Reasons,
    /// For each construct: views that were equal, and views in all.
    constructs: BTreeMap<&'static str, (usize, usize)>,
    rejected: Vec<(Seeds, Wrong)>,
    wrong: Vec<(Seeds, Wrong)>,
}

/// Why some were not compared: how many for each reason, and one of them.
type Reasons = BTreeMap<String, (usize, Seeds)>;

fn count(reasons: &mut Reasons, reason: String, seeds: Seeds) {
    reasons.entry(reason).or_insert((0, seeds)).0 += 1;
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

#[test]
fn views_equal_postgres() {
    let seed: u64 = setting("EVERT_SEED", 1);
    let queries: u64 = setting("EVERT_WITNESS_QUERIES", 5000);
    println!("EVERT_SEED={seed} EVERT_WITNESS_QUERIES={queries}");
    let started = std::time::Instant::now();
    let postgres = Postgres::start();
    let worlds = AtomicU64::new(seed);
    let served_every: u64 = setting("EVERT_WITNESS_SERVED", SERVED_EVERY);
    let end = seed + queries.div_ceil(QUERIES_A_WORLD);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (postgres, worlds, tally) = (&postgres, &worlds, &tally);
            scope.spawn(move || {
                runtime().block_on(async {
                    let connection = postgres.connect(&format!("w{thread}")).await;
                    work(&connection, worlds, (end, served_every), tally).await;
                });
            });
        }
    });
    let tally = tally.into_inner().expect("no worker panics");
    println!("{:.1?}", started.elapsed());
    report(&tally);
    let shown = show_wrong(&postgres, &tally.wrong);
    assert!(tally.wrong.is_empty(), "{} views are wrong\n{shown}", tally.wrong.len());
    let bound = |percent: usize| (tally.queries * percent / 100).max(3);
    if tally.rejected.len() > bound(REJECTED_PERCENT_MAX) {
        let shown = show_wrong(&postgres, &tally.rejected);
        panic!("{} queries were rejected\n{shown}", tally.rejected.len());
    }
    let refused: usize = tally.refused.values().map(|(count, _)| count).sum();
    assert!(refused <= bound(REFUSED_PERCENT_MAX), "{refused} queries were refused");
    let invalid: usize = tally.invalid.values().map(|(count, _)| count).sum();
    assert!(invalid <= bound(INVALID_PERCENT_MAX), "Postgres refused {invalid} queries");
    assert!(tally.errors <= bound(ERRORS_PERCENT_MAX), "{} cases in error", tally.errors);
    if queries >= 5000 {
        let Shown { answers, past, ad_hoc, restored } = tally.shown;
        let lived = tally.servers > 10 && restored > 10;
        let enough = lived && answers > 500 && ad_hoc > 500 && past > 30;
        assert!(enough, "servers have shown too little");
        for (construct, (equal, all)) in &tally.constructs {
            assert!(equal * 2 > *all, "only {equal} of {all} views with {construct} were compared");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Takes worlds until `end`, serving one of `served_every`.
async fn work(
    postgres: &Connection,
    worlds: &AtomicU64,
    (end, served_every): (u64, u64),
    tally: &Mutex<Tally>,
) {
    loop {
        let world = worlds.fetch_add(1, Ordering::Relaxed);
        let full = |tally: &Mutex<Tally>| {
            tally.lock().map_or(true, |tally| tally.wrong.len() >= WRONG_MAX)
        };
        if world >= end || full(tally) {
            return;
        }
        let setting = Setting::new(&mut Choices::random(world));
        let seeds: Vec<Seeds> = (0..QUERIES_A_WORLD)
            .map(|index| Seeds { world, query: world * 1_000_003 + index, served: None })
            .collect();
        let draw = |seeds: &Seeds| query(&setting.world, &mut Choices::random(seeds.query));
        let queries: Vec<_> = seeds.iter().map(draw).collect();
        let answers = setting.answers(postgres, &queries).await;
        let mut kept: Vec<(Seeds, Kept<'_>)> = Vec::new();
        for (index, (query, seeds)) in queries.iter().zip(seeds).enumerate() {
            let answers: Vec<_> = answers.iter().map(|answers| &answers[index]).collect();
            let verdict = setting.judge(query, &answers);
            if world.is_multiple_of(served_every) && setting.can_be_served(query, &verdict) {
                kept.push((seeds, Kept { query, answers }));
            }
            let mut tally = tally.lock().expect("no worker panics");
            tally.queries += 1;
            let equal = matches!(verdict, Verdict::Equal(_));
            for construct in &query.constructs {
                let counts = tally.constructs.entry(construct).or_default();
                counts.0 += usize::from(equal);
                counts.1 += 1;
            }
            match verdict {
                Verdict::Equal(positions) => tally.positions += positions,
                Verdict::Refused(what) => count(&mut tally.refused, what, seeds),
                Verdict::Invalid(what) => count(&mut tally.invalid, what, seeds),
                Verdict::Errors => tally.errors += 1,
                Verdict::Wrong(wrong @ Wrong::Rejected(_)) => tally.rejected.push((seeds, wrong)),
                Verdict::Wrong(wrong) => tally.wrong.push((seeds, wrong)),
            }
        }
        if !kept.is_empty() {
            let (seeds, kept): (Vec<Seeds>, Vec<Kept<'_>>) = kept.into_iter().unzip();
            let served = serve(&setting, world, &kept).await;
            let mut tally = tally.lock().expect("no worker panics");
            tally.servers += 1;
            match served {
                Ok(shown) => tally.shown.add(shown),
                Err((index, wrong)) => {
                    tally.wrong.push((Seeds { served: Some(world), ..seeds[index] }, wrong));
                }
            }
        }
    }
}

fn report(tally: &Tally) {
    println!(
        "{} views, {} answers equal, {} with rows in error only",
        tally.queries, tally.positions, tally.errors
    );
    println!("{} servers: {:?}", tally.servers, tally.shown);
    for (construct, (equal, all)) in &tally.constructs {
        println!("  {equal:5} of {all:5} with {construct}");
    }
    let mut rejected = Reasons::new();
    for (seeds, wrong) in &tally.rejected {
        if let Wrong::Rejected(what) = wrong {
            count(&mut rejected, what.clone(), *seeds);
        }
    }
    for (title, reasons) in
        [("rejected", &rejected), ("refused", &tally.refused), ("not Postgres's", &tally.invalid)]
    {
        println!("{title}: {}", reasons.values().map(|(count, _)| count).sum::<usize>());
        let mut reasons: Vec<_> = reasons.iter().collect();
        reasons.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (what, (count, seeds)) in reasons.into_iter().take(40) {
            println!("  {count:5} {what}, for one: {}", Case::of(*seeds).text());
        }
    }
}

/// Scripts of wrong cases, shrunk.
fn show_wrong(postgres: &Postgres, wrong: &[(Seeds, Wrong)]) -> String {
    if wrong.is_empty() {
        return String::new();
    }
    let runtime = runtime();
    let connection = runtime.block_on(postgres.connect("shrink"));
    let run = |case: &Case| runtime.block_on(case.run(&connection));
    let mut shown = String::new();
    for (seeds, wrong) in wrong {
        let found = format!("{wrong:?}");
        println!("{seeds:?}: {} {found:.600}", Case::of(*seeds).text());
    }
    for (seeds, wrong) in wrong.iter().take(setting("EVERT_WITNESS_SHOWN", SHOWN_MAX)) {
        // A server's life takes its time.
        let tries = if seeds.served.is_some() { SHRINK_TRIES / 20 } else { SHRINK_TRIES };
        let case = Case::of(*seeds).shrink(wrong, tries, &run);
        let script = match run(&case) {
            Verdict::Wrong(wrong) => case.script(&wrong),
            other => format!("-- not wrong when run again: {other:?}\n"),
        };
        let world = seeds.world;
        let served = if seeds.served.is_some() { " EVERT_WITNESS_SERVED=1" } else { "" };
        let again = format!("EVERT_SEED={world} EVERT_WITNESS_QUERIES=1{served}");
        shown.push_str(&format!("\n-- {again}\n{script}"));
    }
    shown
}
