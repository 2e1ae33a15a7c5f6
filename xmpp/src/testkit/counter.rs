//! A request that must not be carried out twice: each writes its id behind those before it.

use crate::feature::{Context, Feature, Payload, Spec, Target};
use crate::rows::{Key, Rows, Table, account_key};
use crate::stanza::{Stanza, StanzaError};
use crate::xml::Element;

/// The namespace of the counter.
pub(super) const NS: &str = "urn:heronry:test:counter";

/// Appends the request's id to a row of the account it is for; anybody may.
#[derive(Debug)]
pub struct Counter;

impl Feature for Counter {
    fn spec(&self) -> &'static Spec {
        &Spec {
            document: "test",
            title: "Counter",
            version: "",
            host_features: &[],
            account_features: &[],
        }
    }

    fn payloads(&self) -> &'static [Payload] {
        &[Payload {
            name: "count",
            namespace: NS,
        }]
    }

    fn iq(&self, context: &mut Context<'_>, _: Target, request: &Stanza) -> Result<Option<Element>, StanzaError> {
        let key = key(context.account.as_str());
        let mut ids = context.row(&key)?.map(|ids| ids.to_vec()).unwrap_or_default();
        ids.extend_from_slice(request.id.as_deref().unwrap_or_default().as_bytes());
        ids.push(b' ');
        context.put(key, ids);
        Ok(None)
    }
}

/// What an account has counted, in order.
pub(super) fn counted(rows: &dyn Rows, account: &str) -> Vec<String> {
    let row = rows
        .row(&key(account))
        .expect("a disk in memory can be read")
        .unwrap_or_default();
    String::from_utf8_lossy(&row)
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn key(account: &str) -> Key {
    account_key(Table::PrivateXml, account, b"counter")
}
