//! Fields and their values, as rules write them.

use std::sync::Arc;

use toml::de::DeValue;

use super::owned::{self, Side, Touch};
use super::template::Scope;
use super::{Change, FieldRule};
use crate::config::read::{At, FromToml, Table, Value};

/// Fields and their values, as in `{ "X-Name" = "value" }`.
pub(super) struct Fields(pub(super) Vec<Field>);

pub(super) struct Field {
    pub(super) name: At<Arc<str>>,
    pub(super) value: At<Arc<str>>,
}

impl FromToml for Fields {
    const FORM: &'static str = "a table of fields such as { \"X-Name\" = \"value\" }";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let mut fields = Vec::new();
        for (name, node) in value.entries(Self::FORM)? {
            let value = value.with(node);
            let values = match node.get_ref() {
                DeValue::Array(_) => Vec::from_toml(value).unwrap_or_default(),
                _ => Vec::from_iter(At::from_toml(value)),
            };
            fields.extend(values.into_iter().map(|value| {
                let name = name.clone();
                Field { name, value }
            }));
        }
        Some(Self(fields))
    }
}

/// One change to a field; a fault in it is complained of.
pub(super) fn rule(
    t: &Table<'_>,
    scope: &Scope,
    side: Side,
    touch: Touch,
    name: At<Arc<str>>,
    value: Option<At<Arc<str>>>,
    if_ok: bool,
) -> Option<FieldRule> {
    if let Err(complaint) = owned::refuse(&name.value, side, touch) {
        t.complain(&name.span, complaint);
        return None;
    }
    let template = match value {
        None => None,
        Some(At { value, span }) => match scope
            .read(&value, t.cx)
            .and_then(|template| owned::value(&value).map(|()| template))
        {
            Ok(template) => Some(template),
            Err(complaint) => {
                t.complain(&span, complaint);
                return None;
            }
        },
    };
    let change = match template {
        None => Change::Remove,
        Some(template) if touch == Touch::Set => Change::Set(template),
        Some(template) => Change::Add(template),
    };
    let name = name.value;
    Some(FieldRule {
        name,
        change,
        if_ok,
    })
}
