//! Renders the OpenAPI document as an HTML page, once. The page loads no other resources.

#![expect(clippy::disallowed_types, reason = "it shows our own document")]

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::openapi::{
    Content, OpenApi, RefOr, Required, Response, Schema,
    path::{Operation, ParameterIn, PathItem},
    schema::{ArrayItems, Object, SchemaType, Type},
};

use super::standard;

const STYLE: &str = include_str!("page.css");

/// Allows the page's inline style only: no scripts, no images, no other origins.
pub(super) fn content_security_policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

pub(super) fn render(document: &OpenApi) -> String {
    let operations = operations(document);
    let tags = document.tags.iter().flatten();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (document.info.title) " – API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                nav aria-label="Contents" {
                    a href="#top" { strong { (document.info.title) } }
                    @for tag in tags.clone() {
                        p { (tag.name) }
                        ul {
                            @for (_, _, operation) in operations.iter().filter(|(_, _, operation)| has_tag(operation, &tag.name)) {
                                li { a href={ "#" (id(operation)) } { (operation.summary.as_deref().unwrap_or_default()) } }
                            }
                        }
                    }
                    p { a href="#schemas" { "Schemas" } }
                }
                main id="top" {
                    h1 { (document.info.title) " API " small { (document.info.version) } }
                    (text(document.info.description.as_deref()))
                    p { "For programs: " a href="/api/openapi.json" { "openapi.json" } " (OpenAPI 3.1)." }
                    @for tag in tags {
                        section {
                            h2 { (tag.name) }
                            (text(tag.description.as_deref()))
                            @for (path, method, operation) in operations.iter().filter(|(_, _, operation)| has_tag(operation, &tag.name)) {
                                (show_operation(path, method, operation))
                            }
                        }
                    }
                    section id="schemas" {
                        h2 { "Schemas" }
                        @for (name, schema) in document.components.iter().flat_map(|components| &components.schemas) {
                            article id={ "schema-" (name) } { h3 { code { (name) } } (show_schema(schema)) }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn operations(document: &OpenApi) -> Vec<(&str, &'static str, &Operation)> {
    let all = document.paths.paths.iter().flat_map(|(path, item)| {
        methods(item)
            .into_iter()
            .filter_map(move |(method, operation)| Some((path.as_str(), method, operation.as_ref()?)))
    });
    all.collect()
}

fn methods(item: &PathItem) -> [(&'static str, &Option<Operation>); 5] {
    let PathItem { get, post, patch, delete, put, .. } = item;
    [("GET", get), ("POST", post), ("PATCH", patch), ("DELETE", delete), ("PUT", put)]
}

fn has_tag(operation: &Operation, tag: &str) -> bool {
    operation.tags.iter().flatten().any(|own| own == tag)
}

fn id(operation: &Operation) -> &str {
    operation.operation_id.as_deref().unwrap_or_default()
}

fn show_operation(path: &str, method: &str, operation: &Operation) -> Markup {
    let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    let body = operation.request_body.as_ref().and_then(|body| match body {
        RefOr::T(body) => Some(body),
        RefOr::Ref(_) => None,
    });
    html! {
        article id=(id(operation)) {
            h3 { (operation.summary.as_deref().unwrap_or_default()) }
            p.route { code { b { (method) } " " (path) } " " small { (scope(operation)) } }
            (text(operation.description.as_deref()))
            @if operation.parameters.is_some() {
                table {
                    thead { tr { th { "Parameter" } th { "In" } th { "Takes" } th {} } }
                    tbody {
                        @for parameter in parameters {
                            tr {
                                td { code { (parameter.name) } @if matches!(parameter.required, Required::True) { " " small { "required" } } }
                                td { (place(&parameter.parameter_in)) }
                                td { @if let Some(schema) = &parameter.schema { (kind(schema)) } }
                                td { (inline(parameter.description.as_deref())) }
                            }
                        }
                    }
                }
            }
            @if let Some(body) = body {
                h4 { "Body" }
                (text(body.description.as_deref()))
                @for (media_type, content) in &body.content { (show_content(media_type, content)) }
            }
            table {
                thead { tr { th { "Answer" } th { "Body" } th {} } }
                tbody {
                    @for (status, response) in operation.responses.responses.iter().filter(|(status, _)| *status != "default") {
                        @match response {
                            RefOr::T(response) => (show_response(status, response)),
                            RefOr::Ref(shared) => tr {
                                td { (status) }
                                td { (link("Error")) }
                                td { (inline(standard::reason(shared.ref_location.rsplit('/').next().unwrap_or_default()))) }
                            },
                        }
                    }
                }
            }
        }
    }
}

/// The scope that an operation requires.
fn scope(operation: &Operation) -> String {
    let security = serde_json::to_value(&operation.security).unwrap_or_default();
    let scopes = security[0].as_object().into_iter().flat_map(|requirement| requirement.values());
    let mut scopes = scopes.filter_map(|scopes| scopes[0].as_str());
    scopes.next().map_or_else(|| "no key".to_owned(), |scope| format!("scope {scope}"))
}

fn place(place: &ParameterIn) -> &'static str {
    match place {
        ParameterIn::Path => "path",
        ParameterIn::Query => "query",
        ParameterIn::Header => "header",
        _ => "cookie",
    }
}

fn show_response(status: &str, response: &Response) -> Markup {
    html! {
        tr {
            td { (status) }
            td {
                @for (media_type, content) in &response.content {
                    div {
                        @if media_type != "application/json" { code { (media_type) } " " }
                        @if let RefOr::T(Content { schema: Some(schema), .. }) = content { (kind(schema)) }
                    }
                }
            }
            td {
                (inline(Some(&response.description)))
                @for (name, header) in &response.headers {
                    @if let RefOr::T(header) = header { div { code { (name) } ": " (inline(header.description.as_deref())) } }
                }
            }
        }
    }
}

fn show_content(media_type: &str, content: &RefOr<Content>) -> Markup {
    let RefOr::T(content) = content else { return html! {} };
    html! {
        p { code { (media_type) } @if let Some(schema) = &content.schema { ": " (kind(schema)) } }
        @if let Some(example) = &content.example { (show_example(example)) }
    }
}

fn show_example(example: &Value) -> Markup {
    let written = match example {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    html! { pre { code { (written) } } }
}

fn show_schema(schema: &RefOr<Schema>) -> Markup {
    let RefOr::T(Schema::Object(object)) = schema else { return html! { p { (kind(schema)) } } };
    html! {
        (text(object.description.as_deref()))
        @if object.properties.is_empty() {
            p { (kind(schema)) }
        } @else {
            table {
                thead { tr { th { "Field" } th { "Type" } th {} } }
                tbody {
                    @for (name, property) in &object.properties {
                        tr {
                            td { code { (name) } @if !object.required.contains(name) { " " small { "optional" } } }
                            td { (kind(property)) }
                            td { (inline(description(property))) }
                        }
                    }
                }
            }
        }
        @if let Some(example) = &object.example { (show_example(example)) }
    }
}

fn description(schema: &RefOr<Schema>) -> Option<&str> {
    match schema {
        RefOr::Ref(reference) => Some(reference.description.as_str()).filter(|text| !text.is_empty()),
        RefOr::T(Schema::Object(object)) => object.description.as_deref(),
        RefOr::T(Schema::Array(array)) => array.description.as_deref(),
        RefOr::T(Schema::OneOf(one_of)) => one_of.description.as_deref(),
        RefOr::T(Schema::AnyOf(any_of)) => any_of.description.as_deref(),
        RefOr::T(_) => None,
    }
}

fn link(name: &str) -> Markup {
    html! { a href={ "#schema-" (name) } { (name) } }
}

/// A type in a few words, with its bounds.
fn kind(schema: &RefOr<Schema>) -> Markup {
    let among = |items: &[RefOr<Schema>], word: &str| {
        html! {
            @for (place, item) in items.iter().enumerate() { @if place > 0 { " " (word) " " } (kind(item)) }
        }
    };
    match schema {
        RefOr::Ref(reference) => link(reference.ref_location.rsplit('/').next().unwrap_or_default()),
        RefOr::T(Schema::Array(array)) => html! {
            "list of "
            @if let ArrayItems::RefOrSchema(items) = &array.items { (kind(items)) }
            @if let (Some(least), Some(most)) = (array.min_items, array.max_items) { ", " (least) " to " (most) }
        },
        RefOr::T(Schema::OneOf(one_of)) => among(&one_of.items, "or"),
        RefOr::T(Schema::AnyOf(any_of)) => among(&any_of.items, "or"),
        RefOr::T(Schema::AllOf(all_of)) => among(&all_of.items, "and"),
        // An envelope: show the type of its `data`.
        RefOr::T(Schema::Object(Object { properties, .. }))
            if properties.contains_key("data") && properties.contains_key("success") =>
        {
            html! { @if let Some(data) = properties.get("data") { (kind(data)) } }
        }
        RefOr::T(Schema::Object(object)) => html! { (type_name(&object.schema_type)) (bounds(object)) },
        RefOr::T(_) => html! { "anything" },
    }
}

fn type_name(kind: &SchemaType) -> String {
    let name = |kind: &Type| match kind {
        Type::Object => "object",
        Type::String => "text",
        Type::Integer => "whole number",
        Type::Number => "number",
        Type::Boolean => "true or false",
        Type::Array => "list",
        Type::Null => "null",
    };
    match kind {
        SchemaType::Type(kind) => name(kind).to_owned(),
        SchemaType::Array(kinds) => kinds.iter().map(name).collect::<Vec<_>>().join(" or "),
        SchemaType::AnyValue => "anything".to_owned(),
    }
}

fn bounds(object: &Object) -> Markup {
    let number = |number: &utoipa::Number| serde_json::to_string(number).unwrap_or_default();
    let format = object.format.as_ref().and_then(|format| serde_json::to_value(format).ok());
    html! {
        @if let Some(Value::String(format)) = format { ", " (format) }
        @if let Some(values) = &object.enum_values {
            ": " @for (place, value) in values.iter().enumerate() { @if place > 0 { ", " } code { (value.to_string().trim_matches('"')) } }
        }
        @if let Some(least) = &object.minimum { ", from " (number(least)) }
        @if let Some(most) = &object.maximum { ", at most " (number(most)) }
        @if let Some(least) = object.min_length { ", " (least) " or more characters" }
        @if let Some(most) = object.max_length { ", at most " (most) " characters" }
        @if let Some(pattern) = &object.pattern { ", " code { (pattern) } }
        @if let Some(Value::String(example)) = object.example.as_ref().or(object.examples.first()) { ", such as " code { (example) } }
    }
}

/// Renders paragraphs; text in backquotes becomes code.
fn text(text: Option<&str>) -> Markup {
    html! { @for paragraph in text.unwrap_or_default().split("\n\n").filter(|paragraph| !paragraph.is_empty()) { p { (inline(Some(paragraph))) } } }
}

fn inline(text: Option<&str>) -> Markup {
    html! {
        @for (place, part) in text.unwrap_or_default().split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
