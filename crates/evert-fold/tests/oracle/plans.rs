//! Random plans, twice: as Evert's IR and as a tree that the naive answer walks.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr_common::operator::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal};
use evert_fold::{Aggregate, AggregateFunction, JoinKind, Node, Plan, SetOp, SortKey, Spread};
use fastrand::Rng;

use crate::general::{self, NaiveGeneral};
use crate::ordered::{self, Function};
use crate::values;

pub(crate) struct Generated {
    pub(crate) plan: Plan,
    pub(crate) naive: Naive,
    pub(crate) inputs: usize,
}

/// The plan as a tree.
#[derive(Clone, Debug)]
pub(crate) enum Naive {
    Input(usize),
    Project {
        input: Box<Naive>,
        predicate: Option<Expr>,
        exprs: Vec<Expr>,
    },
    Join(Box<NaiveJoin>),
    Reduce {
        input: Box<Naive>,
        keys: Vec<usize>,
        aggregates: Vec<NaiveAggregate>,
    },
    Distinct(Box<Naive>),
    TopK {
        input: Box<Naive>,
        keys: Vec<usize>,
        order: Vec<SortKey>,
        skip: usize,
        limit: Option<usize>,
    },
    Window {
        input: Box<Naive>,
        partition: Vec<usize>,
        order: Vec<SortKey>,
        functions: Vec<Function>,
    },
    Union(Vec<Naive>),
    SetOp {
        left: Box<Naive>,
        right: Box<Naive>,
        op: SetOp,
        all: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct NaiveJoin {
    pub(crate) left: Naive,
    pub(crate) right: Naive,
    pub(crate) kind: JoinKind,
    pub(crate) on: Vec<(usize, usize)>,
    pub(crate) null_equal: bool,
    pub(crate) filter: Option<Expr>,
    /// Columns of the left and of the right.
    pub(crate) columns: (usize, usize),
}

#[derive(Clone, Debug)]
pub(crate) struct NaiveAggregate {
    pub(crate) aggregate: Aggregate,
    pub(crate) argument: Option<DataType>,
    pub(crate) general: Option<NaiveGeneral>,
}

#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Column(usize),
    Int(i64),
    /// Checked.
    Add(Box<Expr>, Box<Expr>),
    /// Division by zero is an error.
    Div(Box<Expr>, Box<Expr>),
    Less(Box<Expr>, Box<Expr>),
}

struct Part {
    node: usize,
    naive: Naive,
    schema: SchemaRef,
    key: Option<Vec<usize>>,
}

struct Generator<'a> {
    rng: &'a mut Rng,
    nodes: Vec<Node>,
    inputs: usize,
}

pub(crate) fn generate(rng: &mut Rng) -> Generated {
    let inputs = rng.usize(1..4);
    let mut generator = Generator { rng, nodes: Vec::new(), inputs };
    let depth = generator.rng.usize(1..5);
    let part = generator.part(depth);
    let plan = Plan { nodes: generator.nodes, output: part.node, key: part.key };
    Generated { plan, naive: part.naive, inputs }
}

impl Generator<'_> {
    fn part(&mut self, depth: usize) -> Part {
        if depth == 0 {
            return self.input();
        }
        match self.rng.u8(0..13) {
            0..3 => self.project(depth),
            3..5 => self.join(depth),
            5..8 => self.reduce(depth),
            8 => self.distinct(depth),
            9 => self.union(depth),
            10 => self.top_k(depth),
            11 => self.window(depth),
            _ => self.set_op(depth),
        }
    }

    fn push(&mut self, node: Node, naive: Naive, schema: SchemaRef) -> Part {
        self.nodes.push(node);
        Part { node: self.nodes.len() - 1, naive, schema, key: None }
    }

    fn input(&mut self) -> Part {
        let index = self.rng.usize(0..self.inputs);
        let schema = values::schema();
        let node = Node::Input { index, schema: schema.clone() };
        self.push(node, Naive::Input(index), schema)
    }

    fn project(&mut self, depth: usize) -> Part {
        let input = self.part(depth - 1);
        let predicate = self.rng.bool().then(|| self.predicate(&input.schema));
        let (exprs, fields): (Vec<_>, Vec<_>) = (0..self.rng.usize(0..5))
            .map(|i| {
                let (expr, data_type) = self.expression(&input.schema);
                (expr, Field::new(format!("p{i}"), data_type, true))
            })
            .unzip();
        let schema = Arc::new(Schema::new(fields));
        let node = Node::FilterProject {
            input: input.node,
            predicate: predicate.as_ref().map(|p| p.physical(&input.schema)),
            exprs: exprs.iter().map(|e| e.physical(&input.schema)).collect(),
            schema: schema.clone(),
        };
        let naive = Naive::Project { input: Box::new(input.naive), predicate, exprs };
        self.push(node, naive, schema)
    }

    fn join(&mut self, depth: usize) -> Part {
        let right_depth = self.rng_depth(depth);
        let (left, right) = (self.part(depth - 1), self.part(right_depth));
        let mut pairs = Vec::new();
        for (l, left) in left.schema.fields().iter().enumerate() {
            for (r, right) in right.schema.fields().iter().enumerate() {
                if left.data_type() == right.data_type() && left.data_type() != &DataType::Boolean {
                    pairs.push((l, r));
                }
            }
        }
        self.rng.shuffle(&mut pairs);
        let small = self.rng.u8(0..10) == 0;
        pairs.truncate(if small { 0 } else { self.rng.usize(1..3) });
        let kind = self.join_kind(&mut pairs);
        let pair_fields = left.schema.fields().iter().chain(right.schema.fields()).cloned();
        let pair_schema: SchemaRef = Arc::new(Schema::new(pair_fields.collect::<Vec<_>>()));
        let filter = (self.rng.u8(0..3) == 0).then(|| self.predicate(&pair_schema));
        let schema = match kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
                pair_schema.clone()
            }
            JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => left.schema.clone(),
            JoinKind::Mark => {
                let mark = Arc::new(Field::new("mark", DataType::Boolean, true));
                let fields = left.schema.fields().iter().cloned().chain([mark]);
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            }
        };
        let null_equal = kind != JoinKind::NullAwareAnti && self.rng.u8(0..4) == 0;
        let node = Node::Join {
            left: left.node,
            right: right.node,
            kind,
            on: pairs.clone(),
            null_equal,
            filter: filter.as_ref().map(|filter| filter.physical(&pair_schema)),
            schema: schema.clone(),
        };
        let columns = (left.schema.fields().len(), right.schema.fields().len());
        let (left, right) = (left.naive, right.naive);
        let join = NaiveJoin { left, right, kind, on: pairs, null_equal, filter, columns };
        self.push(node, Naive::Join(Box::new(join)), schema)
    }

    /// NOT IN compares one column.
    fn join_kind(&mut self, pairs: &mut Vec<(usize, usize)>) -> JoinKind {
        use JoinKind::{Anti, Full, Inner, Left, Mark, NullAwareAnti, Right, Semi};
        let kinds = [Inner, Inner, Left, Right, Full, Semi, Anti, NullAwareAnti, Mark];
        match kinds[self.rng.usize(0..kinds.len())] {
            NullAwareAnti if pairs.is_empty() => Anti,
            NullAwareAnti => {
                pairs.truncate(1);
                NullAwareAnti
            }
            kind => kind,
        }
    }

    /// Joins grow fast: one side is shallow.
    fn rng_depth(&mut self, depth: usize) -> usize {
        self.rng.usize(0..2).min(depth - 1)
    }

    fn reduce(&mut self, depth: usize) -> Part {
        let input = self.part(depth - 1);
        let columns = input.schema.fields().len();
        let mut keys: Vec<usize> = (0..columns).collect();
        self.rng.shuffle(&mut keys);
        keys.truncate(self.rng.usize(0..3));
        let mut fields: Vec<Field> =
            keys.iter().map(|&key| input.schema.field(key).clone()).collect();
        let mut aggregates = Vec::new();
        for i in 0..self.rng.usize(0..5) {
            let (aggregate, output) = self.aggregate(&input.schema);
            fields.push(Field::new(format!("a{i}"), output, true));
            aggregates.push(aggregate);
        }
        let schema = Arc::new(Schema::new(fields));
        let node = Node::Reduce {
            input: input.node,
            keys: keys.clone(),
            aggregates: aggregates.iter().map(|a| a.aggregate.clone()).collect(),
            schema: schema.clone(),
        };
        let key = (0..keys.len()).collect();
        let naive = Naive::Reduce { input: Box::new(input.naive), keys, aggregates };
        Part { key: Some(key), ..self.push(node, naive, schema) }
    }

    fn aggregate(&mut self, schema: &SchemaRef) -> (NaiveAggregate, DataType) {
        use AggregateFunction::{Avg, BoolAnd, BoolOr, Count, Max, Min, Sum};
        let spreads = [
            Spread::Variance,
            Spread::VariancePopulation,
            Spread::Deviation,
            Spread::DeviationPopulation,
        ];
        let spread = AggregateFunction::Spread(spreads[self.rng.usize(0..4)]);
        let functions = [Count, Sum, Avg, Min, Max, BoolAnd, BoolOr, spread];
        let booleans = columns_of(schema, &DataType::Boolean);
        let filter = (!booleans.is_empty() && self.rng.u8(0..4) == 0)
            .then(|| booleans[self.rng.usize(0..booleans.len())]);
        if self.rng.u8(0..5) == 0
            && let Some((function, general, output)) = general::random(self.rng, schema)
        {
            let aggregate = Aggregate { function, argument: None, distinct: false, filter };
            return (NaiveAggregate { aggregate, argument: None, general: Some(general) }, output);
        }
        loop {
            let function = functions[self.rng.usize(0..functions.len())].clone();
            let argument = (!schema.fields().is_empty() && self.rng.u8(0..6) > 0)
                .then(|| self.rng.usize(0..schema.fields().len()));
            let data_type = argument.map(|column| schema.field(column).data_type().clone());
            let Ok(output) = function.output_type(data_type.as_ref()) else { continue };
            let distinct = argument.is_some() && self.rng.u8(0..3) == 0;
            let aggregate = Aggregate { function, argument, distinct, filter };
            return (NaiveAggregate { aggregate, argument: data_type, general: None }, output);
        }
    }

    fn keys(&mut self, schema: &SchemaRef) -> Vec<usize> {
        let mut keys: Vec<usize> = (0..schema.fields().len()).collect();
        self.rng.shuffle(&mut keys);
        keys.truncate(self.rng.usize(0..3));
        keys
    }

    fn top_k(&mut self, depth: usize) -> Part {
        let input = self.part(depth - 1);
        let keys = self.keys(&input.schema);
        let order = ordered::random_order(self.rng, &input.schema);
        let skip = if self.rng.bool() { 0 } else { self.rng.usize(0..4) };
        let limit = (self.rng.u8(0..8) > 0).then(|| self.rng.usize(0..5));
        let node =
            Node::TopK { input: input.node, keys: keys.clone(), order: order.clone(), skip, limit };
        let naive = Naive::TopK { input: Box::new(input.naive), keys, order, skip, limit };
        self.push(node, naive, input.schema)
    }

    fn window(&mut self, depth: usize) -> Part {
        let input = self.part(depth - 1);
        let partition = self.keys(&input.schema);
        let order = ordered::random_order(self.rng, &input.schema);
        let mut fields: Vec<Field> =
            input.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let (mut naive, mut functions) = (Vec::new(), Vec::new());
        for i in 0..self.rng.usize(0..4) {
            let function = ordered::random_function(self.rng, &input.schema);
            let physical = function.physical(&input.schema, &partition, &order);
            let ty = physical.field().expect("it has a type").data_type().clone();
            fields.push(Field::new(format!("w{i}"), ty, true));
            functions.push(physical);
            naive.push(function);
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let node = Node::Window {
            input: input.node,
            partition: partition.clone(),
            order: order.clone(),
            functions,
            schema: schema.clone(),
        };
        let input = Box::new(input.naive);
        self.push(node, Naive::Window { input, partition, order, functions: naive }, schema)
    }

    fn distinct(&mut self, depth: usize) -> Part {
        let input = self.part(depth - 1);
        let node = Node::Distinct { input: input.node };
        self.push(node, Naive::Distinct(Box::new(input.naive)), input.schema)
    }

    fn union(&mut self, depth: usize) -> Part {
        let first = self.part(depth - 1);
        // The same input twice, and once more filtered: all of one schema.
        let predicate = self.predicate(&first.schema);
        let exprs: Vec<_> = (0..first.schema.fields().len()).map(Expr::Column).collect();
        let node = Node::FilterProject {
            input: first.node,
            predicate: Some(predicate.physical(&first.schema)),
            exprs: exprs.iter().map(|e| e.physical(&first.schema)).collect(),
            schema: first.schema.clone(),
        };
        let naive = Naive::Project {
            input: Box::new(first.naive.clone()),
            predicate: Some(predicate),
            exprs,
        };
        let second = self.push(node, naive, first.schema.clone());
        let node = Node::Union {
            inputs: vec![first.node, second.node, first.node],
            schema: first.schema.clone(),
        };
        let naive = Naive::Union(vec![first.naive.clone(), second.naive, first.naive]);
        self.push(node, naive, first.schema)
    }

    /// Rows of the same columns of two inputs; few columns, so that rows often meet.
    fn set_op(&mut self, depth: usize) -> Part {
        let inputs = [self.part(depth - 1), self.input()];
        let types = [DataType::Int64, DataType::Utf8View, DataType::Float64];
        let shared: Vec<DataType> = types
            .into_iter()
            .filter(|t| inputs.iter().all(|input| !columns_of(&input.schema, t).is_empty()))
            .filter(|_| self.rng.bool())
            .collect();
        let fields = shared.iter().enumerate();
        let fields = fields.map(|(i, t)| Field::new(format!("s{i}"), t.clone(), true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let [left, right] = inputs.map(|input| {
            let exprs: Vec<Expr> = shared
                .iter()
                .map(|t| {
                    let columns = columns_of(&input.schema, t);
                    Expr::Column(columns[self.rng.usize(0..columns.len())])
                })
                .collect();
            let node = Node::FilterProject {
                input: input.node,
                predicate: None,
                exprs: exprs.iter().map(|e| e.physical(&input.schema)).collect(),
                schema: schema.clone(),
            };
            let naive = Naive::Project { input: Box::new(input.naive), predicate: None, exprs };
            self.push(node, naive, schema.clone())
        });
        let op = if self.rng.bool() { SetOp::Intersect } else { SetOp::Except };
        let all = self.rng.bool();
        let node = Node::SetOp { left: left.node, right: right.node, op, all };
        let (left, right) = (Box::new(left.naive), Box::new(right.naive));
        self.push(node, Naive::SetOp { left, right, op, all }, schema)
    }

    fn predicate(&mut self, schema: &SchemaRef) -> Expr {
        let booleans = columns_of(schema, &DataType::Boolean);
        if !booleans.is_empty() && self.rng.bool() {
            return Expr::Column(booleans[self.rng.usize(0..booleans.len())]);
        }
        let (left, right) = (self.integer(schema, 1), self.integer(schema, 1));
        Expr::Less(Box::new(left), Box::new(right))
    }

    fn integer(&mut self, schema: &SchemaRef, depth: usize) -> Expr {
        let integers = columns_of(schema, &DataType::Int64);
        match self.rng.u8(0..6) {
            0 => Expr::Int(self.rng.i64(-3..4)),
            1 if depth > 0 => Expr::Add(
                Box::new(self.integer(schema, depth - 1)),
                Box::new(self.integer(schema, depth - 1)),
            ),
            2 if depth > 0 => Expr::Div(
                Box::new(self.integer(schema, depth - 1)),
                Box::new(self.integer(schema, depth - 1)),
            ),
            _ if !integers.is_empty() => Expr::Column(integers[self.rng.usize(0..integers.len())]),
            _ => Expr::Int(self.rng.i64(-3..4)),
        }
    }

    fn expression(&mut self, schema: &SchemaRef) -> (Expr, DataType) {
        if schema.fields().is_empty() || self.rng.u8(0..3) == 0 {
            return (self.integer(schema, 2), DataType::Int64);
        }
        let column = self.rng.usize(0..schema.fields().len());
        (Expr::Column(column), schema.field(column).data_type().clone())
    }
}

fn columns_of(schema: &SchemaRef, data_type: &DataType) -> Vec<usize> {
    (0..schema.fields().len()).filter(|&i| schema.field(i).data_type() == data_type).collect()
}

impl Expr {
    fn physical(&self, schema: &SchemaRef) -> Arc<dyn PhysicalExpr> {
        let binary = |left: &Self, op, right: &Self| -> Arc<dyn PhysicalExpr> {
            let (left, right) = (left.physical(schema), right.physical(schema));
            Arc::new(BinaryExpr::new(left, op, right).with_fail_on_overflow(true))
        };
        match self {
            Self::Column(i) => Arc::new(Column::new(schema.field(*i).name(), *i)),
            Self::Int(value) => Arc::new(Literal::new(ScalarValue::Int64(Some(*value)))),
            Self::Add(left, right) => binary(left, Operator::Plus, right),
            Self::Div(left, right) => binary(left, Operator::Divide, right),
            Self::Less(left, right) => binary(left, Operator::Lt, right),
        }
    }
}
