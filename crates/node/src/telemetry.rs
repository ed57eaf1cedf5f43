//! The process's log, metrics and traces. Set up once, by whoever owns the process.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use crate::NodeError;

/// How the node's own log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The node's own log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// How it looks.
    pub format: LogFormat,
    /// What is logged, in the syntax of `RUST_LOG`; `info` if empty.
    pub filter: String,
}

/// Sends what is still to be exported when it is dropped.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up the log and, where an OTLP endpoint is set, the export of traces. Once a process.
    /// Must be called in a tokio runtime.
    pub fn install(config: &LogConfig) -> Result<Self, NodeError> {
        let failed = |error: &dyn fmt::Display| NodeError::Telemetry(error.to_string());
        let traces = exporter_is_asked_for().then(provider).transpose()?;
        let exported = Targets::new().with_target(gateway::INVOCATION_TARGET, LevelFilter::INFO);
        let export = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("dunlin"))
                .with_location(false)
                .with_threads(false)
                .with_filter(exported)
        });
        let log = log_layer(config)?;
        let registry = tracing_subscriber::registry().with(log);
        // A layer that is not there would count as one that wants every span.
        let installed = match export {
            Some(export) => registry.with(export).try_init(),
            None => registry.try_init(),
        };
        installed.map_err(|error| failed(&error))?;
        Ok(Self { traces })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take()
            && let Err(error) = traces.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

fn log_layer(config: &LogConfig) -> Result<Box<dyn Layer<Registry> + Send + Sync>, NodeError> {
    let wanted = match config.filter.as_str() {
        "" => "info",
        filter => filter,
    };
    // Invocation spans cost a microsecond each: the log has them only when asked by name.
    let target = gateway::INVOCATION_TARGET;
    let directives = match wanted.contains(target) {
        true => wanted.to_owned(),
        false => format!("{wanted},{target}=off"),
    };
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| NodeError::Telemetry(format!("`{wanted}` is no log filter: {error}")))?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    Ok(match config.format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer.json().with_filter(filter).boxed(),
    })
}

fn exporter_is_asked_for() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|v| v.eq_ignore_ascii_case("true"));
    let none = std::env::var("OTEL_TRACES_EXPORTER").is_ok_and(|value| value == "none");
    let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    endpoint && !disabled && !none
}

/// An exporter that follows the `OTEL_*` variables.
fn provider() -> Result<SdkTracerProvider, NodeError> {
    let client = OnRuntime {
        client: HyperClient::with_default_connector(EXPORT_TIMEOUT, None),
        runtime: Handle::current(),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .build()
        .map_err(|error| NodeError::Telemetry(format!("traces cannot be exported: {error}")))?;
    // `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are read by the builder; ours is only
    // the name that is used without them.
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let resource = match named {
        true => Resource::builder(),
        false => Resource::builder().with_service_name("dunlin"),
    };
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build())
}

/// The batch exporter polls from a thread of its own, where hyper finds no runtime.
#[derive(Debug)]
struct OnRuntime {
    client: HyperClient,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self
            .runtime
            .spawn(async move { client.send_bytes(request).await });
        sent.await.map_err(|error| Box::new(error) as HttpError)?
    }
}

/// Buckets of durations, in seconds.
const SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0,
    30.0,
];

/// The process's metrics; the recorder is installed with the first call.
pub(crate) fn metrics() -> Result<PrometheusHandle, NodeError> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .map_err(|error| error.to_string())?;
        builder
            .install_recorder()
            .map_err(|error| error.to_string())
    });
    executor::metrics::describe();
    metering::metrics::describe();
    state::metrics::describe();
    handle.clone().map_err(NodeError::Telemetry)
}
