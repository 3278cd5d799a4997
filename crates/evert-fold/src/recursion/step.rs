//! What can be said of a recursion's step from its plan alone.

use crate::plan::{JoinKind, Node, Plan, SetOp};

/// Whether each row that the step gives comes from one row of the last round: what it gives for a
/// change of that round is then the change of what it gives.
pub(super) fn is_linear(step: &Plan) -> bool {
    let recursive = reads_last_round(step);
    let is_linear = |(node, &is_recursive): (&Node, &bool)| match node {
        _ if !is_recursive => true,
        Node::Input { .. }
        | Node::FilterProject { .. }
        | Node::Unnest { .. }
        | Node::TemporalFilter { .. } => true,
        Node::Union { inputs, .. } => inputs.iter().all(|&input| recursive[input]),
        Node::Join { left, right, kind, .. } => match (recursive[*left], recursive[*right]) {
            (true, true) => false,
            (true, false) => !matches!(kind, JoinKind::Right | JoinKind::Full),
            _ => matches!(kind, JoinKind::Inner | JoinKind::Right),
        },
        _ => false,
    };
    recursive[step.output] && step.nodes.iter().zip(&recursive).all(is_linear)
}

/// Whether the step gives more rows, never fewer, for more rows of any input, and nothing comes
/// or goes with time.
pub(super) fn is_monotone(step: &Plan) -> bool {
    let recursive = reads_last_round(step);
    step.nodes.iter().zip(&recursive).all(|(node, is_recursive)| match node {
        Node::Input { .. }
        | Node::FilterProject { .. }
        | Node::Unnest { .. }
        | Node::Union { .. } => true,
        Node::Join { kind, .. } => matches!(kind, JoinKind::Inner | JoinKind::Semi),
        // They hide how many derivations a row has.
        Node::Distinct { .. } | Node::SetOp { op: SetOp::Intersect, .. } => !is_recursive,
        _ => false,
    })
}

/// For each node, whether it reads the rows of the last round.
fn reads_last_round(step: &Plan) -> Vec<bool> {
    let mut reads = Vec::with_capacity(step.nodes.len());
    for node in &step.nodes {
        let here = matches!(node, Node::Input { index: 0, .. });
        reads.push(here || node.inputs().iter().any(|&input| reads[input]));
    }
    reads
}
