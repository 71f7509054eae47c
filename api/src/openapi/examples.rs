//! Adds examples of requests and responses, and a call with curl, to each operation. Examples are
//! built from those of the schemas and fields.

#![expect(clippy::disallowed_types, reason = "examples come from this program, not from untrusted input")]

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{
    Components, Content, OpenApi, RefOr, Required, Response, Schema,
    path::{Operation, Parameter, ParameterIn},
    schema::{ArrayItems, SchemaFormat, SchemaType, Type},
};

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// The responses with errors have an example by their status.
pub(super) fn add(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let schemas = components.schemas.clone();
    let Components { responses, .. } = components;
    for response in responses.values_mut() {
        complete(response, &schemas);
    }
    for (path, item) in &mut document.paths.paths {
        let methods = [
            ("GET", &mut item.get),
            ("POST", &mut item.post),
            ("PATCH", &mut item.patch),
            ("PUT", &mut item.put),
            ("DELETE", &mut item.delete),
        ];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                body.content.iter_mut().for_each(|(media_type, content)| add_example(media_type, content, &schemas));
            }
            operation.responses.responses.values_mut().for_each(|response| complete(response, &schemas));
            if operation.security.as_ref().is_some_and(|schemes| !schemes.is_empty()) {
                let call = format!("```sh\n{}\n```", curl(method, path, operation));
                let text = operation.description.take().map(|text| format!("{text}\n\n")).unwrap_or_default();
                operation.description = Some(text + &call);
            }
        }
    }
}

fn complete(response: &mut RefOr<Response>, schemas: &Schemas) {
    let RefOr::T(response) = response else { return };
    let error = error(&response.description);
    for content in &mut response.content {
        match (content, &error) {
            ((_, RefOr::T(content)), Some(error)) => content.example = Some(error.clone()),
            ((media_type, content), _) => add_example(media_type, content, schemas),
        }
    }
}

/// The error that the description of a response begins with, such as "`CONFLICT`: the reason".
fn error(description: &str) -> Option<Value> {
    let (code, reason) = description.strip_prefix('`')?.split_once("`: ")?;
    let mut letters = reason.chars();
    let message: String = letters.next()?.to_uppercase().chain(letters).collect();
    Some(json!({"success": false, "error": {"code": code, "message": message}}))
}

/// Leaves an example that the operation has itself.
fn add_example(media_type: &str, content: &mut RefOr<Content>, schemas: &Schemas) {
    let RefOr::T(content) = content else { return };
    if let (None, true, Some(schema)) = (&content.example, content.examples.is_empty(), &content.schema) {
        content.example =
            Some(if media_type == "text/html" { "<!DOCTYPE html>…".into() } else { example(schema, schemas) });
    }
}

fn example(schema: &RefOr<Schema>, schemas: &Schemas) -> Value {
    let schema = match schema {
        RefOr::T(schema) => schema,
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
            return schemas.get(name).map_or(Value::Null, |schema| example(schema, schemas));
        }
    };
    let own = own_example(schema);
    own.unwrap_or_else(|| match schema {
        Schema::Array(array) => match &array.items {
            ArrayItems::RefOrSchema(items) => json!([example(items, schemas)]),
            ArrayItems::False => json!([]),
        },
        Schema::Object(object) => match &object.schema_type {
            SchemaType::Type(Type::Object) => {
                // Optional fields are left out, unless they have an example.
                let is_shown = |name: &String, field: &RefOr<Schema>| {
                    object.required.contains(name) || matches!(field, RefOr::T(field) if given_example(field).is_some())
                };
                let shown = object.properties.iter().filter(|(name, field)| is_shown(name, field));
                shown.map(|(name, field)| (name.clone(), example(field, schemas))).collect::<Map<_, _>>().into()
            }
            SchemaType::Type(Type::String) => text(object.format.as_ref()).into(),
            SchemaType::Type(Type::Boolean) => true.into(),
            SchemaType::Type(Type::Integer | Type::Number) => 1.into(),
            // A value that may be null, or of any type.
            _ => Value::Null,
        },
        Schema::AllOf(parts) => {
            let parts = parts.items.iter().map(|part| example(part, schemas));
            let fields = parts.filter_map(|part| match part {
                Value::Object(fields) => Some(fields),
                _ => None,
            });
            fields.flatten().collect::<Map<_, _>>().into()
        }
        Schema::OneOf(choices) => first(&choices.items, schemas),
        Schema::AnyOf(choices) => first(&choices.items, schemas),
        _ => Value::Null,
    })
}

fn first(choices: &[RefOr<Schema>], schemas: &Schemas) -> Value {
    let examples: Vec<Value> = choices.iter().map(|choice| example(choice, schemas)).collect();
    let may_be_null = examples.contains(&Value::Null);
    if may_be_null { Value::Null } else { examples.into_iter().next().unwrap_or_default() }
}

/// The example that the schema itself has, or its first value.
fn own_example(schema: &Schema) -> Option<Value> {
    let first_value = || match schema {
        Schema::Object(object) => object.enum_values.as_ref()?.first(),
        _ => None,
    };
    given_example(schema).or_else(first_value).cloned()
}

fn given_example(schema: &Schema) -> Option<&Value> {
    let (example, examples) = match schema {
        Schema::Array(array) => (&array.example, &array.examples),
        Schema::Object(object) => (&object.example, &object.examples),
        Schema::OneOf(choices) => (&choices.example, &choices.examples),
        Schema::AllOf(parts) => (&parts.example, &parts.examples),
        Schema::AnyOf(choices) => (&choices.example, &choices.examples),
        _ => return None,
    };
    example.as_ref().or_else(|| examples.first())
}

fn text(format: Option<&SchemaFormat>) -> &'static str {
    let format = format.and_then(|format| serde_json::to_value(format).ok());
    match format.as_ref().and_then(Value::as_str) {
        Some("date-time") => "2026-03-01T12:00:00Z",
        Some("date") => "2026-03-01",
        Some("uuid") => "0199a3b2-7c1e-7d40-9a55-3f2f0c1d2e4b",
        Some("uri") => "https://shop.example/teapot",
        _ => "text",
    }
}

/// The call of an operation with its required parameters and the example of its body, for a shell
/// where `API_URL` and `API_KEY` are set.
fn curl(method: &str, path: &str, operation: &Operation) -> String {
    let path = path.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => format!("${}", name.to_uppercase()),
        None => part.to_owned(),
    });
    let path: Vec<String> = path.collect();
    let mut call = format!("curl -s \"$API_URL{}\" -H \"x-api-key: $API_KEY\"", path.join("/"));
    let body = operation.request_body.as_ref().and_then(|body| match body {
        RefOr::T(body) => body.content.iter().next(),
        RefOr::Ref(_) => None,
    });
    let sends_body = matches!(body, Some((_, RefOr::T(Content { example: Some(_), .. }))));
    if method != "GET" && !(method == "POST" && sends_body) {
        call += &format!(" -X {method}");
    }
    for parameter in operation.parameters.iter().flatten() {
        let RefOr::T(Parameter {
            name,
            parameter_in: ParameterIn::Query,
            required: Required::True,
            schema: Some(schema),
            ..
        }) = parameter
        else {
            continue;
        };
        let value = example(schema, &Schemas::new());
        call += &format!(" \\\n  -G --data-urlencode '{name}={}'", value.as_str().unwrap_or_default());
    }
    if let Some((media_type, RefOr::T(Content { example: Some(body), .. }))) = body {
        call += &format!(
            " \\\n  -H 'content-type: {media_type}' \\\n  --data-binary '{}'",
            body.to_string().replace('\'', r"'\''")
        );
    }
    call
}
