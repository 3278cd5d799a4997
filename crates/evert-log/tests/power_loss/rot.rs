//! Rot: one flipped bit at any place of any file is found, or it changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evert_log::Planted;

use crate::life::{Plan, Run};
use crate::trouble::{Outcome, Trouble, violation};

const FLIPS_PER_FILE: usize = 12;

/// How many flips were found and how many did nothing, by kind of file.
pub(crate) type Findings = BTreeMap<String, [usize; 2]>;

/// Lets each file of a log rot in turn, one bit at a time.
pub(crate) fn rot(seed: u64, planted: Planted, findings: &mut Findings) -> Outcome {
    let quiet = Plan { interrupted_opens_max: 0, planted, ..Plan::default() };
    let mut run = Run::new(seed, quiet);
    let mut session = run.begin()?;
    run.steps(&mut session, 80)?;
    session.log().pump();
    // The mark of how far the journal is durable is written once the log is idle: from then on
    // a bad frame below it cannot be taken for a torn one.
    run.world.advance(Duration::from_secs(1));
    session.log().pump();
    session.settle(&mut run.oracle, &mut run.clients)?;
    if run.rng.bool() {
        session.log().close();
    }
    run.withdraw(&mut session);
    drop(session);
    run.kill();
    for (file, bytes) in run.world.files() {
        for _ in 0..FLIPS_PER_FILE {
            if bytes > 0 {
                let byte = interesting_byte(&mut run, &file);
                let bit = run.rng.u32(..8);
                flip(&run, &file, byte, bit, findings)?;
            }
        }
    }
    Ok(())
}

fn flip(run: &Run, file: &Path, byte: u64, bit: u32, findings: &mut Findings) -> Outcome {
    let found = match run.open_rotten(file, byte, bit) {
        Ok(()) => false,
        Err(Trouble::Damaged(_)) => true,
        Err(other) => {
            return violation(format!("bit {bit} of byte {byte} of {}: {other}", file.display()));
        }
    };
    findings.entry(kind(file)).or_default()[usize::from(!found)] += 1;
    Ok(())
}

/// Preallocated files are zeros for the most part: bytes that say something come first.
fn interesting_byte(run: &mut Run, file: &Path) -> u64 {
    let bytes = run.world.contents(file).expect("the file is there");
    let written: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
    let somewhere = run.rng.usize(..bytes.len());
    let byte = if run.rng.u8(..8) == 0 { None } else { run.rng.choice(written) };
    byte.unwrap_or(somewhere) as u64
}

/// A file's name without its numbers.
fn kind(file: &Path) -> String {
    let name = PathBuf::from(file.file_name().expect("files have names"));
    let is_number = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_lowercase() || c == '-';
    let extension = name.extension().map(|e| format!(".{}", e.display())).unwrap_or_default();
    let stem = name.file_stem().map(|s| s.display().to_string()).unwrap_or_default();
    format!("{}{extension}", stem.replace(is_number, ""))
}

#[test]
fn a_flipped_bit_is_found_or_does_nothing() {
    let mut findings = Findings::new();
    for seed in 0..30 {
        rot(seed, Planted::default(), &mut findings)
            .unwrap_or_else(|trouble| panic!("seed {seed}: {trouble}"));
    }
    println!("found and harmless, by kind of file: {findings:#?}");
    let found: usize = findings.values().map(|[found, _]| found).sum();
    assert!(found > 100, "hardly anything was found: {findings:?}");
}
