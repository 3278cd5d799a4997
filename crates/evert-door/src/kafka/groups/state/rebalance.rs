//! From one generation to the next.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{Answer, GroupState, Member, Now, Phase, Ticket};

/// The least that a rebalance waits when none of its members came.
const RETRY_MIN: Duration = Duration::from_millis(100);

impl GroupState {
    /// Asks everyone to join again.
    pub(super) fn prepare_rebalance(&mut self, now: Now) {
        if matches!(self.phase, Phase::PreparingRebalance { .. }) {
            return;
        }
        let waiting: Vec<Ticket> =
            self.members.values_mut().filter_map(|member| member.awaits_sync.take()).collect();
        for ticket in waiting {
            self.refuse_sync(Some(ticket), ResponseError::RebalanceInProgress);
        }
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        let is_new = self.phase == Phase::Empty;
        let deadline = now + self.rebalance_timeout();
        let settles = is_new.then(|| now + self.initial_delay);
        self.phase = Phase::PreparingRebalance { deadline, settles };
    }

    /// Another member came while a new group waits: it waits on, up to the deadline.
    pub(super) fn await_more(&mut self, now: Now) {
        if let Phase::PreparingRebalance { deadline, settles: Some(settles) } = self.phase {
            let settles = settles.max(now + self.initial_delay).min(deadline);
            self.phase = Phase::PreparingRebalance { deadline, settles: Some(settles) };
        }
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// Begins the next generation if everyone has joined, or time is up.
    pub(super) fn finish_join_if_due(&mut self, now: Now) {
        let Phase::PreparingRebalance { deadline, settles } = self.phase else { return };
        let has_everyone = self.pending.is_empty()
            && self.members.values().all(|member| member.awaits_join.is_some());
        // A new group that lost its last member need not wait for more.
        let has_settled = settles.is_none_or(|settles| settles <= now) || self.members.is_empty();
        if deadline <= now || (has_everyone && has_settled) {
            self.finish_join(now);
        }
    }

    fn finish_join(&mut self, now: Now) {
        // Static members may be away for a while: only their session timeout removes them.
        let absent = |it: &&Member| it.awaits_join.is_none() && it.instance_id.is_none();
        let absent: Vec<String> =
            self.members.values().filter(absent).map(|member| member.id.clone()).collect();
        for id in absent {
            self.forget(&id);
        }
        if self.members.is_empty() {
            self.generation += 1;
            self.phase = Phase::Empty;
            self.protocol = None;
            self.leader = None;
            return;
        }
        if !self.elect_leader() {
            // Nobody came: wait on, until they come or their sessions end.
            let deadline = now + self.rebalance_timeout().max(RETRY_MIN);
            self.phase = Phase::PreparingRebalance { deadline, settles: None };
            return;
        }
        self.generation += 1;
        self.protocol = self.select_protocol();
        self.phase = Phase::CompletingRebalance { deadline: now + self.rebalance_timeout() };
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let member = self.members.get_mut(&id).expect("its id is a key");
            member.expires = now + member.session_timeout;
            if let Some(ticket) = member.awaits_join.take() {
                let is_leader = self.leader.as_deref() == Some(&*id);
                let joined = self.joined(&id, is_leader, false);
                self.answer(ticket, Answer::Join(Ok(joined)));
            }
        }
    }

    /// Makes sure that the leader is one of those who joined; false if nobody did.
    fn elect_leader(&mut self) -> bool {
        let has_joined =
            |id: &String| self.members.get(id).is_some_and(|member| member.awaits_join.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let first = self.members.values().find(|member| member.awaits_join.is_some());
        let Some(first) = first.map(|member| member.id.clone()) else { return false };
        self.leader = Some(first);
        true
    }

    /// The protocol that all members speak and most prefer. Ties go to the leader's order.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let spoken_by_all =
            |name: &str| self.members.values().all(|member| member.metadata(name).is_some());
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader))?;
        let mut best: Option<(usize, &str)> = None;
        for (name, _) in leader.protocols.iter().filter(|(name, _)| spoken_by_all(name)) {
            let prefers = |member: &&Member| {
                let choice = member.protocols.iter().find(|(name, _)| spoken_by_all(name));
                choice.is_some_and(|(choice, _)| choice == name)
            };
            let votes = self.members.values().filter(prefers).count();
            if best.is_none_or(|(most, _)| votes > most) {
                best = Some((votes, name));
            }
        }
        best.map(|(_, name)| name.to_owned())
    }

    /// Throws out whoever has not asked for its assignment in time.
    pub(super) fn drop_unsynced(&mut self, now: Now) {
        let unsynced = self.members.values().filter(|member| member.awaits_sync.is_none());
        for id in unsynced.map(|member| member.id.clone()).collect::<Vec<_>>() {
            self.forget(&id);
        }
        self.prepare_rebalance(now);
    }
}
