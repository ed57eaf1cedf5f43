//! Where stores and blobs are: `etcd://…` and `s3://…`, read into what opens them.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::StorageError;

/// The longest prefix of keys: it counts towards etcd's limit on a request, at every key.
const PREFIX_BYTES_MAX: usize = 256;
/// What a store's keys begin with unless the address says so.
const PREFIX: &str = "dunlin";

/// `etcd://[user:password@]host[:port][,host[:port]…][/prefix]`, or `etcds://…` with TLS, which
/// takes `?ca=FILE` and `&cert=FILE&key=FILE`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EtcdAddress {
    /// `http://host:port` or `https://host:port`.
    pub members: Vec<String>,
    /// Ends in `/`.
    pub prefix: Vec<u8>,
    pub user: Option<User>,
    pub tls: Option<TlsFiles>,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub password: String,
}

/// Files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Who may vouch for the members, in place of the system's authorities.
    pub ca: Option<PathBuf>,
    /// What we show them, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// `s3://bucket[/prefix][?endpoint=URL][&region=NAME][&style=path|virtual]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Address {
    pub bucket: String,
    /// Without slashes around it; may be empty.
    pub prefix: String,
    pub endpoint: Option<Url>,
    pub region: Option<String>,
    /// The bucket in the host's name, and not in the path.
    pub virtual_host: bool,
}

impl EtcdAddress {
    pub fn parse(address: &str) -> Result<Self, StorageError> {
        let bad = |why: String| bad(address, why);
        let (tls, rest) = match address.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(bad("it must begin with etcd:// or etcds://".into())),
        };
        if rest.contains('#') {
            return Err(bad("it has a fragment (#…)".into()));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user_of(user).map_err(bad)?), hosts),
            None => (None, authority),
        };
        let scheme = if tls { "https" } else { "http" };
        let members = hosts.split(',').map(|host| member(scheme, host));
        let members: Vec<_> = members.collect::<Result<_, _>>().map_err(bad)?;
        if let Some(twice) = (1..members.len()).find(|&n| members[..n].contains(&members[n])) {
            return Err(bad(format!("it names {} twice", members[twice])));
        }
        let files = tls_files(query).map_err(bad)?;
        if !tls && files.is_some() {
            return Err(bad("ca, cert and key go with etcds://".into()));
        }
        let tls = tls.then(|| files.unwrap_or_default());
        let prefix = prefix_of(prefix).map_err(bad)?;
        Ok(Self {
            members,
            prefix,
            user,
            tls,
        })
    }
}

impl S3Address {
    pub fn parse(address: &str) -> Result<Self, StorageError> {
        let bad = |why: String| bad(address, why);
        if !address.starts_with("s3://") {
            return Err(bad("it must begin with s3://".into()));
        }
        let url = Url::parse(address).map_err(|error| bad(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            let env = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
            return Err(bad(format!("credentials belong in {env}")));
        }
        if url.port().is_some() {
            let why = "after s3:// stands the bucket; a server is named by ?endpoint=http://…";
            return Err(bad(why.into()));
        }
        if url.fragment().is_some() {
            return Err(bad("it has a fragment (#…)".into()));
        }
        let bucket = url.host_str().unwrap_or_default().to_owned();
        check_bucket(&bucket).map_err(bad)?;
        let prefix = percent_decode_str(url.path().trim_matches('/')).decode_utf8();
        let prefix = prefix.map_err(|_| bad("its prefix is not UTF-8".into()))?;
        let mut found = Self {
            bucket,
            prefix: prefix.into_owned(),
            endpoint: None,
            region: None,
            virtual_host: true,
        };
        let mut style = None;
        for (name, value) in url.query_pairs() {
            match &*name {
                "endpoint" => found.endpoint = Some(endpoint(&value).map_err(bad)?),
                "region" => found.region = Some(value.into_owned()),
                "style" if value == "path" || value == "virtual" => {
                    style = Some(value == "virtual")
                }
                "style" => return Err(bad("style is path or virtual".into())),
                _ => return Err(bad(format!("it has no parameter `{name}`"))),
            }
        }
        // Servers other than Amazon's seldom have a name for each bucket.
        found.virtual_host = style.unwrap_or(found.endpoint.is_none());
        Ok(found)
    }
}

/// An error that shows the address, but no password of it.
fn bad(address: &str, why: String) -> StorageError {
    let shown = match address.rsplit_once('@') {
        Some((before, after)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://…@{after}"),
            None => format!("…@{after}"),
        },
        None => address.to_owned(),
    };
    StorageError::Address {
        address: shown,
        why,
    }
}

fn user_of(user: &str) -> Result<User, String> {
    let (name, password) = user
        .split_once(':')
        .ok_or("before @ stands user:password")?;
    let decode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map_or(Err("user and password must be UTF-8"), |text| {
            Ok(text.into_owned())
        })
    };
    Ok(User {
        name: decode(name)?,
        password: decode(password)?,
    })
}

/// `http://host:port`; etcd's own port unless told.
fn member(scheme: &str, host: &str) -> Result<String, String> {
    const PORT: u16 = 2379;
    if host.is_empty() {
        return Err("a host is missing".into());
    }
    let url = Url::parse(&format!("etcd://{host}"));
    let url = url.map_err(|error| format!("`{host}` is no host[:port]: {error}"))?;
    let name = url
        .host_str()
        .filter(|name| !name.is_empty() && url.path().is_empty())
        .ok_or_else(|| format!("`{host}` is no host[:port]"))?;
    Ok(format!("{scheme}://{name}:{}", url.port().unwrap_or(PORT)))
}

fn prefix_of(path: &str) -> Result<Vec<u8>, String> {
    let path = percent_decode_str(path.trim_matches('/')).decode_utf8();
    let path = path.map_err(|_| "its prefix is not UTF-8")?;
    let path = if path.is_empty() { PREFIX } else { &*path };
    if path.len() > PREFIX_BYTES_MAX {
        return Err(format!(
            "its prefix is longer than {PREFIX_BYTES_MAX} bytes"
        ));
    }
    Ok(format!("{path}/").into_bytes())
}

/// The files that the query names; none when it names none.
fn tls_files(query: &str) -> Result<Option<TlsFiles>, String> {
    let (mut ca, mut cert, mut key) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let slot = match &*name {
            "ca" => &mut ca,
            "cert" => &mut cert,
            "key" => &mut key,
            _ => return Err(format!("it has no parameter `{name}`")),
        };
        *slot = Some(PathBuf::from(value.into_owned()));
    }
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err("cert and key go together".into()),
    };
    let files = TlsFiles { ca, identity };
    Ok((files != TlsFiles::default()).then_some(files))
}

fn check_bucket(bucket: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = bucket.bytes().next().zip(bucket.bytes().last());
    let good = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| is_plain(b) || b"-.".contains(&b))
        && ends.is_some_and(|(first, last)| is_plain(first) && is_plain(last));
    match good {
        true => Ok(()),
        false => Err(format!(
            "`{bucket}` is no bucket: 3 to 63 of a-z, 0-9, - and ., letters or digits at the ends"
        )),
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("the endpoint `{text}`: {error}"))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(format!("the endpoint `{text}` must be http:// or https://"));
    }
    if !url.username().is_empty() || url.query().is_some() || url.fragment().is_some() {
        return Err("the endpoint is http[s]://host[:port] and no more".into());
    }
    Ok(url)
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EtcdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdAddress")
            .field("members", &self.members)
            .field("prefix", &self.prefix.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
