//! Adds to the OpenAPI document what all routes behind the same middleware have in common.

use std::collections::BTreeMap;

use axum::http::Method;
use common::api_keys::Scope;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, ContactBuilder, Content, Header, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, Ref, RefOr,
        Required, Response, ResponseBuilder, Schema, SecurityRequirement, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths},
        schema::SchemaType,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::{Error, examples};
use crate::http::declared::{
    Declared,
    fields::{KnownFields, Schemas},
};

/// Prefix of the envelopes' schema names before the envelopes are inlined.
const ENVELOPE: &str = "Success_";
const KEY: &str = "apiKey";
const BEARER: &str = "bearer";
const JSON: &str = "application/json";

/// Error responses that several routes share: name, status, and code with reason.
const REFUSALS: [(&str, &str, &str); 12] = [
    ("BadRequest", "400", "`BAD_REQUEST`: an unknown or invalid parameter, or malformed JSON"),
    ("Unauthorized", "401", "`UNAUTHORIZED`: missing or invalid API key"),
    ("Forbidden", "403", "`FORBIDDEN`: the key lacks the required scope"),
    ("NotFound", "404", "`NOT_FOUND`: no such resource"),
    ("RequestTimeout", "408", "`REQUEST_TIMEOUT`: the body was not received within 30 s (webhooks: 10 s)"),
    ("PayloadTooLarge", "413", "`PAYLOAD_TOO_LARGE`: the body is larger than 1 MiB"),
    ("UnsupportedMediaType", "415", "`UNSUPPORTED_MEDIA_TYPE`: the message names the content type to send"),
    ("ValidationError", "422", "`VALIDATION_ERROR`: `error.details` lists every invalid field"),
    ("RateLimited", "429", "`RATE_LIMITED`: wait for `Retry-After` seconds"),
    ("InternalError", "500", "`INTERNAL_ERROR`: quote the `x-request-id`, which the log has with the cause"),
    (
        "Unavailable",
        "503",
        "`UNAVAILABLE`: the database is unavailable, or another request is changing the cart; wait for `Retry-After` seconds",
    ),
    (
        "Refused",
        "default",
        "`METHOD_NOT_ALLOWED`: the endpoint does not support this method (405, see `Allow`), or another error",
    ),
];

const TAGS: [(&str, &str); 10] = [
    ("Carts", "Abandoned carts."),
    ("Import and export", "Many carts at once, as lines of JSON or CSV."),
    ("Payment links", "A link for a cart, made by Stripe."),
    ("Analytics", "Abandoned and recovered carts by day."),
    ("Personal data", "Export and erasure of a shopper's data."),
    ("Operations", "Jobs, queues, schedules, workers and the audit log, for operators and support."),
    ("Webhooks", "Endpoints for Stripe."),
    ("Shoppers", "Pages for shoppers."),
    ("Health", "For load balancers and orchestrators."),
    ("Documentation", "This document."),
];

const DESCRIPTION: &str = "\
Stores the carts that shoppers left behind, makes a Stripe payment link for each on request, marks a cart recovered when \
Stripe reports its payment, and counts abandoned and recovered carts by day.

Every path below `/api`, except the webhook and this document, requires an API key, as `x-api-key` or as \
`Authorization: Bearer`. A key has scopes, `read`, `write`, `operator` or `support`, of which none includes another; one of \
`API_KEY` has all. Responses of JSON are `{\"success\": true, \"data\": …}` or \
`{\"success\": false, \"error\": {\"code\", \"message\"}}`, whichever part rejected the request. \
Every response has an `x-request-id`. Times are ISO 8601 in UTC. Money is exact: JSON numbers with the currency's decimals. \
An unknown query parameter returns 400; unknown fields of bodies are ignored, and clients should ignore fields that \
they do not know, too. \
`HEAD` works wherever `GET` does. Answers over 1 kB are compressed (gzip, br) on request.";

/// OpenAPI documents of the routes, by the middleware in front of them.
pub(crate) struct Described {
    /// Routes below `/api` that require a key.
    pub(crate) behind_key: OpenApi,
    /// Routes without a key, but with the rate limit.
    pub(crate) limited: Vec<OpenApi>,
    /// Routes with neither.
    pub(crate) unlimited: Vec<OpenApi>,
}

impl Described {
    /// Merges everything into one document.
    pub(crate) fn document(self) -> OpenApi {
        let mut behind_key = self.behind_key;
        for operation in operations(&mut behind_key) {
            refuse(operation, "Unauthorized");
            refuse(operation, "Forbidden");
            add_limit(operation);
        }
        let mut document = OpenApi::new(info(), Paths::new()).nest("/api", behind_key);
        for mut limited in self.limited {
            operations(&mut limited).for_each(add_limit);
            document.merge(limited);
        }
        self.unlimited.into_iter().for_each(|unlimited| document.merge(unlimited));
        operations(&mut document).for_each(complete);
        name_envelope_contents(&mut document);
        let tags = TAGS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
        document.tags = Some(tags.to_vec());
        add_components(document.components.get_or_insert_default());
        examples::add(&mut document);
        document
    }
}

fn info() -> utoipa::openapi::Info {
    InfoBuilder::new()
        .title("Quick Checkout Tracker")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .contact(Some(ContactBuilder::new().name(Some("The operator of this installation")).build()))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
        .build()
}

/// Sets the scopes of which a key needs one (OpenAPI 3.1 calls them roles).
pub(crate) fn ask_for_key(paths: &mut Paths, scopes: &[Scope]) {
    for operation in operations_of(paths) {
        let one_of = scopes
            .iter()
            .flat_map(|scope| [KEY, BEARER].map(|scheme| SecurityRequirement::new(scheme, [scope.as_str()])));
        operation.security = Some(one_of.collect());
    }
}

/// What each method of a route declares. Describes that other parameters return 400, and `Prefer`
/// where there is a body.
pub(crate) fn declare(paths: &mut Paths, schemas: &Schemas) -> Vec<Declared> {
    let mut all = Vec::new();
    for item in paths.paths.values_mut() {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let methods = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];
        for (method, operation) in methods.into_iter().zip([get, put, post, delete, patch]) {
            let Some(operation) = operation else { continue };
            refuse(operation, "BadRequest");
            let query = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
                RefOr::T(Parameter { name, parameter_in: ParameterIn::Query, .. }) => Some(name.clone()),
                _ => None,
            });
            let query = query.collect();
            let body = known_fields(operation, schemas);
            if body.is_some() {
                describe_strict_handling(operation);
            }
            all.push(Declared { method, query, body });
        }
    }
    all
}

/// The fields of the body, or of each of its lines.
fn known_fields(operation: &Operation, schemas: &Schemas) -> Option<KnownFields> {
    let Some(RefOr::T(body)) = &operation.request_body else { return None };
    let content = [JSON, "application/x-ndjson"].into_iter().find_map(|media_type| body.content.get(media_type))?;
    match content {
        RefOr::T(Content { schema: Some(schema), .. }) => Some(KnownFields::of(schema, schemas)),
        _ => None,
    }
}

/// Adds `Prefer` and `Preference-Applied`, unless the operation describes them itself.
fn describe_strict_handling(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    if !parameters.iter().any(|parameter| matches!(parameter, RefOr::T(Parameter { name, .. }) if name == "Prefer")) {
        let prefer = ParameterBuilder::new()
            .name("Prefer")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some("`handling=strict`: unknown fields return 422 instead of being ignored (RFC 7240)."))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).examples(["handling=strict"])));
        parameters.push(prefer.build().into());
    }
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
            let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
            header.description = Some("`handling=strict`, if requested.".to_owned());
            response.headers.entry("Preference-Applied".to_owned()).or_insert(header.into());
        }
    }
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    operations_of(&mut document.paths)
}

fn operations_of(paths: &mut Paths) -> impl Iterator<Item = &mut Operation> {
    paths.paths.values_mut().flat_map(|item| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        [get, put, post, delete, patch].into_iter().flatten()
    })
}

/// Inlines each envelope where it is used, and names the schema of its `data`: client generators
/// need these names.
fn name_envelope_contents(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let is_envelope = |name: &String, _: &mut RefOr<Schema>| name.starts_with(ENVELOPE);
    let mut envelopes: BTreeMap<String, RefOr<Schema>> = components.schemas.extract_if(.., is_envelope).collect();
    for (envelope, schema) in &mut envelopes {
        let RefOr::T(Schema::Object(object)) = schema else { continue };
        let (name, Some(data)) = (&envelope[ENVELOPE.len()..], object.properties.get_mut("data")) else { continue };
        let is_text =
            matches!(data, RefOr::T(Schema::Object(data)) if data.schema_type == SchemaType::Type(Type::String));
        if !is_text {
            let named = std::mem::replace(data, Ref::from_schema_name(name).into());
            components.schemas.entry(name.to_owned()).or_insert(named);
        }
    }
    let responses = operations(document).flat_map(|operation| operation.responses.responses.values_mut());
    let contents = responses.filter_map(|response| match response {
        RefOr::T(response) => Some(response.content.values_mut()),
        RefOr::Ref(_) => None,
    });
    for content in contents.flatten() {
        let RefOr::T(Content { schema: Some(schema), .. }) = content else { continue };
        let RefOr::Ref(reference) = &*schema else { continue };
        let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
        if let Some(envelope) = envelopes.get(name) {
            *schema = envelope.clone();
        }
    }
}

/// Adds a shared error response, unless the operation describes that status itself.
fn refuse(operation: &mut Operation, name: &str) {
    if let Some((_, status, _)) = REFUSALS.iter().find(|(known, ..)| *known == name) {
        let response = RefOr::Ref(Ref::from_response_name(name));
        operation.responses.responses.entry((*status).to_owned()).or_insert(response);
    }
}

fn add_limit(operation: &mut Operation) {
    refuse(operation, "RateLimited");
    add_headers(operation, &["RateLimit", "RateLimit-Policy"]);
}

/// Removes `null` from an optional parameter's type: the parameter may be absent, but not null.
fn without_null(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(kinds) = &mut object.schema_type {
                kinds.retain(|kind| *kind != Type::Null);
                if let [kind] = kinds.as_slice() {
                    object.schema_type = SchemaType::Type(kind.clone());
                }
            }
        }
        RefOr::T(Schema::OneOf(one_of)) => {
            let null = SchemaType::Type(Type::Null);
            one_of.items.retain(|item| !matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == null));
            if let [only] = one_of.items.as_slice() {
                *schema = only.clone();
            }
        }
        _ => {}
    }
}

fn complete(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(Parameter { schema: Some(schema), .. }) = parameter {
            without_null(schema);
        }
    }
    let in_path =
        |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(Parameter { parameter_in: ParameterIn::Path, .. }));
    if operation.parameters.iter().flatten().any(in_path) {
        refuse(operation, "NotFound");
    }
    if operation.request_body.is_some() {
        refuse(operation, "BadRequest");
        refuse(operation, "PayloadTooLarge");
        refuse(operation, "RequestTimeout");
        refuse(operation, "UnsupportedMediaType");
        // The webhook, which takes no key, accepts whatever Stripe has signed.
        if operation.security.is_some() {
            refuse(operation, "ValidationError");
        }
    }
    operation.security.get_or_insert_default();
    refuse(operation, "InternalError");
    refuse(operation, "Unavailable");
    refuse(operation, "Refused");
    add_headers(operation, &["x-request-id"]);
}

/// Adds headers to the responses that the operation describes itself; shared responses have their
/// own.
fn add_headers(operation: &mut Operation, names: &[&str]) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.headers.extend(header_references(names));
        }
    }
}

fn header_references(names: &[&str]) -> BTreeMap<String, RefOr<Header>> {
    let reference = |name: &str| RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
    names.iter().map(|name| ((*name).to_owned(), reference(name))).collect()
}

fn add_components(components: &mut Components) {
    components.schemas.insert("Error".to_owned(), Error::schema());
    let mut used = Vec::new();
    Error::schemas(&mut used);
    components.schemas.extend(used);
    for (name, status, text) in REFUSALS {
        components.responses.insert(name.to_owned(), refusal(status, text).into());
    }
    let header = |kind: Type, text: &str, example: &str| {
        let mut header = Header::new(ObjectBuilder::new().schema_type(kind));
        header.description = Some(text.to_owned());
        header.example = Some(example.into());
        header
    };
    let headers = [
        (
            "x-request-id",
            header(
                Type::String,
                "Names the request in the log. Send your own (letters, digits, `-_.`) and it is used.",
                "3f0c6f0e-7f2b-4b1e-9f57-0e6a0a7c0d11",
            ),
        ),
        (
            "RateLimit",
            header(
                Type::String,
                "What is left of the limit, `r`, and the seconds until all of it is there again, `t`. Absent where there is no limit.",
                "\"default\";r=97;t=2",
            ),
        ),
        (
            "RateLimit-Policy",
            header(
                Type::String,
                "The limit: `q` requests in `w` seconds, from one client address.",
                "\"default\";q=100;w=60",
            ),
        ),
    ];
    for (name, header) in headers {
        components.headers.insert(name.to_owned(), header.into());
    }
    let key = ApiKeyValue::with_description("x-api-key", "One of `API_KEY`, or one that `api keys add` made.");
    components.add_security_scheme(KEY, SecurityScheme::ApiKey(ApiKey::Header(key)));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The same key as `Authorization: Bearer`. With `x-api-key` as well, both must be the same."));
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
}

fn refusal(status: &str, text: &str) -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Error")));
    let mut response = ResponseBuilder::new().description(text).content(JSON, content).build();
    response.headers = header_references(&["x-request-id", "RateLimit", "RateLimit-Policy"]);
    if status == "401" {
        let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
        header.description = Some("How to authenticate (RFC 6750).".to_owned());
        response.headers.insert("WWW-Authenticate".to_owned(), header.into());
    }
    if matches!(status, "429" | "503") {
        let mut header = Header::new(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)));
        header.description = Some("Seconds.".to_owned());
        response.headers.insert("Retry-After".to_owned(), header.into());
    }
    response
}
