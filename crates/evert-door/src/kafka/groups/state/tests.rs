//! Groups, played through without a clock.

use super::*;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);
const DELAY: Duration = Duration::from_secs(3);

fn at(seconds: u64) -> Now {
    Duration::from_secs(seconds)
}

fn named(id: &str) -> Identity {
    Identity { member_id: id.to_owned(), instance_id: None }
}

fn fixed(id: &str, instance: &str) -> Identity {
    Identity { member_id: id.to_owned(), instance_id: Some(instance.to_owned()) }
}

/// A group, and the tickets it gave.
struct Play {
    group: GroupState,
    last_ticket: Ticket,
    answers: Vec<Output>,
}

impl Play {
    fn new() -> Self {
        Self { group: GroupState::new(DELAY), last_ticket: 0, answers: Vec::new() }
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }

    fn join_with(&mut self, now: Now, who: Identity, change: impl FnOnce(&mut Join)) -> Ticket {
        let ticket = self.ticket();
        let mut join = Join {
            ticket,
            identity: who,
            fresh_id: format!("m{ticket}"),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"meta"))],
            must_know_id: false,
            can_skip_assignment: false,
        };
        change(&mut join);
        let outputs = self.group.step(Input::Join(join), now);
        self.answers.extend(outputs);
        ticket
    }

    fn join(&mut self, now: Now, who: Identity) -> Ticket {
        self.join_with(now, who, |_| {})
    }

    fn sync(
        &mut self,
        now: Now,
        who: Identity,
        generation: i32,
        assignments: &[(&str, &str)],
    ) -> Ticket {
        let ticket = self.ticket();
        let assignments = assignments
            .iter()
            .map(|(id, share)| ((*id).to_owned(), Bytes::copy_from_slice(share.as_bytes())));
        let sync = Sync {
            ticket,
            identity: who,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        let outputs = self.group.step(Input::Sync(sync), now);
        self.answers.extend(outputs);
        ticket
    }

    fn beat(&mut self, now: Now, who: Identity, generation: i32) -> Result<(), ResponseError> {
        let ticket = self.ticket();
        let input = Input::Heartbeat { ticket, identity: who, generation };
        let outputs = self.group.step(input, now);
        self.answers.extend(outputs);
        match self.answer(ticket) {
            Some(Answer::Heartbeat(alive)) => alive,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, now: Now, who: Identity) -> Result<(), ResponseError> {
        let ticket = self.ticket();
        let outputs = self.group.step(Input::Leave { ticket, members: vec![who] }, now);
        self.answers.extend(outputs);
        match self.answer(ticket) {
            Some(Answer::Leave(left)) => left[0],
            other => panic!("{other:?}"),
        }
    }

    fn tick(&mut self, now: Now) {
        let outputs = self.group.tick(now);
        self.answers.extend(outputs);
    }

    fn answer(&mut self, ticket: Ticket) -> Option<Answer> {
        let place = self.answers.iter().position(|output| output.ticket == ticket)?;
        Some(self.answers.remove(place).answer)
    }

    fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.answer(ticket) {
            Some(Answer::Join(Ok(joined))) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn join_error(&mut self, ticket: Ticket) -> ResponseError {
        match self.answer(ticket) {
            Some(Answer::Join(Err(refused))) => refused.error,
            other => panic!("{other:?}"),
        }
    }

    fn synced(&mut self, ticket: Ticket) -> Result<Bytes, ResponseError> {
        match self.answer(ticket) {
            Some(Answer::Sync(synced)) => synced.map(|synced| synced.assignment),
            other => panic!("{other:?}"),
        }
    }

    /// Two members, `m1` leading and `m2`, stable in generation 1 at second 4.
    fn pair() -> Self {
        let mut play = Self::new();
        let first = play.join(at(0), named(""));
        let second = play.join(at(1), named(""));
        play.tick(at(4));
        assert_eq!(play.joined(first).member_id, "m1");
        assert_eq!(play.joined(second).member_id, "m2");
        let follower = play.sync(at(4), named("m2"), 1, &[]);
        let leader = play.sync(at(4), named("m1"), 1, &[("m1", "a"), ("m2", "b")]);
        assert_eq!(play.synced(leader), Ok(Bytes::from_static(b"a")));
        assert_eq!(play.synced(follower), Ok(Bytes::from_static(b"b")));
        assert_eq!(play.group.phase(), Phase::Stable);
        play
    }
}

#[test]
fn a_new_group_waits_for_more_members() {
    let mut play = Play::new();
    let first = play.join(at(0), named(""));
    play.tick(at(2));
    assert_eq!(play.answer(first), None, "it waits");
    let second = play.join(at(2), named(""));
    play.tick(at(4));
    assert_eq!(play.answer(first), None, "the second one made it wait on");
    play.tick(at(5));
    let (first, second) = (play.joined(first), play.joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, "m1");
    assert_eq!(second.leader, "m1");
    assert_eq!(first.members.len(), 2, "the leader hears of everyone");
    assert!(second.members.is_empty(), "the others do not");
    assert_eq!(first.protocol, "range");
}

#[test]
fn a_follower_waits_for_the_leaders_assignment() {
    let mut play = Play::new();
    let joins = [play.join(at(0), named("")), play.join(at(0), named(""))];
    play.tick(at(3));
    for ticket in joins {
        play.joined(ticket);
    }
    let follower = play.sync(at(3), named("m2"), 1, &[]);
    assert_eq!(play.answer(follower), None);
    play.sync(at(3), named("m1"), 1, &[("m1", "a")]);
    assert_eq!(play.synced(follower), Ok(Bytes::new()), "the leader gave it nothing");
}

#[test]
fn a_third_member_makes_everyone_join_again() {
    let mut play = Play::pair();
    let third = play.join(at(5), named(""));
    assert_eq!(play.answer(third), None);
    assert_eq!(play.beat(at(5), named("m1"), 1), Err(ResponseError::RebalanceInProgress));
    let first = play.join(at(6), named("m1"));
    let second = play.join(at(7), named("m2"));
    let joined = play.joined(first);
    assert_eq!((joined.generation, joined.members.len()), (2, 3));
    assert_eq!(play.joined(second).generation, 2);
    assert_eq!(play.joined(third).generation, 2);
    assert_eq!(play.beat(at(8), named("m1"), 1), Err(ResponseError::IllegalGeneration));
    let stale = play.sync(at(8), named("m2"), 1, &[]);
    assert_eq!(play.synced(stale), Err(ResponseError::IllegalGeneration));
}

#[test]
fn whoever_does_not_join_again_in_time_is_left_behind() {
    let mut play = Play::pair();
    let third = play.join(at(5), named(""));
    // The second one is alive but never joins; it would also be silent by then.
    for second in 6..65 {
        assert_eq!(play.beat(at(second), named("m2"), 1), Err(ResponseError::RebalanceInProgress));
        if second == 6 {
            play.join(at(6), named("m1"));
        }
        play.tick(at(second));
        assert_eq!(play.answer(third), None, "second {second}");
    }
    play.tick(at(65));
    assert_eq!(play.joined(third).generation, 2);
    assert_eq!(play.group.members().count(), 2);
    assert_eq!(play.beat(at(65), named("m2"), 2), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_silent_member_is_thrown_out() {
    let mut play = Play::pair();
    assert_eq!(play.beat(at(10), named("m1"), 1), Ok(()));
    assert_eq!(play.group.next_deadline(), Some(at(14)));
    play.tick(at(14));
    assert_eq!(play.beat(at(14), named("m1"), 1), Err(ResponseError::RebalanceInProgress));
    assert_eq!(play.beat(at(14), named("m2"), 1), Err(ResponseError::UnknownMemberId));
    let again = play.join(at(15), named("m1"));
    assert_eq!(play.joined(again).members.len(), 1);
}

#[test]
fn the_leader_may_leave() {
    let mut play = Play::pair();
    assert_eq!(play.leave(at(5), named("m1")), Ok(()));
    assert_eq!(play.leave(at(5), named("m1")), Err(ResponseError::UnknownMemberId));
    let again = play.join(at(6), named("m2"));
    let joined = play.joined(again);
    assert_eq!((joined.leader.as_str(), joined.members.len()), ("m2", 1));
    assert_eq!(play.leave(at(7), named("m2")), Ok(()));
    assert_eq!(play.group.phase(), Phase::Empty);
    assert!(play.group.is_forgettable());
}

#[test]
fn a_leader_that_never_assigns_is_thrown_out() {
    let mut play = Play::new();
    let joins = [play.join(at(0), named("")), play.join(at(0), named(""))];
    play.tick(at(3));
    for ticket in joins {
        play.joined(ticket);
    }
    let follower = play.sync(at(4), named("m2"), 1, &[]);
    // The leader shows signs of life, and owes the assignments all the same.
    for second in 5..63 {
        assert_eq!(play.beat(at(second), named("m1"), 1), Ok(()));
        play.tick(at(second));
    }
    assert_eq!(play.answer(follower), None);
    play.tick(at(63));
    assert_eq!(play.synced(follower), Err(ResponseError::RebalanceInProgress));
    assert_eq!(play.group.members().count(), 1);
    let again = play.join(at(64), named("m2"));
    assert_eq!(play.joined(again).leader, "m2");
}

#[test]
fn a_new_member_must_come_back_with_its_id() {
    let mut play = Play::new();
    let ticket = play.join_with(at(0), named(""), |join| join.must_know_id = true);
    let refused = match play.answer(ticket) {
        Some(Answer::Join(Err(refused))) => refused,
        other => panic!("{other:?}"),
    };
    assert_eq!((refused.error, &*refused.member_id), (ResponseError::MemberIdRequired, "m1"));
    assert!(!play.group.is_forgettable(), "the id may still be used");
    let again = play.join_with(at(1), named("m1"), |join| join.must_know_id = true);
    play.tick(at(4));
    assert_eq!(play.joined(again).member_id, "m1");

    let mut play = Play::new();
    play.join_with(at(0), named(""), |join| join.must_know_id = true);
    play.tick(at(10));
    assert!(play.group.is_forgettable(), "the id lapsed");
    let late = play.join(at(11), named("m1"));
    assert_eq!(play.join_error(late), ResponseError::UnknownMemberId);
}

#[test]
fn members_agree_on_the_protocol_most_prefer() {
    let speaks = |names: &'static [&'static str]| {
        move |join: &mut Join| {
            let metadata = |name: &&str| ((*name).to_owned(), Bytes::from_static(b"m"));
            join.protocols = names.iter().map(metadata).collect();
        }
    };
    let mut play = Play::new();
    let first = play.join_with(at(0), named(""), speaks(&["range", "sticky", "own"]));
    play.join_with(at(0), named(""), speaks(&["sticky", "range"]));
    play.join_with(at(0), named(""), speaks(&["sticky", "range"]));
    let odd = play.join_with(at(0), named(""), speaks(&["own"]));
    assert_eq!(play.join_error(odd), ResponseError::InconsistentGroupProtocol);
    let connect = play.join_with(at(0), named(""), |join| join.protocol_type = "connect".into());
    assert_eq!(play.join_error(connect), ResponseError::InconsistentGroupProtocol);
    let mute = play.join_with(at(0), named(""), |join| join.protocols.clear());
    assert_eq!(play.join_error(mute), ResponseError::InconsistentGroupProtocol);
    play.tick(at(3));
    assert_eq!(play.joined(first).protocol, "sticky");
}

#[test]
fn a_follower_that_joins_again_unchanged_disturbs_nobody() {
    let mut play = Play::pair();
    let again = play.join(at(5), named("m2"));
    assert_eq!(play.joined(again).generation, 1);
    assert_eq!(play.group.phase(), Phase::Stable);
    // The cooperative protocol says what a member owns in its metadata: a change rebalances.
    let changed = play.join_with(at(6), named("m2"), |join| {
        join.protocols = vec![("range".into(), Bytes::from_static(b"owns 3"))];
    });
    assert_eq!(play.answer(changed), None);
    let leader = play.join(at(6), named("m1"));
    let joined = play.joined(leader);
    assert_eq!(joined.generation, 2);
    assert_eq!(joined.members[1].metadata, Bytes::from_static(b"owns 3"));
}

#[test]
fn a_leader_that_joins_again_rebalances() {
    let mut play = Play::pair();
    let leader = play.join(at(5), named("m1"));
    assert_eq!(play.answer(leader), None);
    let follower = play.join(at(5), named("m2"));
    assert_eq!(play.joined(leader).generation, 2);
    assert_eq!(play.joined(follower).generation, 2);
}

#[test]
fn a_lost_join_answer_is_said_again() {
    let mut play = Play::new();
    let first = play.join(at(0), named(""));
    play.tick(at(3));
    play.joined(first);
    let again = play.join(at(4), named("m1"));
    let joined = play.joined(again);
    assert_eq!((joined.generation, joined.members.len()), (1, 1));
}

#[test]
fn a_static_member_keeps_its_place_through_a_restart() {
    let mut play = Play::new();
    let joins = [play.join(at(0), fixed("", "one")), play.join(at(0), fixed("", "two"))];
    play.tick(at(3));
    for ticket in joins {
        play.joined(ticket);
    }
    play.sync(at(3), fixed("m1", "one"), 1, &[("m1", "a"), ("m2", "b")]);
    let restarted = play.join(at(4), fixed("", "two"));
    let joined = play.joined(restarted);
    assert_eq!((joined.generation, &*joined.member_id), (1, "m4"), "no rebalance");
    let synced = play.sync(at(4), fixed("m4", "two"), 1, &[]);
    assert_eq!(play.synced(synced), Ok(Bytes::from_static(b"b")), "its old share");
    assert_eq!(play.beat(at(5), fixed("m2", "two"), 1), Err(ResponseError::FencedInstanceId));
    assert_eq!(play.beat(at(5), fixed("m4", "two"), 1), Ok(()));
    assert_eq!(play.beat(at(5), fixed("m3", "ten"), 1), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_static_leader_that_restarts_is_not_made_to_assign() {
    let restart = |can_skip: bool| {
        let mut play = Play::new();
        let first = play.join(at(0), fixed("", "one"));
        play.tick(at(3));
        play.joined(first);
        play.sync(at(3), fixed("m1", "one"), 1, &[("m1", "a")]);
        let again =
            play.join_with(at(4), fixed("", "one"), |join| join.can_skip_assignment = can_skip);
        play.joined(again)
    };
    let old = restart(false);
    assert_ne!(old.leader, old.member_id);
    let new = restart(true);
    assert_eq!(new.leader, new.member_id);
    assert!(new.skip_assignment);
    assert_eq!(new.members.len(), 1);
}

#[test]
fn a_static_member_may_be_away_during_a_rebalance() {
    let mut play = Play::new();
    let joins = [
        play.join_with(at(0), fixed("", "one"), |join| join.session_timeout = at(100)),
        play.join_with(at(0), fixed("", "two"), |join| join.session_timeout = at(100)),
    ];
    play.tick(at(3));
    for ticket in joins {
        play.joined(ticket);
    }
    let third = play.join(at(4), named(""));
    let first = play.join(at(4), fixed("m1", "one"));
    play.tick(at(64));
    assert_eq!(play.joined(first).members.len(), 3, "the second one keeps its place");
    play.joined(third);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut play = Play::new();
    let first = play.join(at(0), fixed("", "one"));
    play.tick(at(3));
    play.joined(first);
    assert_eq!(play.leave(at(4), fixed("", "two")), Err(ResponseError::UnknownMemberId));
    assert_eq!(play.leave(at(4), fixed("", "one")), Ok(()));
    assert!(play.group.is_forgettable());
}

#[test]
fn a_duplicate_instance_fences_the_one_that_waits() {
    let mut play = Play::new();
    let old = play.join(at(0), fixed("", "one"));
    let new = play.join(at(1), fixed("", "one"));
    assert_eq!(play.join_error(old), ResponseError::FencedInstanceId);
    play.tick(at(5));
    assert_eq!(play.joined(new).member_id, "m2");
}

#[test]
fn only_the_current_generation_commits() {
    let mut play = Play::pair();
    let group = &mut play.group;
    assert_eq!(group.check_commit(&named("m1"), 1, at(5)), Ok(()));
    assert_eq!(group.check_commit(&named("m1"), 0, at(5)), Err(ResponseError::IllegalGeneration));
    assert_eq!(group.check_commit(&named("m9"), 1, at(5)), Err(ResponseError::UnknownMemberId));
    assert_eq!(
        group.check_commit(&named(""), -1, at(5)),
        Err(ResponseError::UnknownMemberId),
        "a consumer outside the group"
    );
    assert_eq!(group.next_deadline(), Some(at(14)), "m2 has been silent since second 4");
    let mut empty = GroupState::new(DELAY);
    assert_eq!(empty.check_commit(&named(""), -1, at(0)), Ok(()));
    assert_eq!(empty.check_commit(&named("m1"), 3, at(0)), Err(ResponseError::UnknownMemberId));
}

/// Random members do random things: nothing panics, generations grow, every ticket is answered
/// at most once, and once all have left nobody waits.
#[test]
fn churn_leaves_nobody_waiting() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut play = Play::new();
        let mut now = at(0);
        let mut answered = std::collections::HashSet::new();
        let mut waiting = std::collections::HashSet::new();
        let mut generation = 0;
        for _ in 0..200 {
            now += Duration::from_millis(random.u64(0..4000));
            let mut ids: Vec<String> = play.group.members().map(|it| it.id.clone()).collect();
            ids.push(String::new());
            let who = match random.bool() {
                true => named(&ids[random.usize(..ids.len())]),
                false => fixed(&ids[random.usize(..ids.len())], ["a", "b"][random.usize(..2)]),
            };
            match random.u8(0..6) {
                0 | 1 => {
                    let known = random.bool();
                    waiting.insert(play.join_with(now, who, |join| join.must_know_id = known));
                }
                2 | 3 => {
                    waiting.insert(play.sync(now, who, play.group.generation, &[("m1", "x")]));
                }
                4 => {
                    let _ = play.beat(now, who, play.group.generation);
                }
                _ => {
                    let _ = play.leave(now, who);
                }
            }
            play.tick(now);
            assert!(play.group.generation >= generation, "seed {seed}");
            generation = play.group.generation;
            for output in play.answers.drain(..) {
                assert!(answered.insert(output.ticket), "seed {seed}: answered twice");
                waiting.remove(&output.ticket);
            }
        }
        for member in play.group.members().map(|it| it.id.clone()).collect::<Vec<_>>() {
            let instance = play.group.members[&member].instance_id.clone();
            let who = Identity { member_id: member, instance_id: instance };
            assert_eq!(play.leave(now, who), Ok(()), "seed {seed}");
        }
        play.tick(now + at(100));
        for output in play.answers.drain(..) {
            assert!(answered.insert(output.ticket), "seed {seed}: answered twice");
            waiting.remove(&output.ticket);
        }
        assert!(waiting.is_empty(), "seed {seed}: {waiting:?} wait for ever");
        assert!(play.group.is_forgettable(), "seed {seed}");
    }
}
