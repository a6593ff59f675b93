//! The fields of a request, each read with its type and range, so that an error names the field.

use super::error::ApiError;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// A JSON object from outside. Fields that nobody reads are passed over, as clients send many.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

/// The number written so that it can be read again in a message.
fn range_text<N: Display>(range: &RangeInclusive<N>) -> String {
    format!("{} to {}", range.start(), range.end())
}

impl Fields {
    /// Of a body.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn of(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")).with_code("invalid_json")
        })?;
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("the body is {}; an object is wanted", kind(&other)),
            )),
        }
    }

    /// An object within another one.
    pub const fn within(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// A field that is there and not null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn read<'f, T>(
        &'f self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'f Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong(name, value, wanted))
    }

    /// A number within a range.
    ///
    /// # Errors
    /// Names the field, and what is allowed.
    pub fn number(&self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        let wanted = format!("a number from {}", range_text(&range));
        self.read(name, &wanted, |value| Some(value.as_f64()? as f32).filter(|number| range.contains(number)))
    }

    /// A whole number within a range.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let wanted = format!("a whole number from {}", range_text(&range));
        // Some clients write them as 5.0.
        let whole = |value: &Value| {
            value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64))
        };
        self.read(name, &wanted, |value| whole(value).filter(|number| range.contains(number)))
    }

    /// Yes or no.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.read(name, "a text", Value::as_str)
    }

    /// A list.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn list(&self, name: &str) -> Result<Option<&Vec<Value>>, ApiError> {
        self.read(name, "a list", Value::as_array)
    }

    /// An object.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn object(&self, name: &str) -> Result<Option<Self>, ApiError> {
        let object = self.read(name, "an object", Value::as_object)?;
        Ok(object.cloned().map(Self))
    }

    /// One text, or a list of them.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn texts(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let texts = self.read(name, "a text or a list of texts", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
            _ => None,
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// The fields and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }
}

/// A field has a value that is not allowed.
pub fn wrong(name: &str, value: &Value, wanted: &str) -> ApiError {
    let found = match value {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    };
    ApiError::field(name, format!("{name} is {found}; wanted is {wanted}"))
}

/// What a value is, for people.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_field_what_it_is_and_what_is_wanted() {
        let fields = Fields::of(br#"{"a": 3, "b": "x", "c": null, "d": ["s", 1], "e": 5.0, "f": 1e300}"#).unwrap();
        let error = fields.number("a", 0.0..=2.0).unwrap_err();
        assert_eq!(error.message, "a is 3; wanted is a number from 0 to 2");
        assert_eq!((error.param.as_deref(), error.status), (Some("a"), StatusCode::BAD_REQUEST));
        assert_eq!(
            fields.integer("b", 1..=4).unwrap_err().message,
            "b is a text; wanted is a whole number from 1 to 4"
        );
        assert_eq!((fields.flag("c"), fields.text("x")), (Ok(None), Ok(None)));
        assert_eq!(fields.texts("d").unwrap_err().message, "d is a list; wanted is a text or a list of texts");
        assert_eq!(fields.texts("b"), Ok(vec!["x".to_owned()]));
        assert_eq!(fields.integer("e", 0..=9), Ok(Some(5)));
        assert!(fields.integer("f", i64::MIN..=i64::MAX).is_err() && fields.number("f", 0.0..=f32::MAX).is_err());
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        assert!(Fields::of(b"{").unwrap_err().message.starts_with("the body is no JSON: "));
        assert_eq!(Fields::of(b"[1]").unwrap_err().message, "the body is a list; an object is wanted");
    }
}
