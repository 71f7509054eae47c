//! The fields of a request's body, as the OpenAPI description declares them.

use std::{collections::BTreeMap, sync::Arc};

use common::{
    carts::new::{FieldError, MAX_ERRORS},
    json::{self, Fields},
};
use serde_json::value::RawValue;
use utoipa::openapi::{
    RefOr, Schema,
    schema::{ArrayItems, SchemaType, Type},
};

use super::{nearest, quoted};

/// The schemas that references of a route point to, by name.
pub(crate) type Schemas = [(String, RefOr<Schema>)];

/// The fields of a body that are known. A request that asks for strict handling has this in its
/// extensions.
#[derive(Debug, Clone)]
pub(crate) struct KnownFields(Arc<Shape>);

#[derive(Debug, Clone)]
enum Shape {
    /// Fields have any name, or there are none.
    Any,
    Object(BTreeMap<String, Shape>),
    List(Box<Shape>),
}

impl KnownFields {
    pub(crate) fn of(schema: &RefOr<Schema>, schemas: &Schemas) -> Self {
        Self(Arc::new(Shape::of(schema, schemas)))
    }

    /// These fields and others of the body itself.
    pub(crate) fn and(self, names: &[&str]) -> Self {
        let mut shape = Arc::unwrap_or_clone(self.0);
        if let Shape::Object(fields) = &mut shape {
            fields.extend(names.iter().map(|name| ((*name).to_owned(), Shape::Any)));
        }
        Self(Arc::new(shape))
    }

    /// An error for each unknown field of `body`; of more than twenty, the first ones.
    pub(crate) fn unknown_in(&self, body: &RawValue) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.0.check(body, "", &mut errors);
        errors
    }
}

impl Shape {
    fn of(schema: &RefOr<Schema>, schemas: &Schemas) -> Self {
        let schema = match schema {
            RefOr::T(schema) => schema,
            RefOr::Ref(reference) => {
                let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
                let known = schemas.iter().find(|(known, _)| known == name);
                return known.map_or(Self::Any, |(_, schema)| Self::of(schema, schemas));
            }
        };
        match schema {
            Schema::Object(object) if !object.properties.is_empty() => Self::Object(
                object.properties.iter().map(|(name, field)| (name.clone(), Self::of(field, schemas))).collect(),
            ),
            Schema::Array(array) => match &array.items {
                ArrayItems::RefOrSchema(items) => Self::List(Box::new(Self::of(items, schemas))),
                ArrayItems::False => Self::Any,
            },
            Schema::AllOf(parts) => {
                let mut all = BTreeMap::new();
                for part in &parts.items {
                    match Self::of(part, schemas) {
                        Self::Object(fields) => all.extend(fields),
                        _ => return Self::Any,
                    }
                }
                Self::Object(all)
            }
            // An optional value is one of null and its schema.
            Schema::OneOf(choices) => {
                let null = SchemaType::Type(Type::Null);
                let is_null = |item: &&RefOr<Schema>| matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == null);
                match choices.items.iter().filter(|item| !is_null(item)).collect::<Vec<_>>()[..] {
                    [only] => Self::of(only, schemas),
                    _ => Self::Any,
                }
            }
            _ => Self::Any,
        }
    }

    /// Values of another type are left to validation.
    fn check(&self, value: &RawValue, at: &str, errors: &mut Vec<FieldError>) {
        match self {
            Self::Any => {}
            Self::List(element) => {
                for (index, value) in json::list(value).unwrap_or_default().into_iter().enumerate() {
                    element.check(value, &format!("{at}[{index}]"), errors);
                }
            }
            Self::Object(known) => {
                for (name, value) in Fields::of(value).unwrap_or_default().iter() {
                    if errors.len() >= MAX_ERRORS {
                        return;
                    }
                    let dot = if at.is_empty() { "" } else { "." };
                    match known.get(name) {
                        Some(shape) => shape.check(value, &format!("{at}{dot}{name}"), errors),
                        None => {
                            let hint = nearest(name, known.keys()).map(|known| format!("; did you mean {known}?"));
                            let message = format!("is not a field of this request{}", hint.unwrap_or_default());
                            errors.push(FieldError::new(format!("{at}{dot}{}", quoted(name)), message));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use utoipa::{PartialSchema, ToSchema};

    use super::*;

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "this is described, never made")]
    struct Order {
        lines: Vec<Line>,
        discount: Option<Line>,
        notes: BTreeMap<String, String>,
        id: Option<String>,
    }

    #[derive(ToSchema)]
    #[expect(dead_code, reason = "this is described, never made")]
    struct Line {
        name: String,
    }

    fn unknown(body: &str) -> Vec<(String, String)> {
        let mut schemas = Vec::new();
        Order::schemas(&mut schemas);
        let known = KnownFields::of(&Order::schema(), &schemas).and(&["total"]);
        let errors = known.unknown_in(&json::parse(body.as_bytes()).unwrap());
        errors.into_iter().map(|error| (error.field, error.message)).collect()
    }

    #[test]
    fn unknown_fields_are_found_at_every_level() {
        assert!(unknown(r#"{"id":null,"total":1,"notes":{"any":"name"},"lines":[{"name":"Tea"}]}"#).is_empty());
        for other in ["[]", "7", "null", r#"{"lines":7,"discount":[],"notes":[{"a":1}]}"#] {
            assert!(unknown(other).is_empty(), "validation refuses {other}");
        }
        let is = |field: &str, hint: &str| (field.to_owned(), format!("is not a field of this request{hint}"));
        assert_eq!(
            unknown(r#"{"line":1,"lines":[{"name":"Tea"},{"nmae":"Cup","sku":null}],"discount":{"x":1}}"#),
            [
                is("line", "; did you mean lines?"),
                is("lines[1].nmae", "; did you mean name?"),
                is("lines[1].sku", ""),
                is("discount.x", ""),
            ]
        );
        let many: Vec<String> = (0..1_000).map(|n| format!("\"field{n}\":1")).collect();
        assert_eq!(unknown(&format!("{{{}}}", many.join(","))).len(), MAX_ERRORS);
        let long = "x".repeat(100_000);
        assert!(unknown(&format!("{{\"{long}\":1}}"))[0].0.len() < 100);
    }
}
