//! Readers that follow views by their changes and keep what they were told.

use std::collections::BTreeMap;

use evert_model::{LogTime, Position};
use evert_view::{Name, SubscribeFrom, Subscription, Views};

#[derive(Default)]
pub(crate) struct Followers(Vec<Follower>);

struct Follower {
    view: &'static str,
    at: Position,
    log_time: LogTime,
    rows: BTreeMap<String, i64>,
    /// None after a restart: it begins again where it stands.
    subscription: Option<Subscription>,
}

impl Followers {
    /// Follows a view, beginning with its rows now or as of `after`.
    pub(crate) async fn begin(
        &mut self,
        views: &Views,
        view: &'static str,
        after: Option<Position>,
    ) {
        let from = SubscribeFrom { snapshot: true, after, upto: None };
        let subscription = views.subscribe(&Name::public(view), from).await.expect("begins");
        let mut follower = Follower {
            view,
            at: subscription.position(),
            log_time: LogTime::default(),
            rows: BTreeMap::new(),
            subscription: Some(subscription),
        };
        // The snapshot at least: without it there is nothing to go on from.
        follower.step().await;
        self.0.push(follower);
    }

    /// The server stops.
    pub(crate) fn let_go(&mut self) {
        self.0.iter_mut().for_each(|follower| follower.subscription = None);
    }

    pub(crate) fn forget(&mut self, name: &Name) {
        self.0.retain(|follower| follower.view != name.name);
    }

    /// Reads on until everything up to `end` has come.
    pub(crate) async fn advance(&mut self, views: &Views, end: Position) {
        for follower in &mut self.0 {
            if follower.subscription.is_none() {
                let from = SubscribeFrom { after: Some(follower.at), ..SubscribeFrom::default() };
                let name = Name::public(follower.view);
                follower.subscription = Some(views.subscribe(&name, from).await.expect("resumes"));
            }
            while follower.at < end {
                follower.step().await;
            }
        }
    }

    /// Each view with its position, its log time and its rows as sorted text.
    pub(crate) fn rows(&self) -> Vec<(&'static str, (Position, LogTime), Vec<String>)> {
        let of = |follower: &Follower| {
            let rows = follower.rows.iter().flat_map(|(row, weight)| {
                assert!(*weight > 0, "{} of {row} in {}", weight, follower.view);
                vec![row.clone(); *weight as usize]
            });
            (follower.view, (follower.at, follower.log_time), rows.collect())
        };
        self.0.iter().map(of).collect()
    }
}

impl Follower {
    /// Takes changes until they are complete.
    async fn step(&mut self) {
        let subscription = self.subscription.as_mut().expect("begun");
        loop {
            let changes = subscription.next().await.expect("no end").expect("no error");
            for delta in &changes.deltas {
                for row in 0..delta.len() {
                    let weight = delta.weights.value(row);
                    let text = super::row_text(&delta.rows, row);
                    *self.rows.entry(text).or_default() += weight;
                }
            }
            if changes.complete {
                assert!(changes.position >= self.at, "positions never go back");
                (self.at, self.log_time) = (changes.position, changes.log_time);
                self.rows.retain(|_, weight| *weight != 0);
                return;
            }
        }
    }
}
