//! Depth: statements whose trees would be deeper than the stack is.
//!
//! Owns: the refusal of such statements before they are parsed, chains of AND and OR as shallow
//! trees, and the stack that planning runs on.
//! Not here: the parser's own bound on parentheses ([`NESTING_MAX`]).
//!
//! `1 + 1 + 1` is a tree as deep as it is long, and whatever walks over it recurses. Clients do
//! write thousands of conditions, though: what AND and OR join needs not be deep.

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, Value, VisitMut, VisitorMut};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::SqlError;

/// How deep parentheses may nest.
pub(crate) const NESTING_MAX: usize = 50;
/// How deep a statement's tree may be.
const DEPTH_MAX: usize = 400;
/// Planning runs on so much stack, in bytes, if it has less than the half left.
const STACK_BYTES: usize = 16 << 20;
/// Chains of fewer terms stay as they are.
const BALANCED_FROM: usize = 16;

/// Runs work that recurses over a statement, with enough stack.
pub(crate) fn with_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_BYTES / 4, STACK_BYTES, work)
}

/// What lies between two parentheses, so far.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Common table expressions: each may read the one before it.
    named: usize,
    set_operations: usize,
    joins: usize,
    operators: usize,
    /// BETWEENs whose AND has not come.
    between: usize,
    in_from: bool,
}

impl Level {
    fn depth(&self) -> usize {
        1 + self.named + self.set_operations + self.joins + self.operators
    }

    /// An expression ends, and another may begin.
    fn next(&mut self) {
        (self.operators, self.between) = (0, 0);
    }

    fn word(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::AND if self.between > 0 => self.between -= 1,
            Keyword::BETWEEN => {
                self.operators += 1;
                self.between += 1;
            }
            Keyword::AND | Keyword::OR | Keyword::ON | Keyword::USING => self.next(),
            Keyword::WHEN | Keyword::THEN | Keyword::ELSE => self.next(),
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => {
                self.set_operations += 1;
                self.next();
            }
            Keyword::FROM => {
                self.in_from = true;
                self.next();
            }
            Keyword::SELECT => {
                (self.in_from, self.joins) = (false, 0);
                self.next();
            }
            Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER => {
                self.in_from = false;
                self.next();
            }
            Keyword::JOIN => {
                self.joins += 1;
                self.next();
            }
            Keyword::NOT | Keyword::IS | Keyword::LIKE | Keyword::ILIKE | Keyword::COLLATE => {
                self.operators += 1;
            }
            _ => {}
        }
    }
}

/// Refuses tokens of a statement whose tree would be too deep.
///
/// # Errors
/// 54001.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut levels = vec![Level::default()];
    let mut outer = 0;
    let mut is_as = false;
    for TokenWithSpan { token, .. } in tokens {
        let level = levels.last_mut().expect("one is left always");
        let mut opens = false;
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket => {
                level.named += usize::from(is_as);
                opens = true;
            }
            Token::Word(word) if word.keyword == Keyword::CASE => opens = true,
            Token::Word(word) if word.keyword == Keyword::END => close(&mut levels, &mut outer),
            Token::RParen | Token::RBracket => close(&mut levels, &mut outer),
            Token::Word(word) => level.word(word.keyword),
            Token::Comma if level.in_from => level.joins += 1,
            Token::Comma => level.next(),
            Token::SemiColon => {
                levels.truncate(1);
                levels[0] = Level::default();
                outer = 0;
            }
            Token::Period | Token::Colon | Token::EOF | Token::Number(..) => {}
            Token::Placeholder(_) => {}
            token if is_text(token) => {}
            _ => level.operators += 1,
        }
        is_as = matches!(token, Token::Word(word) if matches!(word.keyword, Keyword::AS | Keyword::MATERIALIZED));
        let depth = levels.last().map_or(0, Level::depth);
        if outer + depth > DEPTH_MAX {
            let message =
                format!("the statement is nested too deeply: more than {DEPTH_MAX} levels");
            return Err(SqlError::new("54001", message));
        }
        if opens {
            outer += depth;
            levels.push(Level::default());
        }
    }
    Ok(())
}

/// The innermost level ends. One too many is the parser's to tell.
fn close(levels: &mut Vec<Level>, outer: &mut usize) {
    if levels.len() > 1 {
        levels.pop();
        *outer -= levels.last().map_or(0, Level::depth);
    }
}

fn is_text(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
    )
}

/// Makes shallow trees of long chains of AND, and of OR. Their value is the same: both are
/// associative, with NULL too.
pub(crate) fn balance<T: VisitMut>(statement: &mut T) {
    struct Balance;
    impl VisitorMut for Balance {
        type Break = ();

        // Before what is below it: that is not deep any more when it is walked over.
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let chain = match expr {
                Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                    op.clone()
                }
                _ => return ControlFlow::Continue(()),
            };
            if length(expr, &chain) >= BALANCED_FROM {
                let mut terms = terms(expr, &chain);
                *expr = joined(&mut terms, &chain);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = statement.visit(&mut Balance);
}

/// How many terms a chain has whose left sides go on.
fn length(mut expr: &Expr, chain: &BinaryOperator) -> usize {
    let mut terms = 1;
    while let Expr::BinaryOp { left, op, .. } = expr
        && op == chain
    {
        terms += 1;
        expr = left;
    }
    terms
}

/// Takes the terms of a chain, in their order.
fn terms(expr: &mut Expr, chain: &BinaryOperator) -> Vec<Expr> {
    let nothing = || Expr::Value(Value::Null.into());
    let mut terms = Vec::new();
    let mut rest = std::mem::replace(expr, nothing());
    loop {
        match rest {
            Expr::BinaryOp { left, op, right } if op == *chain => {
                terms.push(*right);
                rest = *left;
            }
            first => {
                terms.push(first);
                terms.reverse();
                return terms;
            }
        }
    }
}

/// Two terms or more as a tree of the least depth, in their order.
pub(crate) fn joined(terms: &mut Vec<Expr>, op: &BinaryOperator) -> Expr {
    let mut right = terms.split_off(terms.len() / 2);
    let side = |terms: &mut Vec<Expr>| match terms.len() {
        1 => terms.swap_remove(0),
        _ => joined(terms, op),
    };
    let (left, right) = (Box::new(side(terms)), Box::new(side(&mut right)));
    Expr::BinaryOp { left, op: op.clone(), right }
}

#[cfg(test)]
mod tests {
    use crate::text::parse_statements;

    fn outcome(sql: &str) -> Result<String, String> {
        match parse_statements(sql) {
            Ok(statements) => Ok(statements[0].to_string()),
            Err(error) => Err(error.sqlstate.to_string()),
        }
    }

    fn chain(operator: &str, terms: usize) -> String {
        format!("SELECT {}", vec!["a"; terms].join(operator))
    }

    #[test]
    fn what_would_be_too_deep_is_refused() {
        for operator in [" + ", " || ", " UNION ALL SELECT ", "::int::", " BETWEEN 1 AND ", " = "] {
            let refused = outcome(&chain(operator, 100_000));
            assert_eq!(refused, Err("54001".to_owned()), "{operator}");
        }
        assert!(outcome(&chain(" + ", 300)).is_ok());
        let select = |from: String| format!("SELECT 1 FROM {from}");
        assert!(outcome(&select(vec!["t"; 5000].join(", "))).is_err());
        assert!(outcome(&select(vec!["t"; 5000].join(" CROSS JOIN "))).is_err());
        let named: Vec<_> = (1..1000).map(|n| format!("c{n} AS (SELECT 1)")).collect();
        assert!(outcome(&format!("WITH {} SELECT 1", named.join(", "))).is_err());
        // Many things side by side are not deep.
        assert!(outcome(&format!("SELECT {}", vec!["a + 1"; 5000].join(", "))).is_ok());
        assert!(
            outcome(&format!("INSERT INTO t VALUES {}", vec!["(1, -2)"; 5000].join(", "))).is_ok()
        );
        assert!(outcome(&format!("SELECT a IN ({})", vec!["-1"; 5000].join(", "))).is_ok());
        let when = "WHEN a = 1 THEN a + 1 ".repeat(1000);
        assert!(outcome(&format!("SELECT CASE {when} END")).is_ok());
    }

    #[test]
    fn conditions_are_as_many_as_one_likes() {
        for operator in ["AND", "OR"] {
            let terms: Vec<_> = (0..20_000).map(|n| format!("a = {n}")).collect();
            let sql = format!("SELECT {}", terms.join(&format!(" {operator} ")));
            assert_eq!(outcome(&sql), Ok(sql));
        }
        let mixed = vec!["a = 1 AND NOT b BETWEEN 1 AND 2 + 1"; 5000].join(" OR ");
        let sql = format!("SELECT {mixed}");
        assert_eq!(outcome(&sql), Ok(sql));
    }
}
