//! One group as a state machine: members, generations, assignments.
//!
//! Owns: who is in the group, when it rebalances, and what each member is told.
//! Not here: time and randomness, which come in; sockets and tasks (`coordinator`); offsets
//! (`offsets`). What members say to each other (metadata, assignments, the cooperative protocol
//! among them) passes through unread.
//!
//! Source: Apache Kafka's classic group protocol (KIP-62, 134, 345, 394, 559, 814).
//!
//! Invariants
//! - A generation's members all answered its join; its number grows by one each time.
//! - Every request that came in is answered once: at once, or when the rebalance it waits for
//!   ends.
//! - Only members of the current generation get assignments or may commit.
//! - A member that waits for an answer is not thrown out for its silence.

mod answer;
mod input;
mod member;
mod rebalance;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

pub(crate) use answer::{Answer, JoinRefused, Joined, JoinedMember, Output, Synced};
pub(crate) use input::{Identity, Input, Join, Sync, Ticket};
pub(crate) use member::Member;

/// Time since an arbitrary start.
pub(crate) type Now = Duration;

/// Where a group is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There are no members.
    Empty,
    /// Members are asked to join again, until the deadline at the latest.
    PreparingRebalance {
        /// When whoever has not joined is left behind.
        deadline: Now,
        /// For a new group: it waits this long for more members, but no longer than the
        /// deadline, even if all it knows have joined.
        settles: Option<Now>,
    },
    /// A generation has begun; its leader owes the assignments.
    CompletingRebalance {
        /// When whoever has not asked for its assignment is thrown out.
        deadline: Now,
    },
    /// Everyone has an assignment.
    Stable,
}

impl Phase {
    /// Kafka's name of the phase.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance { .. } => "PreparingRebalance",
            Self::CompletingRebalance { .. } => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct GroupState {
    phase: Phase,
    generation: i32,
    protocol_type: String,
    /// The assignment protocol of this generation.
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids by `group.instance.id`.
    instances: BTreeMap<String, String>,
    /// Ids that were given out and not used yet, and when they lapse (KIP-394).
    pending: BTreeMap<String, Now>,
    initial_delay: Duration,
    outputs: Vec<Output>,
}

impl GroupState {
    /// A group without members, which waits `initial_delay` for more when its first one comes.
    pub(crate) fn new(initial_delay: Duration) -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            initial_delay,
            outputs: Vec::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    /// The assignment protocol, once there is a generation.
    pub(crate) fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Whether nothing would be lost if the group were forgotten.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.phase == Phase::Empty && self.pending.is_empty()
    }

    /// Takes one request. Gives the answers that it leads to, its own among them unless it must
    /// wait.
    pub(crate) fn step(&mut self, input: Input, now: Now) -> Vec<Output> {
        match input {
            Input::Join(join) => self.join(join, now),
            Input::Sync(sync) => self.sync(sync, now),
            Input::Heartbeat { ticket, identity, generation } => {
                let answer = self.heartbeat(&identity, generation, now);
                self.answer(ticket, Answer::Heartbeat(answer));
            }
            Input::Leave { ticket, members } => {
                let answer = members.iter().map(|member| self.leave(member, now)).collect();
                self.answer(ticket, Answer::Leave(answer));
            }
        }
        std::mem::take(&mut self.outputs)
    }

    /// Lets time pass: silent members are thrown out, overdue rebalances end.
    pub(crate) fn tick(&mut self, now: Now) -> Vec<Output> {
        self.pending.retain(|_, lapses| *lapses > now);
        let silent = |member: &&Member| !member.is_waiting() && member.expires <= now;
        let silent: Vec<String> =
            self.members.values().filter(silent).map(|member| member.id.clone()).collect();
        for id in silent {
            tracing::info!(member = id, "kafka: a group's member fell silent");
            self.remove(&id, now);
        }
        if let Phase::CompletingRebalance { deadline } = self.phase
            && deadline <= now
        {
            self.drop_unsynced(now);
        }
        self.finish_join_if_due(now);
        std::mem::take(&mut self.outputs)
    }

    /// When `tick` has something to do, if nothing else happens.
    pub(crate) fn next_deadline(&self) -> Option<Now> {
        let phase = match self.phase {
            Phase::PreparingRebalance { deadline, settles } => {
                Some(settles.map_or(deadline, |settles| settles.min(deadline)))
            }
            Phase::CompletingRebalance { deadline } => Some(deadline),
            Phase::Empty | Phase::Stable => None,
        };
        let members = self.members.values().filter(|member| !member.is_waiting());
        let members = members.map(|member| member.expires);
        phase.into_iter().chain(members).chain(self.pending.values().copied()).min()
    }

    /// Whether a member may commit offsets. A commit counts as a sign of life.
    pub(crate) fn check_commit(
        &mut self,
        identity: &Identity,
        generation: i32,
        now: Now,
    ) -> Result<(), ResponseError> {
        if self.phase == Phase::Empty && generation < 0 {
            // A consumer that assigns itself its partitions.
            return Ok(());
        }
        self.check_member(identity, generation)?;
        self.touch(&identity.member_id, now);
        match self.phase {
            Phase::CompletingRebalance { .. } => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn join(&mut self, join: Join, now: Now) {
        let ticket = join.ticket;
        let told_id = join.identity.member_id.clone();
        if let Err(error) = self.try_join(join, now) {
            let refused = JoinRefused { error, member_id: told_id };
            self.answer(ticket, Answer::Join(Err(refused)));
        }
        self.finish_join_if_due(now);
    }

    fn try_join(&mut self, join: Join, now: Now) -> Result<(), ResponseError> {
        if !self.is_compatible(&join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if !join.identity.member_id.is_empty() {
            return self.join_again(join, now);
        }
        match join.identity.instance_id.as_ref().and_then(|it| self.instances.get(it)) {
            Some(old_id) => {
                let old_id = old_id.clone();
                self.replace_static(&old_id, join, now);
            }
            None if join.must_know_id => {
                self.pending.insert(join.fresh_id.clone(), now + join.session_timeout);
                let error = ResponseError::MemberIdRequired;
                let refused = JoinRefused { error, member_id: join.fresh_id };
                self.answer(join.ticket, Answer::Join(Err(refused)));
            }
            None => {
                let id = join.fresh_id.clone();
                self.add(id, join, now);
            }
        }
        Ok(())
    }

    /// Whether the group can take a member that speaks these protocols.
    fn is_compatible(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        // A member that joins again may change its mind, so it does not count itself.
        let others = self.members.values().filter(|it| it.id != join.identity.member_id);
        let spoken_by_all =
            |name: &str| others.clone().all(|member| member.metadata(name).is_some());
        self.protocol_type == join.protocol_type
            && join.protocols.iter().any(|(name, _)| spoken_by_all(name))
    }

    /// A join under an id that the client believes to have.
    fn join_again(&mut self, join: Join, now: Now) -> Result<(), ResponseError> {
        let id = join.identity.member_id.clone();
        if self.pending.remove(&id).is_some() {
            self.add(id, join, now);
            return Ok(());
        }
        self.check_identity(&join.identity)?;
        let member = self.members.get_mut(&id).expect("the identity was checked");
        let is_same = member.protocols == join.protocols;
        let is_leader = self.leader.as_deref() == Some(&*id);
        let must_rebalance = match self.phase {
            Phase::Empty => return Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance { .. } => false,
            Phase::CompletingRebalance { .. } if is_same => {
                // Its answer may have been lost: say it again.
                return self.repeat_join(&id, join.ticket, is_leader, false, now);
            }
            Phase::CompletingRebalance { .. } => true,
            // A leader joins again when the topics it assigns have changed.
            Phase::Stable if is_same && !is_leader => {
                return self.repeat_join(&id, join.ticket, false, false, now);
            }
            Phase::Stable => true,
        };
        let replaced = member.update(join, now);
        self.refuse_join(replaced, ResponseError::UnknownMemberId);
        if must_rebalance {
            self.prepare_rebalance(now);
        }
        Ok(())
    }

    fn repeat_join(
        &mut self,
        id: &str,
        ticket: Ticket,
        with_members: bool,
        skip_assignment: bool,
        now: Now,
    ) -> Result<(), ResponseError> {
        self.touch(id, now);
        let joined = self.joined(id, with_members, skip_assignment);
        self.answer(ticket, Answer::Join(Ok(joined)));
        Ok(())
    }

    fn add(&mut self, id: String, join: Join, now: Now) {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.identity.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id.clone(), Member::new(id, join, now));
        self.prepare_rebalance(now);
        self.await_more(now);
    }

    /// A static member came back under a new id: it takes the place of the old one, and without
    /// a rebalance if nothing else about it changed (KIP-345).
    fn replace_static(&mut self, old_id: &str, join: Join, now: Now) {
        let mut member = self.members.remove(old_id).expect("every instance is a member");
        self.refuse_join(member.awaits_join.take(), ResponseError::FencedInstanceId);
        self.refuse_sync(member.awaits_sync.take(), ResponseError::FencedInstanceId);
        let id = join.fresh_id.clone();
        let (ticket, can_skip) = (join.ticket, join.can_skip_assignment);
        if let Some(instance) = &join.identity.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        let was_leader = self.leader.as_deref() == Some(old_id);
        if was_leader {
            self.leader = Some(id.clone());
        }
        member.id.clone_from(&id);
        member.update(join, now);
        self.members.insert(id.clone(), member);
        match self.phase {
            Phase::Stable if self.select_protocol() == self.protocol => {
                let member = self.members.get_mut(&id).expect("it was just inserted");
                member.awaits_join = None;
                let mut joined = self.joined(&id, was_leader && can_skip, was_leader && can_skip);
                if was_leader && !can_skip {
                    // Told of another leader it computes no assignment, which a stable group
                    // would not hand out (KIP-814).
                    joined.leader = old_id.to_owned();
                }
                self.answer(ticket, Answer::Join(Ok(joined)));
            }
            Phase::Stable | Phase::CompletingRebalance { .. } => self.prepare_rebalance(now),
            Phase::PreparingRebalance { .. } | Phase::Empty => {}
        }
    }

    /// What a member is told about the generation.
    fn joined(&self, id: &str, with_members: bool, skip_assignment: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.values().map(|member| JoinedMember {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(&protocol).cloned().unwrap_or_default(),
        });
        Joined {
            members: if with_members { members.collect() } else { Vec::new() },
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            skip_assignment,
            protocol,
        }
    }

    fn sync(&mut self, sync: Sync, now: Now) {
        let ticket = sync.ticket;
        if let Err(error) = self.try_sync(sync, now) {
            self.refuse_sync(Some(ticket), error);
        }
    }

    fn try_sync(&mut self, sync: Sync, now: Now) -> Result<(), ResponseError> {
        self.check_member(&sync.identity, sync.generation)?;
        let differs = |said: &Option<String>, own: Option<&str>| {
            said.as_deref().is_some_and(|said| Some(said) != own)
        };
        if differs(&sync.protocol_type, Some(&self.protocol_type))
            || differs(&sync.protocol, self.protocol.as_deref())
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let id = sync.identity.member_id;
        self.touch(&id, now);
        match self.phase {
            Phase::Empty => Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Stable => {
                let synced = self.synced(&id);
                self.answer(sync.ticket, Answer::Sync(Ok(synced)));
                Ok(())
            }
            Phase::CompletingRebalance { .. } => {
                let member = self.members.get_mut(&id).expect("the member was checked");
                let replaced = member.awaits_sync.replace(sync.ticket);
                self.refuse_sync(replaced, ResponseError::UnknownMemberId);
                if self.leader.as_deref() == Some(&*id) {
                    self.assign(sync.assignments, now);
                }
                Ok(())
            }
        }
    }

    /// The leader's word: everyone who waits gets an assignment, empty if none was made.
    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: Now) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let member = self.members.get_mut(&id).expect("its id is a key");
            if let Some(ticket) = member.awaits_sync.take() {
                member.expires = now + member.session_timeout;
                let synced = self.synced(&id);
                self.answer(ticket, Answer::Sync(Ok(synced)));
            }
        }
    }

    fn synced(&self, id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: self.members.get(id).map(|it| it.assignment.clone()).unwrap_or_default(),
        }
    }

    fn heartbeat(
        &mut self,
        identity: &Identity,
        generation: i32,
        now: Now,
    ) -> Result<(), ResponseError> {
        self.check_member(identity, generation)?;
        self.touch(&identity.member_id, now);
        match self.phase {
            Phase::PreparingRebalance { .. } => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn leave(&mut self, leaver: &Identity, now: Now) -> Result<(), ResponseError> {
        if self.pending.remove(&leaver.member_id).is_some() {
            self.finish_join_if_due(now);
            return Ok(());
        }
        let id = match &leaver.instance_id {
            // An administrator removes a static member by its instance alone.
            Some(instance) if leaver.member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?
            }
            _ => {
                self.check_identity(leaver)?;
                leaver.member_id.clone()
            }
        };
        self.remove(&id, now);
        Ok(())
    }

    /// Takes a member out, and has the rest rebalance.
    fn remove(&mut self, id: &str, now: Now) {
        self.forget(id);
        self.prepare_rebalance(now);
        self.finish_join_if_due(now);
    }

    fn forget(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        self.refuse_join(member.awaits_join, ResponseError::UnknownMemberId);
        self.refuse_sync(member.awaits_sync, ResponseError::UnknownMemberId);
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    fn check_identity(&self, identity: &Identity) -> Result<(), ResponseError> {
        if let Some(instance) = &identity.instance_id {
            return match self.instances.get(instance) {
                None => Err(ResponseError::UnknownMemberId),
                Some(id) if *id != identity.member_id => Err(ResponseError::FencedInstanceId),
                Some(_) => Ok(()),
            };
        }
        match self.members.contains_key(&identity.member_id) {
            true => Ok(()),
            false => Err(ResponseError::UnknownMemberId),
        }
    }

    fn check_member(&self, identity: &Identity, generation: i32) -> Result<(), ResponseError> {
        self.check_identity(identity)?;
        match generation == self.generation {
            true => Ok(()),
            false => Err(ResponseError::IllegalGeneration),
        }
    }

    fn touch(&mut self, id: &str, now: Now) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires = now + member.session_timeout;
        }
    }

    fn refuse_join(&mut self, ticket: Option<Ticket>, error: ResponseError) {
        if let Some(ticket) = ticket {
            let refused = JoinRefused { error, member_id: String::new() };
            self.answer(ticket, Answer::Join(Err(refused)));
        }
    }

    fn refuse_sync(&mut self, ticket: Option<Ticket>, error: ResponseError) {
        if let Some(ticket) = ticket {
            self.answer(ticket, Answer::Sync(Err(error)));
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.outputs.push(Output { ticket, answer });
    }
}
