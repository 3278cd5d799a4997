//! Workers: one group's evaluation, in a realm that the thread keeps.
//!
//! Owns: what a group may take, and which realm it is evaluated in.
//!
//! Invariants
//! - Whether a group takes too much does not depend on what its realm did before. A kept realm
//!   holds remains of earlier groups and is somewhere between two calls of its handler; so an
//!   evaluation that came near a bound there counts for nothing and is done again in a new realm.
//! - Once a group was given up, none of its script's is begun.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use arrow::array::ArrayRef;
use rquickjs::function::Args;
use rquickjs::{Ctx, Value};

use crate::input;
use crate::realm::{Realm, thrown};
use crate::script::{BYTES_MAX, Failure, Script};

/// Bytes that a kept realm may hold. Half of what a group may, so that a group that fits here fits
/// into a new one whenever its garbage is collected.
const KEPT_BYTES_MAX: usize = BYTES_MAX / 2;
/// Realms that a thread keeps.
const REALMS_MAX: usize = 16;
/// Calls of the handler, each for 10,000 steps, that a group may take without rows, and the rows
/// that it may take one more for.
const CALLS_ALONE: usize = 200;
const ROWS_A_CALL: usize = 2;
/// Calls by which a kept realm and a new one may differ: by where in its 10,000 steps the kept one
/// stands, and by tables of its own that it has made already.
const CALLS_APART: usize = 2;

thread_local! {
    /// The realms of the scripts that this thread has evaluated, the last one last.
    static REALMS: RefCell<Vec<(Weak<u64>, Realm)>> = const { RefCell::new(Vec::new()) };
}

/// The call of the handler at which a group of so many rows is stopped.
pub(crate) fn calls_max(rows: usize) -> usize {
    CALLS_ALONE + rows / ROWS_A_CALL
}

pub(crate) fn fold(script: &Script, batches: &[Vec<ArrayRef>]) -> Result<Option<Vec<u8>>, Failure> {
    if evert_env::is_unwanted() {
        return Err(Failure::Unwanted);
    }
    if script.given_up.load(Ordering::Relaxed) {
        return Err(Failure::TooSlow);
    }
    let outcome = fold_until(script, batches, Instant::now() + script.time_max);
    if matches!(outcome, Err(Failure::TooSlow)) {
        script.given_up.store(true, Ordering::Relaxed);
    }
    outcome
}

fn fold_until(
    script: &Script,
    batches: &[Vec<ArrayRef>],
    until: Instant,
) -> Result<Option<Vec<u8>>, Failure> {
    let rows = batches.iter().map(|batch| batch.first().map_or(0, |column| column.len())).sum();
    let calls_max = calls_max(rows);
    let realm = match take(script) {
        Some(realm) => realm,
        None => {
            make_room();
            make(script, KEPT_BYTES_MAX)?
        }
    };
    realm.meter.begin(calls_max + CALLS_APART, Some(until));
    let outcome = run(&realm, script, batches);
    let meter = &realm.meter;
    let is_near = meter.calls() + CALLS_APART >= calls_max && !meter.is_too_long();
    if !meter.is_late() && (meter.is_too_large() || is_near) {
        drop(realm);
        return fold_anew(script, batches, rows, until);
    }
    if let Some(failure) = stopped(&realm, rows) {
        return Err(failure);
    }
    keep(script, realm);
    outcome
}

/// A group's evaluation that nothing came before.
fn fold_anew(
    script: &Script,
    batches: &[Vec<ArrayRef>],
    rows: usize,
    until: Instant,
) -> Result<Option<Vec<u8>>, Failure> {
    let realm = make(script, BYTES_MAX)?;
    realm.meter.begin(calls_max(rows), Some(until));
    let outcome = run(&realm, script, batches);
    match stopped(&realm, rows) {
        Some(failure) => Err(failure),
        None => outcome,
    }
}

/// Why an evaluation counts for nothing, whatever the code made of it.
pub(crate) fn stopped(realm: &Realm, rows: usize) -> Option<Failure> {
    if realm.meter.is_late() {
        let unwanted = evert_env::is_unwanted();
        return Some(if unwanted { Failure::Unwanted } else { Failure::TooSlow });
    }
    if realm.meter.is_too_large() {
        return Some(Failure::TooLarge);
    }
    if realm.meter.is_too_long() {
        return Some(Failure::TooManySteps { rows });
    }
    realm.is_waiting().then_some(Failure::Waits)
}

fn run(
    realm: &Realm,
    script: &Script,
    batches: &[Vec<ArrayRef>],
) -> Result<Option<Vec<u8>>, Failure> {
    realm.with(|ctx, realm| {
        let outcome = try_run(ctx, realm, script, batches);
        let row = outcome.map_err(|error| Failure::from(thrown(ctx, error)))?;
        row.map(|row| script.packing.pack(ctx, &script.definition.output, &row)).transpose()
    })
}

/// The values that the code returns, one for each column.
fn try_run<'js>(
    ctx: &Ctx<'js>,
    realm: &Realm,
    script: &Script,
    batches: &[Vec<ArrayRef>],
) -> rquickjs::Result<Option<rquickjs::Array<'js>>> {
    let (feed, end) = realm.begin(ctx)?;
    let columns = &script.definition.input;
    for batch in batches {
        for rows in input::portions(batch) {
            let mut args = Args::new(ctx.clone(), columns.len() + 1);
            args.push_arg(rows.len())?;
            for (column, array) in columns.iter().zip(batch) {
                args.push_arg(input::values(ctx, column.ty, array, rows.clone())?)?;
            }
            args.apply::<Value<'js>>(&feed)?;
        }
    }
    end.call(())
}

fn make(script: &Script, bytes_max: usize) -> Result<Realm, Failure> {
    // The code compiled when the script was made.
    Realm::new(&script.definition, bytes_max)
        .map_err(|error| Failure::Thrown { message: error.to_string(), line: None })
}

/// The thread's realm of a script.
fn take(script: &Script) -> Option<Realm> {
    REALMS.with_borrow_mut(|realms| {
        let own = |(id, _): &(Weak<u64>, Realm)| id.as_ptr() == Arc::as_ptr(&script.id);
        let place = realms.iter().rposition(own)?;
        Some(realms.remove(place).1)
    })
}

fn keep(script: &Script, realm: Realm) {
    REALMS.with_borrow_mut(|realms| realms.push((Arc::downgrade(&script.id), realm)));
}

/// Forgets the realms of scripts that are no more, and the one that was used longest ago if there
/// are too many.
fn make_room() {
    REALMS.with_borrow_mut(|realms| {
        realms.retain(|(id, _)| id.strong_count() > 0);
        if realms.len() >= REALMS_MAX {
            realms.remove(0);
        }
    });
}
