//! XEP-0059: Result Set Management, the part of it that answers from an ordered store: pages after or before an entry, the last
//! page, a count. Pages by index are not offered: nobody could jump to one without counting.

use crate::stanza::StanzaError;
use crate::xml::Element;

/// The namespace of XEP-0059.
pub const NS: &str = "http://jabber.org/protocol/rsm";

/// A page that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many entries at most, when that is said.
    pub max: Option<usize>,
    /// Where it is.
    pub position: Position,
}

/// Where a page is among all entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// At the beginning.
    #[default]
    First,
    /// Right behind this entry (§2.2).
    After(String),
    /// Right before this entry (§2.3).
    Before(String),
    /// At the end (§2.5).
    Last,
}

/// What is said of a page that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The first entry's name, and its place among all where that is known.
    pub first: Option<(String, Option<usize>)>,
    /// The last entry's name.
    pub last: Option<String>,
    /// How many entries there are, where that is known.
    pub count: Option<usize>,
}

impl Page {
    /// Reads the `<set/>` among the children of a query, if there is one.
    ///
    /// # Errors
    /// `bad-request` when it makes no sense, `feature-not-implemented` for a page by its index (§2.6).
    pub fn of(query: &Element) -> Result<Option<Self>, StanzaError> {
        let Some(set) = query.child("set", NS) else {
            return Ok(None);
        };
        let text = |name: &str| set.child(name, NS).map(Element::text);
        if text("index").is_some() {
            return Err(StanzaError::feature_not_implemented());
        }
        let max = match text("max") {
            Some(max) => Some(max.trim().parse().map_err(|_| StanzaError::bad_request())?),
            None => None,
        };
        let position = match (text("after"), text("before")) {
            (Some(_), Some(_)) => return Err(StanzaError::bad_request()),
            (Some(after), None) if after.is_empty() => Position::First,
            (Some(after), None) => Position::After(after),
            (None, Some(before)) if before.is_empty() => Position::Last,
            (None, Some(before)) => Position::Before(before),
            (None, None) => Position::First,
        };
        Ok(Some(Self { max, position }))
    }
}

impl Given {
    /// The `<set/>` of the answer.
    pub fn to_element(&self) -> Element {
        let mut set = Element::new("set", NS);
        if let Some((first, index)) = &self.first {
            let mut element = Element::new("first", NS).with_text(&**first);
            if let Some(index) = index {
                element.set_attr("index", index.to_string());
            }
            set.push_child(element);
        }
        if let Some(last) = &self.last {
            set.push_child(Element::new("last", NS).with_text(&**last));
        }
        if let Some(count) = self.count {
            set.push_child(Element::new("count", NS).with_text(count.to_string()));
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Limits;

    fn page(set: &str) -> Result<Option<Page>, StanzaError> {
        let query = format!("<query xmlns='urn:a'><set xmlns='{NS}'>{set}</set></query>");
        Page::of(&Element::parse(query, &Limits::after_auth()).expect("well-formed"))
    }

    #[test]
    fn positions_are_read() {
        for (set, max, position) in [
            ("", None, Position::First),
            ("<max>10</max>", Some(10), Position::First),
            ("<max>0</max>", Some(0), Position::First),
            ("<max>1</max><after>a</after>", Some(1), Position::After("a".to_owned())),
            ("<before>b</before>", None, Position::Before("b".to_owned())),
            ("<before/>", None, Position::Last),
        ] {
            assert_eq!(page(set), Ok(Some(Page { max, position })), "{set}");
        }
        let bare = Element::new("query", "urn:a");
        assert_eq!(Page::of(&bare), Ok(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for set in ["<max>many</max>", "<max>-1</max>", "<after>a</after><before>b</before>"] {
            assert_eq!(page(set), Err(StanzaError::bad_request()), "{set}");
        }
        assert_eq!(page("<index>3</index>"), Err(StanzaError::feature_not_implemented()));
    }
}
