//! XEP-0004: Data Forms, with the `FORM_TYPE` of XEP-0068: what is asked, submitted and told as fields.

use crate::xml::Element;

/// The namespace of XEP-0004.
pub const NS: &str = "jabber:x:data";

/// The field that says what a form is for (XEP-0068 §3.1).
const FORM_TYPE: &str = "FORM_TYPE";

/// What a form is (XEP-0004 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It asks to be filled in.
    Form,
    /// It has been filled in.
    Submit,
    /// It will not be.
    Cancel,
    /// It tells.
    Result,
}

/// What a field holds (XEP-0004 §3.3), as far as forms of ours have such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// `0`, `1`, `false` or `true`.
    Boolean,
    /// Not shown to people.
    Hidden,
    /// Addresses.
    JidMulti,
    /// An address.
    JidSingle,
    /// Some of the options.
    ListMulti,
    /// One of the options.
    ListSingle,
    /// Lines.
    TextMulti,
    /// A line.
    TextSingle,
}

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub var: String,
    /// What it holds; not said where it can be inferred.
    pub type_: Option<FieldType>,
    /// For people.
    pub label: Option<&'static str>,
    /// What it holds.
    pub values: Vec<String>,
    /// What may be chosen.
    pub options: Vec<String>,
}

/// A form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// What it is.
    pub kind: Kind,
    /// For people.
    pub title: Option<&'static str>,
    /// In their order; no two have one name.
    pub fields: Vec<Field>,
}

/// An element that is no form, or one that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a data form")]
pub struct NotAForm;

impl Form {
    /// A form with nothing but its type (XEP-0068).
    pub fn new(kind: Kind, form_type: &str) -> Self {
        let field = Field::new(FORM_TYPE, form_type);
        let type_ = (kind != Kind::Submit).then_some(FieldType::Hidden);
        Self {
            kind,
            title: None,
            fields: vec![Field { type_, ..field }],
        }
    }

    /// Reads `<x/>`. Fields of type `fixed` are left out: they say nothing.
    ///
    /// # Errors
    /// Another element, an unknown kind, a field without a name, two fields of one name.
    pub fn parse(x: &Element) -> Result<Self, NotAForm> {
        if !x.is("x", NS) {
            return Err(NotAForm);
        }
        let kind = match x.attr("type") {
            Some("form") => Kind::Form,
            Some("submit") => Kind::Submit,
            Some("cancel") => Kind::Cancel,
            Some("result") => Kind::Result,
            _ => return Err(NotAForm),
        };
        let mut fields: Vec<Field> = Vec::new();
        for field in x.children().filter(|child| child.is("field", NS)) {
            if field.attr("type") == Some("fixed") {
                continue;
            }
            let var = field.attr("var").ok_or(NotAForm)?;
            if fields.iter().any(|known| known.var == var) {
                return Err(NotAForm);
            }
            let values = field.children().filter(|child| child.is("value", NS));
            fields.push(Field {
                values: values.map(Element::text).collect(),
                ..Field::empty(var)
            });
        }
        Ok(Self {
            kind,
            title: None,
            fields,
        })
    }

    /// What the form is for.
    pub fn form_type(&self) -> Option<&str> {
        self.value(FORM_TYPE)
    }

    /// The fields, without the one that says what the form is for.
    pub fn own_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| field.var != FORM_TYPE)
    }

    /// The first value of a field.
    pub fn value(&self, var: &str) -> Option<&str> {
        let field = self.fields.iter().find(|field| field.var == var)?;
        field.values.first().map(String::as_str)
    }

    /// This form with one more field.
    #[must_use]
    pub fn with(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// As XML.
    pub fn to_element(&self) -> Element {
        let kind = match self.kind {
            Kind::Form => "form",
            Kind::Submit => "submit",
            Kind::Cancel => "cancel",
            Kind::Result => "result",
        };
        let mut x = Element::new("x", NS).with_attr("type", kind);
        if let Some(title) = self.title {
            x.push_child(Element::new("title", NS).with_text(title));
        }
        x.with_children(self.fields.iter().map(Field::to_element))
    }
}

impl Field {
    fn empty(var: &str) -> Self {
        Self {
            var: var.to_owned(),
            type_: None,
            label: None,
            values: Vec::new(),
            options: Vec::new(),
        }
    }

    /// A field with one value and nothing else.
    pub fn new(var: &str, value: impl Into<String>) -> Self {
        Self {
            values: vec![value.into()],
            ..Self::empty(var)
        }
    }

    /// A field with these values.
    pub fn of(type_: FieldType, var: &str, values: Vec<String>) -> Self {
        Self {
            type_: Some(type_),
            values,
            ..Self::empty(var)
        }
    }

    fn to_element(&self) -> Element {
        let mut field = Element::new("field", NS).with_attr("var", &*self.var);
        if let Some(type_) = self.type_ {
            field.set_attr("type", type_.as_str());
        }
        if let Some(label) = self.label {
            field.set_attr("label", label);
        }
        for option in &self.options {
            field.push_child(Element::new("option", NS).with_child(value(option)));
        }
        field.with_children(self.values.iter().map(|text| value(text)))
    }
}

fn value(text: &str) -> Element {
    Element::new("value", NS).with_text(text)
}

impl FieldType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Hidden => "hidden",
            Self::JidMulti => "jid-multi",
            Self::JidSingle => "jid-single",
            Self::ListMulti => "list-multi",
            Self::ListSingle => "list-single",
            Self::TextMulti => "text-multi",
            Self::TextSingle => "text-single",
        }
    }
}

/// XEP-0004 §3.3: both ways to write a truth value.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Limits;

    fn read(xml: &str) -> Result<Form, NotAForm> {
        Form::parse(&Element::parse(xml, &Limits::after_auth()).expect("well-formed"))
    }

    #[test]
    fn a_submission_is_read() {
        let form = read(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>urn:a</value></field>\
             <field type='fixed'><value>words</value></field>\
             <field var='groups'><value>friends</value><value>servants</value></field><field var='unset'/></x>",
        )
        .expect("a form");
        assert_eq!((form.kind, form.form_type()), (Kind::Submit, Some("urn:a")));
        let fields: Vec<(&str, usize)> = form
            .own_fields()
            .map(|field| (&*field.var, field.values.len()))
            .collect();
        assert_eq!(fields, [("groups", 2), ("unset", 0)]);
    }

    #[test]
    fn what_makes_no_sense_is_no_form() {
        for xml in [
            "<x xmlns='jabber:x:data'/>",
            "<x xmlns='jabber:x:data' type='error'/>",
            "<y xmlns='jabber:x:data' type='submit'/>",
            "<x xmlns='jabber:x:data' type='submit'><field/></x>",
            "<x xmlns='jabber:x:data' type='submit'><field var='a'/><field var='a'/></x>",
        ] {
            assert_eq!(read(xml), Err(NotAForm), "{xml}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let form = Form::new(Kind::Form, "urn:a")
            .with(Field::of(FieldType::ListSingle, "choice", vec!["one".to_owned()]))
            .to_element();
        let mut xml = String::new();
        form.write_str(&mut xml, "");
        assert_eq!(
            xml,
            "<x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE' type='hidden'><value>urn:a</value></field>\
             <field var='choice' type='list-single'><value>one</value></field></x>"
        );
    }
}
