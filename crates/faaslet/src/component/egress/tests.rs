//! The way out, against servers on the loopback.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::net::SocketAddr;
use std::pin::Pin;

use http::{Response, Uri};
use http_body_util::{BodyExt, Empty};
use model::EgressGrant;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::dial::Host;
use super::*;

/// Far more than any test takes.
const LONG: Duration = Duration::from_secs(60);
/// Waits that only end by passing.
const SHORT: Duration = Duration::from_millis(20);

/// The way out of a call with these grants.
fn egress(grants: &[String], connections_max: u32) -> Egress {
    egress_of(rules(grants, connections_max))
}

fn rules(grants: &[String], connections_max: u32) -> Option<Rules> {
    let egress: Vec<EgressGrant> = grants.iter().map(|grant| grant.parse().unwrap()).collect();
    let grants = Grants {
        egress,
        ..Grants::default()
    };
    Arc::into_inner(Rules::of(&grants, connections_max)?)
}

fn egress_of(rules: Option<Rules>) -> Egress {
    let deadline = std::time::Instant::now() + LONG;
    let trace = HeaderValue::from_static("of-the-call");
    match rules {
        Some(rules) => Egress::new(&Arc::new(rules), deadline, Some(trace)),
        None => Egress::default(),
    }
}

fn get(uri: &str) -> Request<WasiBody> {
    let body = Empty::<bytes::Bytes>::new()
        .map_err(Error::from)
        .boxed_unsync();
    Request::get(uri).body(body).unwrap()
}

async fn sent(
    egress: &Egress,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let mut egress = egress.clone();
    let sent = egress.send_request(request, Some(options), Box::new(async { Ok(()) }));
    let (response, driver) = Pin::from(sent).await?;
    tokio::spawn(Pin::from(driver));
    Ok(response)
}

/// A listener, and what it is called in a URI.
async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// The head of a request.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_request_comes_and_its_response_goes_back() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = head(&mut stream).await;
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        stream.write_all(reply).await.unwrap();
        head
    });
    let egress = egress(std::slice::from_ref(&address), 1);
    let request = get(&format!("http://{address}/path?query"));
    let response = sent(&egress, request, RequestOptions::default()).await;
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
    let head = server.await.unwrap();
    assert!(head.starts_with("GET /path?query HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("traceparent: of-the-call\r\n"), "{head}");
}

#[tokio::test]
async fn what_is_not_granted_is_denied_before_anything_is_sent() {
    let (listener, address) = listener().await;
    let port = listener.local_addr().unwrap().port();
    let check = async |grants: &[&str], uri: String| {
        let grants: Vec<_> = grants.iter().map(|grant| grant.to_string()).collect();
        let answer = sent(&egress(&grants, 1), get(&uri), RequestOptions::default()).await;
        let denied = matches!(answer, Err(Error::HttpRequestDenied));
        assert!(denied, "{grants:?} {uri}: {:?}", answer.map(|_| ()));
    };
    check(&[], format!("http://{address}/")).await;
    check(&["127.0.0.1:1"], format!("http://{address}/")).await;
    check(&["*"], format!("http://{address}/")).await;
    check(&["*"], format!("http://[::ffff:127.0.0.1]:{port}/")).await;
    check(&["*"], format!("http://127.1:{port}/")).await;
    check(&["*"], format!("http://2130706433:{port}/")).await;
    check(&["*"], format!("http://localhost:{port}/")).await;
    check(&["127.0.0.1:*"], format!("http://localhost:{port}/")).await;
    check(&["example.com"], format!("http://not.example.com:{port}/")).await;
    drop(listener);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_longer_than_asked() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (silent, _) = listener.accept().await.unwrap();
        let (mut begun, _) = listener.accept().await.unwrap();
        head(&mut begun).await;
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe";
        begun.write_all(reply).await.unwrap();
        (silent, begun)
    });
    let egress = egress(std::slice::from_ref(&address), 2);
    let uri = format!("http://{address}/");
    let options = RequestOptions {
        first_byte_timeout: Some(SHORT),
        ..RequestOptions::default()
    };
    let answer = sent(&egress, get(&uri), options).await;
    assert!(matches!(answer, Err(Error::ConnectionReadTimeout)));
    let options = RequestOptions {
        between_bytes_timeout: Some(SHORT),
        ..RequestOptions::default()
    };
    let response = sent(&egress, get(&uri), options).await.unwrap();
    let body = response.into_body().collect().await;
    assert!(matches!(body, Err(Error::ConnectionReadTimeout)));
    server.await.unwrap();
}

#[tokio::test]
async fn no_more_connections_are_open_than_a_call_may_have() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
            stream.write_all(reply).await.unwrap();
            open.push(stream);
        }
        open
    });
    let egress = egress(std::slice::from_ref(&address), 1);
    let uri = format!("http://{address}/");
    let first = sent(&egress, get(&uri), RequestOptions::default()).await;
    let first = first.unwrap();
    let hasty = RequestOptions {
        connect_timeout: Some(SHORT),
        ..RequestOptions::default()
    };
    let second = sent(&egress, get(&uri), hasty).await;
    assert!(matches!(second, Err(Error::ConnectionLimitReached)));
    drop(first);
    sent(&egress, get(&uri), RequestOptions::default())
        .await
        .unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn each_way_to_fail_has_its_error() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut plain, _) = listener.accept().await.unwrap();
        plain
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let (closing, _) = listener.accept().await.unwrap();
        drop(closing);
    });
    let egress = egress(std::slice::from_ref(&address), 2);
    let answer = async |uri: String| {
        let answer = sent(&egress, get(&uri), RequestOptions::default()).await;
        answer.map(|_| ()).unwrap_err()
    };
    let error = answer(format!("https://{address}/")).await;
    assert!(matches!(error, Error::TlsProtocolError), "{error}");
    let error = answer(format!("http://{address}/")).await;
    assert!(matches!(error, Error::ConnectionTerminated), "{error}");
    // The server takes no more.
    server.await.unwrap();
    let error = answer(format!("http://{address}/")).await;
    assert!(matches!(error, Error::ConnectionRefused), "{error}");
}

/// A certificate of `localhost` that it signed itself, and its key; made for these tests, good for
/// a hundred years.
const CERTIFICATE: &[u8] = include_bytes!("tls/localhost.cert.der");
const KEY: &[u8] = include_bytes!("tls/localhost.key.der");

/// Serves TLS as `localhost`; where.
async fn tls_server() -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(CERTIFICATE)],
            PrivatePkcs8KeyDer::from(KEY).into(),
        );
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Clients that do not trust it break off.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 1024];
            assert_ne!(stream.read(&mut head).await.unwrap(), 0);
            let reply = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(reply).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn tls_is_for_the_name_that_was_asked_for() {
    let address = tls_server().await;
    let port = address.rsplit(':').next().unwrap();
    let name = format!("localhost:{port}");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(CERTIFICATE)).unwrap();
    let trusting = rules(&[name.clone(), address.clone()], 1).map(|rules| Rules {
        tls: Tls::trusting(roots),
        ..rules
    });
    let trusting = egress_of(trusting);
    let public = egress(std::slice::from_ref(&name), 1);
    let ask = async |egress: &Egress, host: &str| {
        let request = get(&format!("https://{host}/"));
        sent(egress, request, RequestOptions::default()).await
    };
    let response = ask(&trusting, &name).await.unwrap();
    assert_eq!(response.status(), 204);
    for (egress, host) in [(&public, &name), (&trusting, &address)] {
        let error = ask(egress, host).await.map(|_| ()).unwrap_err();
        let refused = matches!(error, Error::TlsCertificateError);
        assert!(refused, "{host}: {error}");
    }
}

#[test]
fn a_uri_names_its_host_in_one_way() {
    let check = |uri: &'static str, expected: Option<(&str, u16)>| {
        let target = Target::of(&Uri::from_static(uri)).ok();
        let found = target.map(|target| match target.host {
            Host::Name(name) => (name, target.port),
            Host::Address(ip) => (ip.to_string(), target.port),
        });
        let expected = expected.map(|(host, port)| (host.to_owned(), port));
        assert_eq!(found, expected, "{uri}");
    };
    check("http://Example.COM./", Some(("example.com", 80)));
    check("https://example.com/", Some(("example.com", 443)));
    check("http://example.com:8080/", Some(("example.com", 8080)));
    check("http://[::ffff:10.0.0.1]:1/", Some(("10.0.0.1", 1)));
    check("http://[::1]/", Some(("::1", 80)));
    check("http://user@example.com/", None);
    check("http://example.com:0/", None);
    check("http://example.com:65536/", None);
    check("/path", None);
}

#[tokio::test]
async fn a_socket_connects_to_what_is_granted_and_takes_no_connections() {
    use SocketAddrUse::*;
    let grants = ["10.0.0.0/8:53", "localhost:8080"].map(str::to_owned);
    let open = egress(&grants, 1).0.unwrap();
    for (usage, address, expected) in [
        (TcpConnect, "10.0.0.1:53", true),
        (TcpConnect, "[::ffff:10.0.0.1]:53", true),
        (TcpConnect, "10.0.0.1:54", false),
        (TcpConnect, "11.0.0.1:53", false),
        (TcpConnect, "127.0.0.1:8080", true),
        (TcpConnect, "127.0.0.2:8080", false),
        (TcpConnect, "127.0.0.1:8081", false),
        (UdpSend, "10.0.0.1:53", true),
        (UdpSend, "1.1.1.1:53", false),
        (UdpReceive, "10.0.0.1:53", true),
        (UdpReceive, "1.1.1.1:53", false),
        (TcpBind, "0.0.0.0:0", true),
        (UdpBind, "[::]:0", true),
        (TcpBind, "0.0.0.0:80", false),
        (UdpBind, "10.0.0.1:53", false),
        (TcpListen, "10.0.0.1:53", false),
        (TcpAccept, "10.0.0.1:53", false),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        let admitted = open.admits(address, usage).await;
        assert_eq!(admitted, expected, "{usage:?} {address}");
    }
}
