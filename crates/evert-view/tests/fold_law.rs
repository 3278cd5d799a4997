//! Law 3: view(P) = fold(log up to P), whatever the ticks, the hydrations and the restarts.
//!
//! Random facts go in (upserts, deletions, commits over several topics, bad records); relations
//! and views come, go and hydrate at random moments; the views are closed and opened again. At
//! each look every readable view must equal what a plain evaluation of the facts up to the cut's
//! position gives. `EVERT_SEED=n` runs one seed, `EVERT_SEEDS=n` that many.

mod world;

use world::{Relation, World};

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("EVERT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("EVERT_SEEDS").unwrap_or(15)).collect(),
    }
}

#[test]
fn views_equal_the_fold_of_the_log_at_every_look() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..150 {
            match world.random.u32(..100) {
                0..60 => world.append_random(),
                60..70 => world.create_something(),
                70..73 => world.drop_something(),
                73..76 => world.reopen(),
                _ => world.look(),
            }
        }
        world.look();
        world.verify_all();
        world.reopen();
        world.look();
    }
}

#[test]
fn a_commit_over_several_topics_is_seen_whole_or_not_at_all() {
    let mut world = World::new(7);
    world.create_all();
    for i in 0..300 {
        // Both sides of a transfer, in one commit over two topics.
        world.append_both(Relation::Accounts, Relation::Events, i);
        world.look();
    }
}
