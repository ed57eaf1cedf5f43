//! Addresses: what they say, and what is wrong with the bad ones.

use super::*;

fn etcd(address: &str) -> EtcdAddress {
    EtcdAddress::parse(address).expect(address)
}

fn s3(address: &str) -> S3Address {
    S3Address::parse(address).expect(address)
}

fn why<T: fmt::Debug>(parsed: Result<T, StorageError>) -> String {
    parsed.expect_err("it is a bad address").to_string()
}

#[test]
fn an_etcd_address_names_members_prefix_and_user() {
    let check = |address: &str, members: &[&str], prefix: &str| {
        let found = etcd(address);
        assert_eq!(found.members, members, "{address}");
        assert_eq!(found.prefix, prefix.as_bytes(), "{address}");
    };
    check("etcd://a", &["http://a:2379"], "dunlin/");
    check(
        "etcd://a:1,b,[::1]:3/",
        &["http://a:1", "http://b:2379", "http://[::1]:3"],
        "dunlin/",
    );
    check("etcd://10.0.0.1:1/x/y/", &["http://10.0.0.1:1"], "x/y/");
    check(
        "etcds://a,b:1/%c3%a4?ca=/ca",
        &["https://a:2379", "https://b:1"],
        "ä/",
    );
    let user = etcd("etcd://us%40er:p%3a:w@a,b").user.expect("a user");
    assert_eq!((&*user.name, &*user.password), ("us@er", "p::w"));
    assert_eq!(etcd("etcd://a").tls, None);
    assert_eq!(etcd("etcds://a").tls, Some(TlsFiles::default()));
    let identity = Some(("/c".into(), "/k".into()));
    let ca = Some("/a b".into());
    let files = etcd("etcds://a?ca=/a%20b&cert=/c&key=/k").tls;
    assert_eq!(files, Some(TlsFiles { ca, identity }));
}

#[test]
fn a_bad_etcd_address_says_what_is_wrong() {
    let check = |address: &str, part: &str| {
        let text = why(EtcdAddress::parse(address));
        assert!(text.contains(part), "{address}: {text}");
    };
    check("http://a", "begin with etcd:// or etcds://");
    check("a:2379", "begin with etcd:// or etcds://");
    check("etcd://", "a host is missing");
    check("etcd://a,,b", "a host is missing");
    check("etcd://a:x", "`a:x` is no host[:port]");
    check("etcd://a:99999", "`a:99999` is no host[:port]");
    check("etcd://a,b,a:2379", "it names http://a:2379 twice");
    check("etcd://user@a", "before @ stands user:password");
    check("etcd://a?ca=/x", "ca, cert and key go with etcds://");
    check("etcds://a?cert=/x", "cert and key go together");
    check("etcds://a?cacert=/x", "it has no parameter `cacert`");
    check("etcd://a/x#y", "fragment");
    check(
        &format!("etcd://a/{}", "x".repeat(257)),
        "longer than 256 bytes",
    );
}

#[test]
fn no_password_is_shown() {
    let address = "etcd://root:secret@a/p";
    let debug = format!("{:?} {:?}", etcd(address), etcd(address).user);
    let error = why(EtcdAddress::parse("etcd://root:secret@a:x/p"));
    assert!(error.contains("etcd://…@a:x/p"), "{error}");
    let error = error + &why(S3Address::parse("s3://key:secret@bucket"));
    assert!(!(debug + &error).contains("secret"));
}

#[test]
fn an_s3_address_names_bucket_prefix_and_server() {
    let plain = s3("s3://my-bucket.1");
    assert_eq!((&*plain.bucket, &*plain.prefix), ("my-bucket.1", ""));
    assert!(plain.virtual_host && plain.endpoint.is_none() && plain.region.is_none());
    let foreign = s3("s3://abc/d/e%20f/?endpoint=http://127.0.0.1:9000&region=eu-west-1");
    assert_eq!((&*foreign.bucket, &*foreign.prefix), ("abc", "d/e f"));
    assert_eq!(foreign.region.as_deref(), Some("eu-west-1"));
    let endpoint = foreign.endpoint.expect("an endpoint");
    assert_eq!(endpoint.as_str(), "http://127.0.0.1:9000/");
    assert!(!foreign.virtual_host, "foreign servers take paths");
    assert!(s3("s3://abc?endpoint=https://s&style=virtual").virtual_host);
    assert!(!s3("s3://abc?style=path").virtual_host);
}

#[test]
fn a_bad_s3_address_says_what_is_wrong() {
    let check = |address: &str, part: &str| {
        let text = why(S3Address::parse(address));
        assert!(text.contains(part), "{address}: {text}");
    };
    check("https://bucket", "begin with s3://");
    check("s3://", "is no bucket");
    check("s3://Ab", "is no bucket");
    check("s3://-abc", "is no bucket");
    check("s3://host:9000/bucket", "a server is named by ?endpoint=");
    check("s3://key:secret@bucket", "AWS_ACCESS_KEY_ID");
    check(
        "s3://bucket?endpoint=ftp://a",
        "must be http:// or https://",
    );
    check("s3://bucket?endpoint=http://a/?b", "and no more");
    check("s3://bucket?endpoint=a", "the endpoint `a`");
    check("s3://bucket?bucket=b", "it has no parameter `bucket`");
    check("s3://bucket?style=x", "style is path or virtual");
}
