//! How a setting's value is made from what was written.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::network::{Ipv6Prefix, MetricsAddress, Network};
use super::node::{Content, Node, Origin, Problem};
use super::query_log::{Statements, Threshold};
use super::units::{Mode, Scalar, Size, TlsMode, TlsVersion};

/// A type that a setting can have.
pub(crate) trait Value: Sized {
    /// How it, or each item of it, is written.
    const FORM: &'static str;
    /// Whether it is a list.
    const LIST: bool = false;
    /// Reads it; an error says everything that is wrong.
    fn read(node: &Node) -> Result<Self, Vec<Problem>>;
}

fn read_scalar<T: Scalar>(node: &Node) -> Result<T, Vec<Problem>> {
    let value = match &node.content {
        Content::Text(text) => T::scan(text),
        _ => None,
    };
    value.ok_or_else(|| vec![Problem::new(&node.origin, format!("must be {}", T::FORM))])
}

macro_rules! scalars {
    ($($type:ty),+) => {
        $(impl Value for $type {
            const FORM: &'static str = <$type as Scalar>::FORM;
            fn read(node: &Node) -> Result<Self, Vec<Problem>> {
                read_scalar(node)
            }
        })+
    };
}

scalars!(
    String,
    bool,
    u16,
    u32,
    NonZeroU32,
    PathBuf,
    Size,
    Duration,
    Network,
    Ipv6Prefix,
    MetricsAddress,
    Mode,
    TlsMode,
    TlsVersion,
    Statements,
    Threshold
);

impl<T: Value> Value for Option<T> {
    const FORM: &'static str = T::FORM;
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        match &node.content {
            Content::Nothing => Ok(None),
            Content::Text(text) if text.is_empty() && node.origin == Origin::Default => Ok(None),
            _ => T::read(node).map(Some),
        }
    }
}

impl<T: Scalar> Value for Vec<T> {
    const FORM: &'static str = T::FORM;
    const LIST: bool = true;

    /// A sequence, or one text with commas.
    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let mut items = Vec::new();
        let mut problems = Vec::new();
        let mut take = |result| match result {
            Ok(item) => items.push(item),
            Err(wrong) => problems.extend::<Vec<Problem>>(wrong),
        };
        match &node.content {
            Content::Nothing => {}
            Content::Text(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .for_each(|item| take(read_scalar(&Node::text(node.origin.clone(), item)))),
            Content::List(list) => list.iter().for_each(|item| take(read_scalar(item))),
            Content::Map(_) => problems.push(Problem::new(&node.origin, "must be a list")),
        }
        if problems.is_empty() {
            Ok(items)
        } else {
            Err(problems)
        }
    }
}
