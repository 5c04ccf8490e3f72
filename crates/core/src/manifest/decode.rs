//! Trees → our types, through serde: an error knows the place it is about.
//!
//! A word is taken as what the type wants: `"8080"` is a number where a number is wanted, `1.10` is text where text is.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
    value::StrDeserializer,
};

use super::{
    node::{Entry, Node, Plain, Span, Value},
    report::{Finding, quote, quote_all},
    suggest::did_you_mean,
};

/// Reads a tree as `T`; the first thing that does not fit is the error.
pub fn decode<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Box<Finding>> {
    T::deserialize(node).map_err(|error| {
        let span = error.span.unwrap_or_else(|| node.word());
        Finding::error(error.code, span, error.message).maybe_help(error.help).into()
    })
}

/// Why a tree is not what was wanted.
#[derive(Debug)]
pub struct DecodeError {
    span: Option<Span>,
    code: &'static str,
    message: String,
    help: Option<String>,
}

impl DecodeError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { span: None, code, message: message.into(), help: None }
    }

    /// The innermost place wins.
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new("wrong-value", message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new("wrong-type", format!("expected {}, found {}", in_words(expected), found_in_words(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new("wrong-value", format!("expected {}, found {}", in_words(expected), found_in_words(found)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("missing-field", format!("{} is missing here", quote(field)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self {
            help: did_you_mean(field, expected.iter().copied()),
            ..Self::new("unknown-field", format!("unknown field {}", quote(field)))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = did_you_mean(variant, expected.iter().copied());
        Self {
            help,
            ..Self::new("wrong-value", format!("{} is none of {}", quote(variant), quote_all(expected.iter().copied())))
        }
    }
}

fn found_in_words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => quote(text),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Bool(truth) => quote(&truth.to_string()),
        Unexpected::Unsigned(number) => quote(&number.to_string()),
        Unexpected::Signed(number) => quote(&number.to_string()),
        Unexpected::Float(number) => quote(&number.to_string()),
        other => other.to_string(),
    }
}

fn in_words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number of at least 0".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "a string" => "text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        // serde says "struct Name" of any mapping with fixed keys.
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        _ => text,
    }
}

fn mismatch(node: &Node, expected: &dyn Expected) -> DecodeError {
    let code = if matches!(node.value, Value::Scalar { .. }) { "wrong-value" } else { "wrong-type" };
    DecodeError::new(code, format!("expected {}, found {}", in_words(expected), node.describe())).at(node.word())
}

fn visit_plain<'de, V: Visitor<'de>>(plain: Plain<'_>, visitor: V) -> Result<V::Value, DecodeError> {
    match plain {
        Plain::Null => visitor.visit_unit(),
        Plain::Bool(truth) => visitor.visit_bool(truth),
        Plain::Whole(number) => visitor.visit_u64(number),
        Plain::Negative(number) => visitor.visit_i64(number),
        Plain::Fraction(number) => visitor.visit_f64(number),
        Plain::Text(text) => visitor.visit_str(text),
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.number(visitor)
        }
    )*};
}

impl Node {
    fn number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        let here = |error: DecodeError| error.at(self.span);
        // Quoted numbers are numbers: the AWS tools print some so.
        let bare = self.text().map(|text| Node {
            span: self.span,
            value: Value::Scalar { text: text.trim().to_owned(), style: super::node::Style::Plain },
        });
        match bare.as_ref().and_then(Node::plain) {
            Some(Plain::Whole(number)) => visitor.visit_u64(number).map_err(here),
            Some(Plain::Negative(number)) => visitor.visit_i64(number).map_err(here),
            Some(Plain::Fraction(number)) => visitor.visit_f64(number).map_err(here),
            Some(Plain::Null | Plain::Bool(_) | Plain::Text(_)) | None => Err(mismatch(self, &visitor)),
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match (&self.value, self.plain()) {
            (Value::List(items), _) => visitor.visit_seq(Items(items.iter())),
            (Value::Map(entries), _) => {
                visitor.visit_map(Entries { rest: entries.iter(), value: None, skip_null: false })
            }
            (Value::Scalar { .. }, plain) => visit_plain(plain.unwrap_or(Plain::Null), visitor),
        }
        .map_err(|error: DecodeError| error.at(self.word()))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.text() {
            Some("true" | "True" | "TRUE") => visitor.visit_bool(true),
            Some("false" | "False" | "FALSE") => visitor.visit_bool(false),
            Some(_) | None => Err(mismatch(self, &visitor)),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.text() {
            Some(text) if !self.is_null() => visitor.visit_str(text).map_err(|error: DecodeError| error.at(self.span)),
            Some(_) | None => Err(mismatch(self, &visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_null() { visitor.visit_unit() } else { Err(mismatch(self, &visitor)) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.items() {
            Some(items) => visitor.visit_seq(Items(items.iter())).map_err(|error: DecodeError| error.at(self.word())),
            None => Err(mismatch(self, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.entries() {
            Some(entries) => visitor
                .visit_map(Entries { rest: entries.iter(), value: None, skip_null: false })
                .map_err(|error: DecodeError| error.at(self.word())),
            None => Err(mismatch(self, &visitor)),
        }
    }

    /// A field that is null is a field that is not there.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.entries() {
            Some(entries) => visitor
                .visit_map(Entries { rest: entries.iter(), value: None, skip_null: true })
                .map_err(|error: DecodeError| error.at(self.word())),
            None => Err(mismatch(self, &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.text() {
            Some(text) if !self.is_null() => {
                visitor.visit_enum(StrDeserializer::new(text)).map_err(|error: DecodeError| error.at(self.span))
            }
            Some(_) | None => {
                let message =
                    format!("expected one of {}, found {}", quote_all(variants.iter().copied()), self.describe());
                Err(DecodeError::new("wrong-type", message).at(self.word()))
            }
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        match self.0.next() {
            Some(node) => seed.deserialize(node).map(Some).map_err(|error| error.at(node.word())),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
    skip_null: bool,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let skip_null = self.skip_null;
        let Some(entry) = self.rest.find(|entry| !(skip_null && entry.value.is_null())) else { return Ok(None) };
        self.value = Some(entry);
        seed.deserialize(StrDeserializer::new(&entry.key))
            .map(Some)
            .map_err(|error: DecodeError| error.at(entry.key_span))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.value.take() else {
            return Err(DecodeError::new("wrong-value", "a value without a key"));
        };
        let nothing = entry.value.is_null() || entry.value.says_nothing();
        seed.deserialize(&entry.value)
            .map_err(|error| error.at(if nothing { entry.key_span } else { entry.value.word() }))
    }
}
