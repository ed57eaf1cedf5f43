//! Heads, refusals and outcomes of calls in bytes: protocol buffers, so that neighbours one release
//! apart add fields that the other one skips.

use bytes::{Bytes, BytesMut};
use model::{Digest, FunctionPath, InvocationId, Outcome, StartKind, Status, TraceParent, Usage};
use prost::Message;
use scheduler::Brief;

use super::{
    DONE, HEAD, Head, Headers, Input, InputRef, PieceError, Refusal, ReplyHead, Stem, Why, json,
    put_length,
};

#[derive(Clone, PartialEq, Message)]
struct HeadMessage {
    #[prost(message, optional, tag = "1")]
    id: Option<Wide>,
    #[prost(string, tag = "2")]
    app: String,
    #[prost(string, tag = "3")]
    function: String,
    #[prost(bytes = "bytes", tag = "4")]
    version: Bytes,
    #[prost(message, optional, tag = "5")]
    trace: Option<Wide>,
    #[prost(fixed64, tag = "6")]
    span: u64,
    #[prost(uint32, tag = "7")]
    trace_flags: u32,
    #[prost(bool, tag = "8")]
    may_wait: bool,
    #[prost(bool, tag = "9")]
    streams: bool,
    #[prost(message, optional, tag = "10")]
    stem: Option<StemMessage>,
    // One of these two.
    #[prost(message, optional, tag = "11")]
    plain: Option<PlainMessage>,
    #[prost(message, optional, tag = "12")]
    http: Option<HttpMessage>,
}

/// A number of 128 bits.
#[derive(Clone, Copy, PartialEq, Message)]
struct Wide {
    #[prost(fixed64, tag = "1")]
    high: u64,
    #[prost(fixed64, tag = "2")]
    low: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StemMessage {
    #[prost(message, optional, tag = "1")]
    root: Option<Wide>,
    #[prost(message, optional, tag = "2")]
    parent: Option<Wide>,
    #[prost(uint32, tag = "3")]
    depth: u32,
    #[prost(uint64, tag = "4")]
    left_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PlainMessage {
    #[prost(string, repeated, tag = "1")]
    args: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    env: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpMessage {
    #[prost(string, tag = "1")]
    method: String,
    #[prost(string, tag = "2")]
    uri: String,
    #[prost(message, repeated, tag = "3")]
    headers: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReplyMessage {
    #[prost(uint32, tag = "1")]
    start: u32,
    #[prost(message, optional, tag = "2")]
    brief: Option<BriefMessage>,
    #[prost(message, optional, tag = "3")]
    response: Option<ResponseMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RefusalMessage {
    #[prost(uint32, tag = "1")]
    why: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, optional, tag = "3")]
    brief: Option<BriefMessage>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct BriefMessage {
    #[prost(uint32, tag = "1")]
    used: u32,
    #[prost(uint32, tag = "2")]
    waiting: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseMessage {
    #[prost(uint32, tag = "1")]
    status: u32,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct OutcomeMessage {
    /// JSON of the status; nothing if the guest replied.
    #[prost(bytes = "bytes", tag = "1")]
    status: Bytes,
    #[prost(uint32, tag = "2")]
    start: u32,
    #[prost(uint64, tag = "3")]
    cpu_us: u64,
    #[prost(uint64, tag = "4")]
    wall_ms: u64,
    #[prost(uint64, tag = "5")]
    memory_peak_bytes: u64,
    #[prost(uint64, tag = "6")]
    memory_kib_ms: u64,
    #[prost(uint64, tag = "7")]
    input_bytes: u64,
    #[prost(uint64, tag = "8")]
    output_bytes: u64,
    #[prost(uint64, tag = "9")]
    log_bytes: u64,
}

impl From<u128> for Wide {
    fn from(number: u128) -> Self {
        Self {
            high: (number >> 64) as u64,
            low: number as u64,
        }
    }
}

impl From<Wide> for u128 {
    fn from(Wide { high, low }: Wide) -> Self {
        u128::from(high) << 64 | u128::from(low)
    }
}

fn id_of(number: Option<Wide>) -> Result<InvocationId, PieceError> {
    let number = u128::from(number.ok_or(PieceError::Lacks("id"))?);
    Ok(InvocationId::from_parts((number >> 80) as u64, number))
}

fn pairs(pairs: &[(String, String)]) -> Vec<Pair> {
    let pair = |(name, value): &(String, String)| Pair {
        name: name.clone(),
        value: value.clone(),
    };
    pairs.iter().map(pair).collect()
}

fn unpaired(pairs: Vec<Pair>) -> Headers {
    let pairs = pairs.into_iter();
    pairs.map(|Pair { name, value }| (name, value)).collect()
}

fn start_of(number: u32) -> Result<StartKind, PieceError> {
    Ok(match number {
        0 => StartKind::Cold,
        1 => StartKind::Restored,
        2 => StartKind::Reused,
        _ => return Err(PieceError::Lacks("start")),
    })
}

fn number_of(start: StartKind) -> u32 {
    match start {
        StartKind::Cold => 0,
        StartKind::Restored => 1,
        StartKind::Reused => 2,
    }
}

fn put_message(kind: u8, message: &impl Message, out: &mut BytesMut) {
    put_length(kind, message.encoded_len(), out);
    // A buffer that grows has room for it.
    let _ = message.encode(out);
}

impl Head<InputRef<'_>> {
    pub fn put(&self, out: &mut BytesMut) {
        let (mut plain, mut http) = (None, None);
        match self.input {
            InputRef::Plain { args, env } => {
                plain = Some(PlainMessage {
                    args: args.to_vec(),
                    env: pairs(env),
                });
            }
            InputRef::Http {
                method,
                uri,
                headers,
            } => {
                http = Some(HttpMessage {
                    method: method.to_owned(),
                    uri: uri.to_owned(),
                    headers: pairs(headers),
                });
            }
        }
        let message = HeadMessage {
            id: Some(self.id.as_u128().into()),
            app: self.path.app.to_string(),
            function: self.path.function.to_string(),
            version: Bytes::copy_from_slice(self.version.as_bytes()),
            trace: Some(self.trace.trace.into()),
            span: self.trace.span,
            trace_flags: self.trace.flags.into(),
            may_wait: self.may_wait,
            streams: self.streams,
            stem: self.stem.map(|stem| StemMessage {
                root: Some(stem.root.as_u128().into()),
                parent: Some(stem.parent.as_u128().into()),
                depth: stem.depth,
                left_ms: stem.left_ms,
            }),
            plain,
            http,
        };
        put_message(HEAD, &message, out);
    }
}

impl Head {
    pub fn read(bytes: Bytes) -> Result<Self, PieceError> {
        let message = HeadMessage::decode(bytes)?;
        let input = match (message.plain, message.http) {
            (Some(plain), None) => Input::Plain {
                args: plain.args,
                env: unpaired(plain.env),
            },
            (None, Some(http)) => Input::Http {
                method: http.method,
                uri: http.uri,
                headers: unpaired(http.headers),
            },
            _ => return Err(PieceError::Lacks("input")),
        };
        let stem = |stem: StemMessage| {
            Ok::<_, PieceError>(Stem {
                root: id_of(stem.root)?,
                parent: id_of(stem.parent)?,
                depth: stem.depth,
                left_ms: stem.left_ms,
            })
        };
        let trace = TraceParent {
            trace: message.trace.map_or(0, u128::from),
            span: message.span,
            flags: u8::try_from(message.trace_flags).map_err(|_| PieceError::Lacks("trace"))?,
        };
        if trace.trace == 0 || trace.span == 0 {
            return Err(PieceError::Lacks("trace"));
        }
        let version = message.version.as_ref().try_into().ok();
        let name = |_| PieceError::Lacks("name");
        Ok(Self {
            id: id_of(message.id)?,
            path: FunctionPath {
                app: message.app.parse().map_err(name)?,
                function: message.function.parse().map_err(name)?,
            },
            version: Digest::from_bytes(version.ok_or(PieceError::Lacks("version"))?),
            trace,
            may_wait: message.may_wait,
            streams: message.streams,
            stem: message.stem.map(stem).transpose()?,
            input,
        })
    }
}

impl ReplyHead {
    pub fn put(&self, out: &mut BytesMut) {
        let response = self.response.as_ref();
        let message = ReplyMessage {
            start: number_of(self.start),
            brief: self.brief.map(BriefMessage::from),
            response: response.map(|(status, headers)| ResponseMessage {
                status: u32::from(*status),
                headers: pairs(headers),
            }),
        };
        put_message(HEAD, &message, out);
    }

    pub fn read(bytes: Bytes) -> Result<Self, PieceError> {
        let message = ReplyMessage::decode(bytes)?;
        let response = |ResponseMessage { status, headers }| {
            let status = u16::try_from(status).map_err(|_| PieceError::Lacks("status"))?;
            Ok::<_, PieceError>((status, unpaired(headers)))
        };
        Ok(Self {
            start: start_of(message.start)?,
            brief: message.brief.map(Brief::from),
            response: message.response.map(response).transpose()?,
        })
    }
}

impl From<Brief> for BriefMessage {
    fn from(Brief { used, waiting }: Brief) -> Self {
        Self { used, waiting }
    }
}

impl From<BriefMessage> for Brief {
    fn from(BriefMessage { used, waiting }: BriefMessage) -> Self {
        Self { used, waiting }
    }
}

impl Refusal {
    pub fn to_bytes(&self) -> Bytes {
        let message = RefusalMessage {
            why: match self.why {
                Why::Other => 0,
                Why::Full => 1,
                Why::Closed => 2,
                Why::Unknown => 3,
                Why::Failed => 4,
                Why::Malformed => 5,
            },
            message: self.message.clone(),
            brief: self.brief.map(BriefMessage::from),
        };
        message.encode_to_vec().into()
    }

    pub fn read(bytes: Bytes) -> Self {
        let Ok(message) = RefusalMessage::decode(bytes) else {
            return Self::new(Why::Other, "a refusal that this release cannot read");
        };
        Self {
            why: match message.why {
                1 => Why::Full,
                2 => Why::Closed,
                3 => Why::Unknown,
                4 => Why::Failed,
                5 => Why::Malformed,
                _ => Why::Other,
            },
            message: message.message,
            brief: message.brief.map(Brief::from),
        }
    }
}

pub fn put_done(outcome: &Outcome, out: &mut BytesMut) {
    let usage = outcome.usage;
    let message = OutcomeMessage {
        status: match &outcome.status {
            Status::Ok => Bytes::new(),
            other => json(other).into(),
        },
        start: number_of(outcome.start),
        cpu_us: usage.cpu_us,
        wall_ms: usage.wall_ms,
        memory_peak_bytes: usage.memory_peak_bytes,
        memory_kib_ms: usage.memory_kib_ms,
        input_bytes: usage.input_bytes,
        output_bytes: usage.output_bytes,
        log_bytes: usage.log_bytes,
    };
    put_message(DONE, &message, out);
}

pub fn read_outcome(bytes: Bytes) -> Result<Outcome, PieceError> {
    let message = OutcomeMessage::decode(bytes)?;
    Ok(Outcome {
        status: match message.status.is_empty() {
            true => Status::Ok,
            false => serde_json::from_slice(&message.status)?,
        },
        start: start_of(message.start)?,
        usage: Usage {
            cpu_us: message.cpu_us,
            wall_ms: message.wall_ms,
            memory_peak_bytes: message.memory_peak_bytes,
            memory_kib_ms: message.memory_kib_ms,
            input_bytes: message.input_bytes,
            output_bytes: message.output_bytes,
            log_bytes: message.log_bytes,
        },
    })
}
