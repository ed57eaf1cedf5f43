//! Opening a bucket of S3, or of a server that speaks like it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Location;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::StorageError;
use crate::address::S3Address;

/// How a bucket is used.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Who asks. None: whom the environment names (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_SESSION_TOKEN`, a role's token file, or the machine's own role).
    pub keys: Option<S3Keys>,
    /// What connecting may take.
    pub connect_timeout: Duration,
    /// What one request may take, with the transfer of its body.
    pub request_timeout: Duration,
    /// A request that failed is made again for this long: a server may be starting anew.
    pub retry_timeout: Duration,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            keys: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            retry_timeout: Duration::from_secs(10),
        }
    }
}

/// An access key.
#[derive(Clone)]
pub struct S3Keys {
    /// Its name.
    pub access_key_id: String,
    /// What is never sent.
    pub secret_access_key: String,
}

/// Tries of a request; the time that they may take is the bound that counts.
const RETRIES_MAX: usize = 20;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The objects under the address, once the bucket has answered.
pub(crate) async fn open(
    address: &str,
    config: &S3Config,
) -> Result<Arc<dyn ObjectStore>, StorageError> {
    const DOING: &str = "opening the blobs";
    let parsed = S3Address::parse(address)?;
    let bucket = build(&parsed, config).map_err(|error| StorageError::Address {
        address: address.to_owned(),
        why: error.to_string(),
    })?;
    let prefix = Location::parse(&parsed.prefix).map_err(|error| StorageError::Address {
        address: address.to_owned(),
        why: error.to_string(),
    })?;
    let objects = PrefixStore::new(bucket, prefix);
    // Later, an object that is missing and a bucket that is missing look alike.
    match objects.list(None).next().await {
        None | Some(Ok(_)) => Ok(Arc::new(objects)),
        Some(Err(error)) => Err(StorageError::of_objects(DOING, error)),
    }
}

fn build(address: &S3Address, config: &S3Config) -> Result<AmazonS3, object_store::Error> {
    // The HTTP client takes the process's choice of cryptography and brings none. An error means
    // that there is a choice already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let is_plain = (address.endpoint.as_ref()).is_some_and(|url| url.scheme() == "http");
    let client = ClientOptions::new()
        .with_connect_timeout(config.connect_timeout)
        .with_timeout(config.request_timeout)
        .with_allow_http(is_plain);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: RETRY_PAUSE_MIN,
            max_backoff: RETRY_PAUSE_MAX,
            base: 2.,
        },
        max_retries: RETRIES_MAX,
        retry_timeout: config.retry_timeout,
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&address.bucket)
        .with_virtual_hosted_style_request(address.virtual_host)
        // One blob is deleted at a time, and not every server knows how to delete many.
        .with_disable_bulk_delete(true)
        .with_retry(retry)
        .with_client_options(client);
    if let Some(endpoint) = &address.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some(region) = &address.region {
        builder = builder.with_region(region);
    }
    if let Some(keys) = &config.keys {
        builder = builder
            .with_access_key_id(&keys.access_key_id)
            .with_secret_access_key(&keys.secret_access_key);
    }
    builder.build()
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Keys")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}
