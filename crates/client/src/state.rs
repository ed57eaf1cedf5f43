//! State of an app: values by key, streamed in and out, and their changes.

use api::v1::{StateChange, StateMissed, StateValue, StateValues};
use bytes::Bytes;
use futures::Stream;
use http::header::{CONTENT_LENGTH, ETAG, IF_MATCH, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use model::{AppName, Durability};

use crate::events::EventStream;
use crate::transport::{encode, with_query};
use crate::{Client, ClientError};

/// Which values are wanted; all unless told.
#[derive(Clone, Debug, Default)]
pub struct StateFilter {
    /// Those whose keys begin with this.
    pub prefix: String,
    /// Those after this key: the `next` of the page before.
    pub after: Option<String>,
    /// How many at most.
    pub limit: Option<u32>,
}

/// What a value must be to be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Anything, or nothing.
    #[default]
    Any,
    /// There must be none.
    Absent,
    /// It must have this version.
    Version(u64),
}

/// How to put a value in its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatePut {
    /// What there must be before.
    pub expected: Expected,
    /// Where the value is kept, if there is none yet; in memory unless set.
    pub durability: Option<Durability>,
    /// When it ends, from now, in milliseconds; 0 for never, and as before unless set.
    pub ttl_ms: Option<u64>,
}

/// Some bytes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the last of these, both included.
    Within(u64, u64),
    /// From this one on.
    From(u64),
    /// So many at the end.
    Last(u64),
}

/// What happens to values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateEvent {
    /// One changed.
    Changed(StateChange),
    /// So many changes were missed at this point: read anew what matters.
    Missed(u64),
}

impl Client {
    /// A page of an app's values, in the order of their keys.
    pub async fn state(
        &self,
        app: &AppName,
        filter: &StateFilter,
    ) -> Result<StateValues, ClientError> {
        let path = with_query(
            &format!("/v1/apps/{app}/state"),
            &[
                ("prefix", Some(filter.prefix.clone())),
                ("after", filter.after.clone()),
                ("limit", filter.limit.map(|limit| limit.to_string())),
            ],
        );
        self.json(self.empty(Method::GET, &path)?).await
    }

    /// A value, or some of its bytes.
    pub async fn state_get(
        &self,
        app: &AppName,
        key: &str,
        range: Option<ByteRange>,
    ) -> Result<StateBytes, ClientError> {
        let mut request = self.empty(Method::GET, &path_of(app, key))?;
        if let Some(range) = range {
            insert(request.headers_mut(), RANGE, range.header())?;
        }
        let response = self.send(request).await?;
        let client = self.clone();
        Ok(StateBytes { client, response })
    }

    /// Makes `body` the value; it has `bytes` bytes, if that is known.
    pub async fn state_put(
        &self,
        app: &AppName,
        key: &str,
        put: &StatePut,
        bytes: Option<u64>,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<StateValue, ClientError> {
        let durability = put.durability.map(|durability| match durability {
            Durability::Ephemeral => "ephemeral".to_owned(),
            Durability::Durable => "durable".to_owned(),
            Durability::Replicated => "replicated".to_owned(),
        });
        let ttl = put.ttl_ms.map(|ms| format!("{ms}ms"));
        let parameters = [("durability", durability), ("ttl", ttl)];
        let path = with_query(&path_of(app, key), &parameters);
        let mut request = self.with_stream(Method::PUT, &path, bytes, body)?;
        put.expected.say(request.headers_mut())?;
        self.json(request).await
    }

    /// Removes a value.
    pub async fn state_remove(
        &self,
        app: &AppName,
        key: &str,
        expected: Expected,
    ) -> Result<(), ClientError> {
        let mut request = self.empty(Method::DELETE, &path_of(app, key))?;
        expected.say(request.headers_mut())?;
        self.done(request).await
    }

    /// The changes of the values whose keys begin with `prefix`, from when this returns.
    pub async fn state_watch(
        &self,
        app: &AppName,
        prefix: &str,
    ) -> Result<StateWatch, ClientError> {
        let watch = [
            ("watch", Some("true".to_owned())),
            ("prefix", Some(prefix.to_owned())),
        ];
        let path = with_query(&format!("/v1/apps/{app}/state"), &watch);
        let response = self.send(self.empty(Method::GET, &path)?).await?;
        Ok(StateWatch(EventStream::new(
            self.clone(),
            response.into_body(),
        )))
    }
}

/// The key as one part of the path: a proxy that tidies paths up must not see its slashes and dots.
fn path_of(app: &AppName, key: &str) -> String {
    format!("/v1/apps/{app}/state/{}", encode(key))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) -> Result<(), ClientError> {
    let value = HeaderValue::try_from(value).map_err(|_| ClientError::Unsendable {
        what: format!("the header `{name}`"),
    })?;
    headers.insert(name, value);
    Ok(())
}

impl Expected {
    fn say(self, headers: &mut HeaderMap) -> Result<(), ClientError> {
        match self {
            Self::Any => Ok(()),
            Self::Absent => insert(headers, IF_NONE_MATCH, "*".to_owned()),
            Self::Version(version) => insert(headers, IF_MATCH, format!("\"{version}\"")),
        }
    }
}

impl ByteRange {
    fn header(self) -> String {
        match self {
            Self::Within(first, last) => format!("bytes={first}-{last}"),
            Self::From(first) => format!("bytes={first}-"),
            Self::Last(count) => format!("bytes=-{count}"),
        }
    }
}

/// The bytes of a value, as they come: all of one version. An error says that they broke off, as
/// they do when the value changes in between.
#[derive(Debug)]
pub struct StateBytes {
    client: Client,
    response: Response<Incoming>,
}

impl StateBytes {
    /// The value's version; 0 if the node did not tell.
    pub fn version(&self) -> u64 {
        let tag = self.response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok());
        tag.and_then(|tag| tag.trim_matches('"').parse().ok())
            .unwrap_or(0)
    }

    /// How many bytes come.
    pub fn bytes(&self) -> Option<u64> {
        let length = self.response.headers().get(CONTENT_LENGTH)?;
        length.to_str().ok()?.parse().ok()
    }

    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.response.frame().await {
            let frame = frame.map_err(|error| self.client.broken(error))?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// Changes as they happen, until the node or the caller ends it.
#[derive(Debug)]
pub struct StateWatch(EventStream);

impl StateWatch {
    /// The next event; `None` once the node has ended the stream.
    pub async fn next(&mut self) -> Result<Option<StateEvent>, ClientError> {
        while let Some(event) = self.0.next().await? {
            match event.name.as_str() {
                "change" => return self.0.read(&event).map(StateEvent::Changed).map(Some),
                "missed" => {
                    let StateMissed { missed } = self.0.read(&event)?;
                    return Ok(Some(StateEvent::Missed(missed)));
                }
                // Of a later version.
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_part_of_a_path() {
        let app: AppName = "shop".parse().expect("an app");
        let check = |key: &str, encoded: &str| {
            let path = path_of(&app, key);
            assert_eq!(path, format!("/v1/apps/shop/state/{encoded}"));
        };
        check("cart", "cart");
        check("a/../b", "a%2F..%2Fb");
        check("?#% é", "%3F%23%25%20%C3%A9");
    }

    #[test]
    fn conditions_and_ranges_are_header_fields() {
        let said = |expected: Expected| {
            let mut headers = HeaderMap::new();
            expected.say(&mut headers).expect("it can be sent");
            let field = |name| headers.get(name).map(|value| value.as_bytes().to_vec());
            (field(IF_MATCH), field(IF_NONE_MATCH))
        };
        assert_eq!(said(Expected::Any), (None, None));
        assert_eq!(said(Expected::Absent), (None, Some(b"*".to_vec())));
        assert_eq!(said(Expected::Version(7)), (Some(b"\"7\"".to_vec()), None));
        let ranges = [
            ByteRange::Within(0, 9),
            ByteRange::From(7),
            ByteRange::Last(5),
        ];
        let headers = ranges.map(ByteRange::header);
        assert_eq!(headers, ["bytes=0-9", "bytes=7-", "bytes=-5"]);
    }
}
