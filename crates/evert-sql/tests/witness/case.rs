//! A case: a world, a cut of its history, one query; and what came of comparing the two answers.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use crate::batch::Batch;
use crate::caught::caught;
use crate::choices::{Choices, shrink};
use crate::folded::{Moment, Tick, View, cut, time_at};
use crate::grammar::{NOW, Query, query};
use crate::postgres::{Answer, Connection};
use crate::rows::{self, Row};
use crate::served::{Kept, serve};
use crate::world::{Present, World, delta};

/// What came of a case.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Equal at this many positions.
    Equal(usize),
    /// The planner says that it cannot be a view.
    Refused(String),
    /// Neither answer tells anything: the grammar made what Postgres does not take.
    Invalid(String),
    /// A row cannot be evaluated, so that there is no batch answer.
    Errors,
    /// The view is wrong, or there is none though there should be.
    Wrong(Wrong),
}

/// What is wrong.
#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    /// The planner fails with another error than "not supported".
    Rejected(String),
    /// The planner or the fold panics.
    Panicked(String),
    /// The answers differ after this many commits.
    Different { commits: usize, ours: Vec<Row>, theirs: Vec<Row> },
}

impl Wrong {
    /// What shrinking must keep.
    fn class(&self) -> String {
        let head = |text: &str| text.chars().take(24).collect::<String>();
        match self {
            Self::Rejected(what) => format!("rejected {}", head(what)),
            Self::Panicked(what) => format!("panicked {}", head(what)),
            Self::Different { .. } => "different".to_owned(),
        }
    }
}

/// A world and a cut of its history.
pub(crate) struct Setting {
    pub(crate) world: World,
    pub(crate) ticks: Vec<Tick>,
}

impl Setting {
    pub(crate) fn new(choices: &mut Choices) -> Self {
        let world = World::random(choices);
        let ticks = cut(&world, choices);
        Self { world, ticks }
    }

    /// Postgres's answers to queries at each compared position; DataFusion's to what it lacks.
    pub(crate) async fn answers(
        &self,
        postgres: &Connection,
        queries: &[Query],
    ) -> Vec<Vec<Answer>> {
        postgres.begin(&self.world.create()).await;
        let (mut present, mut from) = (Present::nothing(&self.world), 0);
        let mut answers = Vec::new();
        for tick in &self.ticks {
            for commit in &self.world.commits[from..tick.until] {
                present.apply(&self.world, commit);
            }
            from = tick.until;
            if tick.compared {
                postgres.run(&self.replace(&present)).await;
                let now = clock(time_at(&self.world, tick.until));
                let batch = OnceCell::new();
                let texts = queries.iter().filter(|query| !query.batch);
                let texts: Vec<_> = texts.map(|query| query.theirs.replace(NOW, &now)).collect();
                let mut postgres = postgres.answers(&texts).await.into_iter();
                let mut of_each = Vec::with_capacity(queries.len());
                for query in queries {
                    of_each.push(match query.batch {
                        true => {
                            let batch = batch.get_or_init(|| self.batch(&present));
                            batch_answer(batch, &query.theirs).await
                        }
                        false => postgres.next().expect("an answer to each"),
                    });
                }
                answers.push(of_each);
            }
        }
        answers
    }

    /// The rows that are there, as stock DataFusion reads them.
    fn batch(&self, present: &Present) -> Batch {
        Batch::new(self.world.tables.iter().enumerate().map(|(index, table)| {
            let rows: Vec<(usize, i64)> = present.rows(index).map(|row| (row, 1)).collect();
            (table.name.to_owned(), delta(&table.batch(), &rows).rows)
        }))
    }

    /// Statements that make Postgres's tables hold these rows.
    fn replace(&self, present: &Present) -> String {
        let mut sql = String::new();
        for (index, table) in self.world.tables.iter().enumerate() {
            sql.push_str(&format!("DELETE FROM {};\n", table.name));
            let rows: Vec<String> = present.rows(index).map(|row| table.literals(row)).collect();
            if !rows.is_empty() {
                sql.push_str(&format!("INSERT INTO {} VALUES {};\n", table.name, rows.join(", ")));
            }
        }
        sql
    }

    /// The ticks after which answers are compared.
    pub(crate) fn compared(&self) -> impl Iterator<Item = &Tick> {
        self.ticks.iter().filter(|tick| tick.compared)
    }

    /// Folds a query and compares it with Postgres's answers at each position.
    pub(crate) fn judge(&self, query: &Query, answers: &[&Answer]) -> Verdict {
        let folded = caught(|| {
            let view = View::plan(&query.ours, &self.world)?;
            Ok((view.kinds(), view.fold(&self.world, &self.ticks)))
        });
        let (kinds, moments) = match folded {
            Ok(Ok(folded)) => folded,
            Ok(Err(error)) => return rejected(&error, answers),
            Err(message) => return Verdict::Wrong(Wrong::Panicked(message)),
        };
        let (mut equal, mut errors) = (0, 0);
        for ((tick, moment), answer) in self.compared().zip(&moments).zip(answers) {
            match judge_moment(query, &kinds, moment, answer) {
                Ok(true) => equal += 1,
                Ok(false) => errors += 1,
                Err(Verdict::Wrong(Wrong::Different { ours, theirs, .. })) => {
                    let commits = tick.until;
                    return Verdict::Wrong(Wrong::Different { commits, ours, theirs });
                }
                Err(verdict) => return verdict,
            }
        }
        if equal == 0 && errors > 0 { Verdict::Errors } else { Verdict::Equal(equal) }
    }

    /// Whether a whole server can show this query's answers, given what came of its fold: they are
    /// to be compared everywhere, and a server has a time of its own.
    pub(crate) fn can_be_served(&self, query: &Query, verdict: &Verdict) -> bool {
        let all = self.compared().count();
        matches!(verdict, Verdict::Equal(equal) if *equal == all) && !query.theirs.contains(NOW)
    }

    /// Runs one query by itself; in a server too, if its life's seed is given.
    async fn run(&self, postgres: &Connection, query: &Query, served: Option<u64>) -> Verdict {
        let answers = self.answers(postgres, std::slice::from_ref(query)).await;
        let answers: Vec<&Answer> = answers.iter().map(|answers| &answers[0]).collect();
        let verdict = self.judge(query, &answers);
        match served {
            Some(seed) if self.can_be_served(query, &verdict) => {
                match serve(self, seed, &[Kept { query, answers }]).await {
                    Ok(_) => verdict,
                    Err((_, wrong)) => Verdict::Wrong(wrong),
                }
            }
            Some(_) => Verdict::Errors,
            None => verdict,
        }
    }
}

async fn batch_answer(batch: &Batch, sql: &str) -> Answer {
    match batch.collect(sql).await {
        Ok(answer) => Ok(rows::of_batches(answer.batches)),
        Err(error) => Err(("XX000".to_owned(), error)),
    }
}

fn rejected(error: &evert_view::PlanError, answers: &[&Answer]) -> Verdict {
    if let Some(Err((code, what))) = answers.iter().find(|answer| is_invalid(answer)) {
        return Verdict::Invalid(format!("{code} {what}"));
    }
    match error.sqlstate {
        "0A000" => Verdict::Refused(error.message.clone()),
        code => Verdict::Wrong(Wrong::Rejected(format!("{code} {}", error.message))),
    }
}

/// Whether Postgres does not take the query whatever the rows. Class 22 is about rows, 21 about
/// subqueries of several rows.
fn is_invalid(answer: &Answer) -> bool {
    matches!(answer, Err((code, _)) if !code.starts_with("22") && !code.starts_with("21"))
}

/// Whether the answers are equal (`true`) or rows in error leave nothing to compare (`false`).
pub(crate) fn judge_moment(
    query: &Query,
    kinds: &[rows::Kind],
    moment: &Moment,
    answer: &Answer,
) -> Result<bool, Verdict> {
    let theirs = match answer {
        Ok(rows) => rows,
        Err((code, what)) if is_invalid(answer) => {
            return Err(Verdict::Invalid(format!("{code} {what}")));
        }
        Err(_) => return Ok(false),
    };
    if moment.errors != 0 && !query.poisoned {
        return Ok(false);
    }
    let theirs = canonical(theirs, kinds);
    if rows::equal(&moment.rows, &theirs, &query.rounded) {
        return Ok(true);
    }
    let ours = moment.rows.clone();
    Err(Verdict::Wrong(Wrong::Different { commits: 0, ours, theirs }))
}

/// Whether equal rows are in the order that their query asks for, if it asks for one.
pub(crate) fn in_order(query: &Query, kinds: &[rows::Kind], ours: &[Row], answer: &Answer) -> bool {
    let Ok(theirs) = answer else { return true };
    let theirs = canonical(theirs, kinds);
    let same =
        |(x, y)| rows::equal(std::slice::from_ref(x), std::slice::from_ref(y), &query.rounded);
    !is_ordered(&query.theirs) || ours.iter().zip(&theirs).all(same)
}

/// Whether a text ends in an ORDER BY of its own; such orders leave nothing open.
fn is_ordered(sql: &str) -> bool {
    let (mut depth, mut top) = (0, String::new());
    for c in sql.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 {
            top.push(c);
        }
    }
    top.contains(" ORDER BY ")
}

fn canonical(rows: &[Row], kinds: &[rows::Kind]) -> Vec<Row> {
    let row = |row: &Row| -> Row {
        let cells = row.iter().zip(kinds);
        cells.map(|(cell, kind)| cell.as_deref().map(|text| kind.canonical(text))).collect()
    };
    rows.iter().map(row).collect()
}

/// A moment as Postgres reads it.
fn clock(micros: i64) -> String {
    let at = chrono::DateTime::from_timestamp_micros(micros).expect("a moment of this century");
    at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// The seeds of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds {
    pub(crate) world: u64,
    pub(crate) query: u64,
    /// Of the server's life in which it is wrong.
    pub(crate) served: Option<u64>,
}

/// A case as its choices.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) world: Vec<u32>,
    pub(crate) query: Vec<u32>,
    served: Option<u64>,
}

impl Case {
    pub(crate) fn of(seeds: Seeds) -> Self {
        let mut world = Choices::random(seeds.world);
        let setting = Setting::new(&mut world);
        let mut choices = Choices::random(seeds.query);
        query(&setting.world, &mut choices);
        Self { world: world.taken(), query: choices.taken(), served: seeds.served }
    }

    fn parts(&self) -> (Setting, Query) {
        let setting = Setting::new(&mut Choices::replay(self.world.clone()));
        let query = query(&setting.world, &mut Choices::replay(self.query.clone()));
        (setting, query)
    }

    /// The view's SELECT.
    pub(crate) fn text(&self) -> String {
        self.parts().1.ours
    }

    pub(crate) async fn run(&self, postgres: &Connection) -> Verdict {
        let (setting, query) = self.parts();
        setting.run(postgres, &query, self.served).await
    }

    /// The simplest case that is wrong in the same way.
    pub(crate) fn shrink(
        mut self,
        wrong: &Wrong,
        tries: usize,
        run: &dyn Fn(&Self) -> Verdict,
    ) -> Self {
        let same = |case: &Self| {
            let verdict = caught(|| run(case));
            matches!(verdict, Ok(Verdict::Wrong(found)) if found.class() == wrong.class())
        };
        for _ in 0..2 {
            let world = self.world.clone();
            self.query = shrink(self.query.clone(), tries, &mut |query| {
                same(&Self { world: world.clone(), query: query.to_vec(), served: self.served })
            });
            let query = self.query.clone();
            self.world = shrink(self.world.clone(), tries, &mut |world| {
                same(&Self { world: world.to_vec(), query: query.clone(), served: self.served })
            });
        }
        self
    }

    /// The case as a script that repeats it.
    pub(crate) fn script(&self, wrong: &Wrong) -> String {
        let (setting, query) = self.parts();
        let world = &setting.world;
        let used: BTreeSet<usize> = (0..world.tables.len())
            .filter(|table| query.ours.contains(&format!("{} AS x", world.tables[*table].name)))
            .collect();
        let mut out = world.create();
        out.push_str(&format!("CREATE MATERIALIZED VIEW v AS\n  {};\n", query.ours));
        let (mut present, mut from) = (Present::nothing(world), 0);
        for tick in &setting.ticks {
            let mut changes = String::new();
            for commit in &world.commits[from..tick.until] {
                for (table, delta) in present.apply(world, commit).iter().enumerate() {
                    if !used.contains(&table) {
                        continue;
                    }
                    let name = world.tables[table].name;
                    for (row, weight) in delta {
                        let row = world.tables[table].literals(*row);
                        changes.push_str(&format!("  {weight:+} {name} {row}\n"));
                    }
                }
            }
            from = tick.until;
            let now = clock(time_at(world, tick.until));
            let compared = if tick.compared { ", compared" } else { "" };
            let then = tick.then;
            out.push_str(&format!(
                "-- tick until commit {} at {now}{compared}, then {then:?}\n{changes}",
                tick.until
            ));
        }
        out.push_str(&format!("-- Postgres: {}\n", query.theirs));
        if let Some(seed) = self.served {
            out.push_str(&format!("-- by a server whose life's seed is {seed}\n"));
        }
        match wrong {
            Wrong::Rejected(what) => out.push_str(&format!("-- rejected: {what}\n")),
            Wrong::Panicked(what) => out.push_str(&format!("-- panicked: {what}\n")),
            Wrong::Different { commits, ours, theirs } => out.push_str(&format!(
                "-- after {commits} commits the view holds\n{}-- Postgres answers\n{}",
                rows::shown(ours),
                rows::shown(theirs)
            )),
        }
        out
    }
}

/// The judge is judged: right answers pass, and one row too few or another in its place does not.
#[test]
fn a_planted_answer_is_told_from_the_right_one() {
    let mut told = 0;
    for seed in 0..120 {
        let setting = Setting::new(&mut Choices::random(seed));
        let query = query(&setting.world, &mut Choices::random(seed));
        let Ok(view) = View::plan(&query.ours, &setting.world) else { continue };
        let moments = view.fold(&setting.world, &setting.ticks);
        let mut answers: Vec<Answer> = moments.iter().map(|it| Ok(it.rows.clone())).collect();
        let judged =
            |answers: &[Answer]| setting.judge(&query, &answers.iter().collect::<Vec<_>>());
        if moments.iter().any(|moment| moment.errors > 0) {
            continue;
        }
        assert!(matches!(judged(&answers), Verdict::Equal(_)), "{}", query.ours);
        let Some(Ok(rows)) = answers.last_mut() else { continue };
        let Some(row) = rows.pop() else { continue };
        let verdict = judged(&answers);
        assert!(matches!(verdict, Verdict::Wrong(Wrong::Different { .. })), "{}", query.ours);
        let other = row.iter().map(|cell| if cell.is_some() { None } else { Some("1".to_owned()) });
        let Some(Ok(rows)) = answers.last_mut() else { continue };
        rows.push(other.collect());
        let verdict = judged(&answers);
        assert!(matches!(verdict, Verdict::Wrong(Wrong::Different { .. })), "{}", query.ours);
        told += 1;
    }
    assert!(told > 30, "only {told} answers had rows");
}
