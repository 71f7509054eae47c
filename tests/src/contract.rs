//! Checks every response in the tests against the OpenAPI document.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
};

use common::mutex::lock;
use jsonschema::Validator;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

/// The OpenAPI document. Shared by all tests, because it depends only on the code.
pub struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

static CONTRACT: OnceLock<Contract> = OnceLock::new();

/// Whether the path is a page of the dashboard, which the document does not describe.
pub fn is_of_the_dashboard(path: &str) -> bool {
    let first = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default();
    ["", "assets", "audit", "carts", "events", "jobs", "queues", "schedules", "sign-in", "sign-out", "start"]
        .contains(&first)
}

impl Contract {
    /// The document of this build.
    ///
    /// # Panics
    /// If the document is invalid.
    pub fn get() -> &'static Self {
        CONTRACT.get_or_init(|| {
            let open: Value = serde_json::from_str(&api::document()).expect("the document is JSON");
            let mut document = open.clone();
            close(&mut document["components"]["schemas"], &open);
            close(&mut document["paths"], &open);
            Self { document, validators: Mutex::default() }
        })
    }

    /// All operations, for example `GET /api/carts`.
    ///
    /// # Panics
    /// If there are none.
    pub fn operations(&self) -> Vec<String> {
        let paths = self.document["paths"].as_object().expect("there are paths");
        let methods = |item: &Value| item.as_object().into_iter().flat_map(|item| item.keys().cloned()).collect();
        paths
            .iter()
            .flat_map(|(path, item)| {
                let methods: Vec<String> = methods(item);
                methods.into_iter().map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect()
    }

    /// Checks a response against its description.
    ///
    /// # Panics
    /// If they differ.
    pub fn hold(&self, method: &Method, path: &str, status: u16, headers: &HeaderMap, text: &str) {
        if is_of_the_dashboard(path) {
            return;
        }
        let operation = self.find(method, path);
        let what = format!("{method} {path} was answered {status} {text:.300}");
        let (mut pointer, mut response) = match &operation {
            Some((at, operation)) => {
                let response = operation["responses"].get(status.to_string());
                let response = response.unwrap_or_else(|| panic!("this status is not described: {what}"));
                (format!("{at}/responses/{status}"), response)
            }
            // No route, or not this method: described once for all paths.
            None => {
                assert!((400..500).contains(&status), "there is a route that is not described: {what}");
                ("#/components/responses/Refused".to_owned(), &self.document["components"]["responses"]["Refused"])
            }
        };
        if let Some(shared) = response["$ref"].as_str() {
            pointer = shared.to_owned();
            response = self.document.pointer(&shared[1..]).expect("a shared answer");
        }
        for (name, _) in response["headers"].as_object().into_iter().flatten() {
            let always = match name.as_str() {
                "RateLimit" | "RateLimit-Policy" | "Preference-Applied" | "Link" => false,
                "Retry-After" => status != 200,    // only while a payment link is pending
                "ETag" => method != Method::PATCH, // only for keys with the scope `read`
                _ => true,
            };
            assert!(!always || headers.contains_key(name), "the header {name} is missing: {what}");
        }
        if method == Method::HEAD {
            return;
        }
        let Some(content) = response["content"].as_object() else {
            assert!(text.is_empty(), "a body is not described: {what}");
            return;
        };
        let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default();
        assert!(content.contains_key(essence), "the content type {kind:?} is not described: {what}");
        let schema = format!("{pointer}/content/{}/schema", escape(essence));
        match essence {
            "application/json" => self.check(&schema, text, &what),
            "application/x-ndjson" => text.lines().for_each(|line| self.check(&schema, line, &what)),
            _ => {}
        }
    }

    /// Checks an example of a body against the schema at this pointer.
    ///
    /// # Panics
    /// If it does not match.
    pub fn check_example(&self, schema: &str, example: &Value) {
        self.check(schema, &example.to_string(), &format!("the example {example:.300} at {schema}"));
    }

    fn check(&self, schema: &str, text: &str, what: &str) {
        let body: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {what}"));
        let validator = self.validator(schema);
        let errors: Vec<String> =
            validator.iter_errors(&body).map(|error| format!("{} at {}", error, error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}: {what}");
    }

    fn validator(&self, schema: &str) -> Arc<Validator> {
        let mut validators = lock(&self.validators);
        let new = || {
            let mut whole = self.document.clone();
            whole["$ref"] = json!(schema);
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            Arc::new(options.build(&whole).expect("the document's schemas are good"))
        };
        validators.entry(schema.to_owned()).or_insert_with(new).clone()
    }

    /// The operation of a request and its place in the document.
    fn find(&self, method: &Method, path: &str) -> Option<(String, &Value)> {
        let method = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
        let path = path.split('?').next().unwrap_or_default();
        let paths = self.document["paths"].as_object()?;
        // A literal segment takes precedence over a parameter, as in the router.
        let pattern =
            paths.keys().filter(|pattern| fits(pattern, path)).min_by_key(|pattern| pattern.matches('{').count())?;
        let operation = paths[pattern].get(&method)?;
        Some((format!("#/paths/{}/{method}", escape(pattern)), operation))
    }
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contract")
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len()
        && pattern.iter().zip(path).all(
            |(pattern, word)| {
                if pattern.starts_with('{') { !word.is_empty() } else { *pattern == word }
            },
        )
}

/// Escapes a segment of a JSON pointer.
fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1").replace('{', "%7B").replace('}', "%7D")
}

/// Rejects undescribed fields. Clients must ignore unknown fields, but tests require that every
/// field is described.
fn close(schema: &mut Value, document: &Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(parts) = fields.get_mut("allOf").and_then(Value::as_array_mut) {
                // Each part describes only its own fields, so close the whole instead of the parts.
                for part in parts.iter_mut() {
                    if let Some(shared) = part["$ref"].as_str().and_then(|at| document.pointer(&at[1..])) {
                        *part = shared.clone();
                    }
                    part["properties"]
                        .as_object_mut()
                        .into_iter()
                        .flatten()
                        .for_each(|(_, field)| close(field, document));
                }
                fields.insert("unevaluatedProperties".to_owned(), json!(false));
                return;
            }
            if fields.get("type").is_some_and(|kind| kind == "object") && fields.contains_key("properties") {
                fields.insert("unevaluatedProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(|field| close(field, document));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| close(item, document)),
        _ => {}
    }
}
