//! Ids in Stripe's responses, and the objects that may be in their place.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        Error, MapAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};

/// Maximum characters of an id, see
/// <https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backward-compatible>.
const LONGEST_ID: usize = 255;

/// An id of Stripe's. Validated, because it is stored and used in paths.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Id(#[serde(deserialize_with = "id")] String);

impl Id {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let well_formed = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain);
    if well_formed { Ok(id) } else { Err(D::Error::custom("not an id of Stripe's")) }
}

/// An object, or only its id if the request did not expand it (<https://docs.stripe.com/expand>).
#[derive(Debug, Clone)]
pub(super) enum Expandable<T> {
    Id(Id),
    Object(T),
}

/// (An untagged enum would buffer the object, and then could not read numbers with serde_json's
/// `arbitrary_precision`.)
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Expandable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdOrObject<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for IdOrObject<T> {
            type Value = Expandable<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id or an object")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                id(StrDeserializer::<E>::new(text)).map(|id| Expandable::Id(Id(id)))
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object)).map(Expandable::Object)
            }
        }

        deserializer.deserialize_any(IdOrObject(PhantomData))
    }
}
