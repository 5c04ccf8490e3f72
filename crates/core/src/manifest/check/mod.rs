//! One object by itself: the rules that need nothing but its own spec.

mod awsvpc;
mod cluster;
mod container;
mod depends;
mod environment;
mod expose;
mod fargate;
mod health_check;
mod host;
mod image;
mod linux;
mod load_balancer;
mod logging;
mod network;
mod ports;
mod rule;
mod scheduled_task;
mod security_group;
mod service;
mod strategy;
mod subnet;
mod target_group;
mod task;
mod tls;
mod volumes;

pub use cluster::cluster;
pub use environment::Beside;
pub use host::{host, names_a_host};
pub use load_balancer::load_balancer;
pub use logging::TAKEN_OVER as LOG_DRIVER_TAKEN_OVER;
pub use scheduled_task::scheduled_task;
pub use security_group::security_group;
pub use service::service;
pub use subnet::subnet;
pub use target_group::{in_service, target_group};
pub use task::{host_ports, task_definition};

use ipnet::Ipv4Net;

use super::{
    node::{Span, Step, at},
    report::{Scope, quote},
    suggest::did_you_mean,
};
use crate::model::spec::service::{PlacementConstraint, PlacementConstraintType};

/// The planner's parser of placement expressions: `Err` is the offset of what is wrong, in bytes, and what was expected.
pub type CheckExpression = fn(&str) -> Result<(), (usize, String)>;

/// Of a service or a task definition (ECS: ten for a task).
const MAX_CONSTRAINTS: usize = 10;

/// A path with further steps.
fn join<'a>(path: &[Step<'a>], more: &[Step<'a>]) -> Vec<Step<'a>> {
    path.iter().chain(more).copied().collect()
}

/// A number that must lie in a range.
fn in_range(scope: &mut Scope<'_>, path: &[Step<'_>], value: u32, range: std::ops::RangeInclusive<u32>, unit: &str) {
    if !range.contains(&value) {
        let message = format!("{value}{unit} is out of range");
        scope.error(path, "out-of-range", message).label(format!(
            "from {}{unit} to {}{unit}",
            range.start(),
            range.end()
        ));
    }
}

/// An address range that must be a whole network.
fn one_network(cidr: Ipv4Net, path: &[Step<'_>], scope: &mut Scope<'_>) {
    if cidr.addr() != cidr.network() {
        let message = format!("{cidr} is an address in a network, not the network");
        scope.error(path, "cidr", message).help(format!("the network is `{}`", cidr.trunc()));
    }
}

/// A word that must be one of some.
fn one_of(scope: &mut Scope<'_>, path: &[Step<'_>], word: &str, words: &[&str]) {
    if !words.contains(&word) {
        let message = format!("{} is none of {}", quote(word), super::report::quote_all(words.iter().copied()));
        scope.error(path, "wrong-value", message).maybe_help(did_you_mean(word, words.iter().copied()));
    }
}

/// Placement constraints of a service or a task definition, which may not say distinctInstance (ECS).
fn constraints(
    scope: &mut Scope<'_>,
    constraints: &[PlacementConstraint],
    of_service: bool,
    check_expression: CheckExpression,
) {
    if constraints.len() > MAX_CONSTRAINTS {
        let message = format!("{} placement constraints, {MAX_CONSTRAINTS} are the most", constraints.len());
        scope.error(at!["placementConstraints", MAX_CONSTRAINTS], "placement", message).label("the eleventh");
        return;
    }
    for (index, constraint) in constraints.iter().enumerate() {
        let base = [Step::Key("placementConstraints"), Step::Index(index)];
        let expression_path = join(&base, &[Step::Key("expression")]);
        match (constraint.kind, &constraint.expression) {
            (PlacementConstraintType::DistinctInstance, _) if !of_service => {
                scope
                    .error(
                        &join(&base, &[Step::Key("type")]),
                        "placement",
                        "a task definition's constraints are all `memberOf`",
                    )
                    .help("put `distinctInstance` into the service");
            }
            (PlacementConstraintType::DistinctInstance, None) => {}
            (PlacementConstraintType::DistinctInstance, Some(_)) => {
                scope.error(&expression_path, "placement", "`distinctInstance` takes no expression");
            }
            (PlacementConstraintType::MemberOf, None) => {
                scope
                    .error(&base, "placement", "`memberOf` needs an `expression`")
                    .help("such as `attribute:disk == ssd`");
            }
            (PlacementConstraintType::MemberOf, Some(expression)) => {
                if let Err((offset, message)) = check_expression(expression) {
                    let span = inside(
                        scope.node.locate(&expression_path),
                        scope.node.find(&expression_path),
                        expression,
                        offset,
                    );
                    scope.error(&expression_path, "expression", message).at(span);
                }
            }
        }
    }
}

/// The place of a byte offset inside a scalar; the scalar itself where that cannot be told.
fn inside(span: Span, node: Option<&super::node::Node>, text: &str, offset: usize) -> Span {
    use super::node::{Style, Value};
    let quotes = match node.map(|node| &node.value) {
        Some(Value::Scalar { style: Style::Plain, .. }) => 0,
        Some(Value::Scalar { style: Style::Quoted, .. }) => 1,
        Some(Value::Scalar { style: Style::Block, .. } | Value::List(_) | Value::Map(_)) | None => return span,
    };
    let chars = text.char_indices().take_while(|(byte, _)| *byte < offset).count();
    let column = span.column.saturating_add(u32::try_from(chars).unwrap_or(0)).saturating_add(quotes);
    if span.line != span.end_line || column >= span.end_column { span } else { Span { column, ..span } }
}
