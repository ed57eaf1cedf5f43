//! State over the admin API: values by key, ranges, versions as entity tags, watching.

mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use support::{Answer, World, world, world_with};

/// More than is read of a value at a time.
const LARGE_BYTES: usize = (600 << 10) + 7;

fn at(world: &World, rest: &str) -> String {
    world.admin(&format!("/v1/apps/shop/state{rest}"))
}

async fn ask(
    world: &World,
    method: &str,
    rest: &str,
    fields: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let request = Request::builder().method(method).uri(at(world, rest));
    let request = fields.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    let request = request.body(Full::new(body.into())).expect("a request");
    world.send(request).await
}

async fn get(world: &World, rest: &str, fields: &[(&str, &str)]) -> Answer {
    ask(world, "GET", rest, fields, "").await
}

async fn put(world: &World, rest: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    ask(world, "PUT", rest, fields, body.to_owned()).await
}

/// Bytes that differ from place to place.
fn large() -> Bytes {
    (0..LARGE_BYTES).map(|at| (at / 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_value_is_made_replaced_read_and_removed() {
    let world = world(|_| ()).await;
    let made = put(&world, "/cart", &[], "one").await;
    assert_eq!(made.status, 201, "{}", made.text());
    let told = made.json();
    assert_eq!((&told["key"], &told["size"]), (&"cart".into(), &3.into()));
    assert_eq!(told["durability"], "ephemeral");
    assert_eq!(told.get("expires_unix_ms"), None);
    assert_eq!(made.header("etag"), format!("\"{}\"", told["version"]));

    let replaced = put(&world, "/cart", &[], "two!").await;
    assert_eq!(replaced.status, 200);
    assert!(replaced.json()["version"].as_u64() > told["version"].as_u64());

    let read = get(&world, "/cart", &[]).await;
    assert_eq!((read.status.as_u16(), read.text()), (200, "two!"));
    assert_eq!(read.header("etag"), replaced.header("etag"));
    assert_eq!(read.header("content-type"), "application/octet-stream");
    assert_eq!(read.header("accept-ranges"), "bytes");
    assert_eq!(read.header("dunlin-durability"), "ephemeral");
    let head = ask(&world, "HEAD", "/cart", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), "4");
    assert_eq!(head.header("etag"), read.header("etag"));

    assert_eq!(ask(&world, "DELETE", "/cart", &[], "").await.status, 204);
    for method in ["GET", "DELETE"] {
        let gone = ask(&world, method, "/cart", &[], "").await;
        assert_eq!(
            (gone.status.as_u16(), gone.code().as_str()),
            (404, "state-not-found")
        );
    }
    assert_eq!(ask(&world, "HEAD", "/cart", &[], "").await.status, 404);
    let again = put(&world, "/cart", &[], "three").await;
    assert_eq!(again.status, 201);
    assert!(again.json()["version"].as_u64() > replaced.json()["version"].as_u64());
}

#[tokio::test]
async fn any_text_is_a_key_and_control_characters_are_not() {
    let world = world(|_| ()).await;
    let keys = [
        ("/a/b/c", "a/b/c"),
        ("/a%2Fd", "a/d"),
        ("//x/", "/x/"),
        ("/..%2F..", "../.."),
        ("/gr%C3%BC%C3%9Fe%20%F0%9F%A6%86%25%3F", "grüße 🦆%?"),
    ];
    for (path, key) in keys {
        let made = put(&world, path, &[], key).await;
        assert_eq!(
            (made.status.as_u16(), &made.json()["key"]),
            (201, &key.into()),
            "{path}"
        );
        assert_eq!(get(&world, path, &[]).await.text(), key);
    }
    for path in ["/a%00b", &format!("/{}", "x".repeat(513))] {
        assert_eq!(
            put(&world, path, &[], "").await.code(),
            "invalid-name",
            "{path}"
        );
        assert_eq!(
            get(&world, path, &[]).await.code(),
            "invalid-name",
            "{path}"
        );
    }
    assert_eq!(put(&world, "/%FF", &[], "").await.code(), "bad-request");
    let app = world.get(world.admin("/v1/apps/No/state/x")).await;
    assert_eq!(app.code(), "invalid-name");
}

#[tokio::test]
async fn a_range_is_a_part_of_one_version() {
    let world = world(|_| ()).await;
    let (all, size) = (large(), LARGE_BYTES);
    let made = ask(&world, "PUT", "/big", &[], all.clone()).await;
    let version = made.header("etag").to_owned();
    assert_eq!(get(&world, "/big", &[]).await.body, all);
    let check = async |range: &str, first: usize, last: usize| {
        let part = get(&world, "/big", &[("range", range)]).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(
            part.header("content-range"),
            format!("bytes {first}-{last}/{size}")
        );
        assert_eq!(
            part.header("content-length"),
            (last - first + 1).to_string()
        );
        assert_eq!(part.body, all[first..=last], "{range}");
    };
    check("bytes=0-0", 0, 0).await;
    check("bytes=1000-599999", 1000, 599_999).await;
    check("bytes=600000-", 600_000, size - 1).await;
    check("bytes=-5", size - 5, size - 1).await;
    check("bytes=5-99999999", 5, size - 1).await;

    put(&world, "/empty", &[], "").await;
    let empty = get(&world, "/empty", &[]).await;
    assert_eq!(
        (empty.status.as_u16(), empty.header("content-length")),
        (200, "0")
    );
    let nothing = get(&world, "/empty", &[("range", "bytes=0-")]).await;
    assert_eq!(nothing.code(), "range-not-satisfiable");
    let nothing = get(&world, "/big", &[("range", &format!("bytes={size}-"))]).await;
    assert_eq!(nothing.code(), "range-not-satisfiable");
    assert_eq!(nothing.header("content-range"), format!("bytes */{size}"));
    for ignored in ["bytes=0-1,5-6", "bytes=2-1", "lines=0-1"] {
        let whole = get(&world, "/big", &[("range", ignored)]).await;
        assert_eq!(
            (whole.status.as_u16(), whole.body.len()),
            (200, size),
            "{ignored}"
        );
    }
    for (tag, status) in [(version.as_str(), 206), ("\"1\"", 200)] {
        let fields = [("range", "bytes=0-1"), ("if-range", tag)];
        assert_eq!(get(&world, "/big", &fields).await.status, status, "{tag}");
    }
}

#[tokio::test]
async fn conditions_make_reads_cheap_and_writes_safe() {
    let world = world(|_| ()).await;
    let absent = [("if-none-match", "*")];
    let made = put(&world, "/k", &absent, "a").await;
    assert_eq!(made.status, 201);
    let first = made.header("etag").to_owned();
    let taken = put(&world, "/k", &absent, "b").await;
    assert_eq!(
        (taken.status.as_u16(), taken.code().as_str()),
        (412, "precondition-failed")
    );
    assert!(
        taken.text().contains(first.trim_matches('"')),
        "{}",
        taken.text()
    );

    let same = get(&world, "/k", &[("if-none-match", &first)]).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), first);
    let head = ask(&world, "HEAD", "/k", &[("if-none-match", "*")], "").await;
    assert_eq!(head.status, 304);

    let second = put(&world, "/k", &[("if-match", &first)], "b").await;
    assert_eq!(second.status, 200);
    let second = second.header("etag").to_owned();
    let stale = [("if-match", first.as_str())];
    for method in ["PUT", "DELETE", "GET"] {
        let refused = ask(&world, method, "/k", &stale, "c").await;
        assert_eq!(refused.code(), "precondition-failed", "{method}");
    }
    assert_eq!(
        get(&world, "/k", &[("if-none-match", &first)]).await.text(),
        "b"
    );
    assert_eq!(
        put(&world, "/k", &[("if-match", "b")], "c").await.code(),
        "bad-request"
    );
    assert_eq!(
        put(&world, "/k", &[("if-match", "*")], "c").await.status,
        200
    );
    let gone = ask(&world, "DELETE", "/k", &[("if-match", &second)], "").await;
    assert_eq!(gone.code(), "precondition-failed");
    assert_eq!(
        ask(&world, "DELETE", "/k", &[("if-match", "*")], "")
            .await
            .status,
        204
    );
    let nothing = put(&world, "/k", &[("if-match", "*")], "c").await;
    assert_eq!(nothing.code(), "precondition-failed");
}

#[tokio::test]
async fn of_writers_with_one_version_one_succeeds() {
    let world = world(|_| ()).await;
    let made = put(&world, "/k", &[], "0").await;
    let version = made.header("etag").to_owned();
    let fields = [("if-match", version.as_str())];
    let writers = ["1", "2", "3", "4"].map(|text| put(&world, "/k", &fields, text));
    let answers = futures::future::join_all(writers).await;
    let succeeded: Vec<_> = answers.iter().filter(|one| one.status == 200).collect();
    assert_eq!(succeeded.len(), 1);
    let others = answers.iter().filter(|one| one.status == 412).count();
    assert_eq!(others, 3);
    let now = get(&world, "/k", &[]).await;
    assert_eq!(now.header("etag"), succeeded[0].header("etag"));
}

#[tokio::test]
async fn durability_and_time_to_live_are_chosen_when_a_value_is_made() {
    let world = world(|_| ()).await;
    let made = put(&world, "/d?durability=durable&ttl=60s", &[], "x").await;
    assert_eq!(made.json()["durability"], "durable");
    let ends = made.json()["expires_unix_ms"].as_u64().expect("it ends");
    let read = get(&world, "/d", &[]).await;
    assert_eq!(read.header("dunlin-durability"), "durable");
    assert_eq!(read.header("dunlin-expires-unix-ms"), ends.to_string());

    let kept = put(&world, "/d?durability=ephemeral", &[], "y")
        .await
        .json();
    assert_eq!(kept["durability"], "durable");
    assert_eq!(kept["expires_unix_ms"], ends);
    let forever = put(&world, "/d?ttl=0", &[], "z").await.json();
    assert_eq!(forever.get("expires_unix_ms"), None);

    for query in ["ttl=1y", "ttl=99999999999999999s", "durability=eternal"] {
        let refused = put(&world, &format!("/e?{query}"), &[], "x").await;
        assert_eq!(refused.code(), "bad-request", "{query}");
    }
    let part = put(&world, "/e", &[("content-range", "bytes 0-0/2")], "x").await;
    assert_eq!(part.code(), "bad-request");
    assert_eq!(get(&world, "/e", &[]).await.code(), "state-not-found");
}

#[tokio::test]
async fn keys_are_listed_in_pages() {
    let world = world(|config| config.page_max = 3).await;
    for key in ["a/1", "a/2", "a/3", "a/4", "b"] {
        let durability = if key == "a/2" { "durable" } else { "ephemeral" };
        let rest = format!("/{key}?durability={durability}");
        assert_eq!(put(&world, &rest, &[], key).await.status, 201);
    }
    let page = async |query: &str| {
        let found = get(&world, query, &[]).await.json();
        let keys: Vec<String> = found["values"]
            .as_array()
            .expect("values")
            .iter()
            .map(|value| value["key"].as_str().expect("a key").to_owned())
            .collect();
        (keys, found["next"].as_str().map(str::to_owned))
    };
    let next = Some("a/3".to_owned());
    assert_eq!(
        page("?prefix=a/&limit=100").await,
        (vec!["a/1".into(), "a/2".into(), "a/3".into()], next)
    );
    assert_eq!(
        page("?prefix=a/&after=a/3").await,
        (vec!["a/4".into()], None)
    );
    assert_eq!(page("?after=a/2").await.0, ["a/3", "a/4", "b"]);
    assert_eq!(
        page("?prefix=a/&limit=2&after=a/2").await,
        (vec!["a/3".into(), "a/4".into()], None)
    );
    assert_eq!(page("?prefix=nothing").await, (vec![], None));
    let listed = get(&world, "?prefix=a/2", &[]).await.json();
    let value = &listed["values"][0];
    assert_eq!(
        (&value["size"], &value["durability"]),
        (&3.into(), &"durable".into())
    );
    assert_eq!(get(&world, "?limit=many", &[]).await.code(), "bad-request");
    let other = world.get(world.admin("/v1/apps/other/state")).await.json();
    assert_eq!(other["values"], Value::Array(vec![]));
}

#[tokio::test]
async fn bounds_are_told_as_such() {
    let bounds = state::Config {
        value_bytes_max: 1 << 20,
        app_bytes_max: 1 << 20,
        app_keys_max: 3,
        watchers_max: 1,
        ..state::Config::default()
    };
    let few = |config: &mut gateway::Config| config.state_upload_bytes_max = 2 << 20;
    let world = world_with(few, bounds).await;
    let large = ask(&world, "PUT", "/k", &[], vec![1; (1 << 20) + 1]).await;
    assert_eq!(
        (large.status.as_u16(), large.code().as_str()),
        (413, "body-too-large")
    );
    assert_eq!(
        ask(&world, "PUT", "/k", &[], vec![1; 1 << 20]).await.status,
        201
    );
    let full = ask(&world, "PUT", "/l", &[], vec![1; 1 << 19]).await;
    assert_eq!(
        (full.status.as_u16(), full.code().as_str()),
        (507, "state-full")
    );

    let first = Request::get(at(&world, "?watch=true")).body(Full::default());
    let _first = world.begin(first.expect("a request")).await;
    let busy = get(&world, "?watch=true", &[]).await;
    assert_eq!(
        (busy.status.as_u16(), busy.code().as_str()),
        (503, "state-busy")
    );
    assert_eq!(busy.header("retry-after"), "1");
}

#[tokio::test]
async fn values_that_find_no_room_while_they_are_sent_are_refused() {
    let few = |config: &mut gateway::Config| config.state_upload_bytes_max = 128 << 10;
    let world = world(few).await;
    assert_eq!(
        ask(&world, "PUT", "/k", &[], vec![1; 128 << 10])
            .await
            .status,
        201
    );
    let busy = ask(&world, "PUT", "/k", &[], vec![1; 129 << 10]).await;
    assert_eq!(busy.code(), "state-busy");
    assert_eq!(
        ask(&world, "PUT", "/k", &[], vec![1; 128 << 10])
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_value_that_changes_while_it_is_sent_breaks_off() {
    let world = world(|_| ()).await;
    // More than the sockets between hold.
    let large = vec![1; 64 << 20];
    assert_eq!(
        ask(&world, "PUT", "/big", &[], large.clone()).await.status,
        201
    );
    let request = Request::get(at(&world, "/big")).body(Full::default());
    let response = world.begin(request.expect("a request")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(put(&world, "/big", &[], "small").await.status, 200);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(get(&world, "/big", &[]).await.text(), "small");
}

#[tokio::test]
async fn changes_are_told_to_who_watches() {
    let world = world(|_| ()).await;
    let request = Request::get(at(&world, "?watch=true&prefix=a/")).body(Full::default());
    let response = world.begin(request.expect("a request")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    put(&world, "/b", &[], "not watched").await;
    let made = put(&world, "/a/1", &[], "x").await.json();
    ask(&world, "DELETE", "/a/1", &[], "").await;
    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        let frame = body.frame().await.expect("more").expect("a frame");
        let data = frame.into_data().expect("data");
        text.push_str(std::str::from_utf8(&data).expect("text"));
    }
    let events: Vec<_> = text.split_terminator("\n\n").collect();
    let data = |event: &str| -> Value {
        let data = event.strip_prefix("event: change\ndata: ").expect(event);
        serde_json::from_str(data).expect("JSON")
    };
    let first = data(events[0]);
    assert_eq!(
        (&first["key"], &first["version"]),
        (&"a/1".into(), &made["version"])
    );
    assert_eq!(first["deleted"], false);
    assert_eq!(data(events[1])["deleted"], true);
}

#[tokio::test]
async fn what_a_slow_watcher_missed_is_told() {
    let bounds = state::Config {
        watch_events_max: 1,
        ..state::Config::default()
    };
    let world = world_with(|_| (), bounds).await;
    let app = world.state.app(&"shop".parse().expect("an app"));
    let key = "k".parse().expect("a key");
    let create = Some(state::Durability::Ephemeral);
    let value = app
        .value(&key, state::Open { create })
        .await
        .expect("a value");
    let request = Request::get(at(&world, "?watch=true")).body(Full::default());
    let mut body = world.begin(request.expect("a request")).await.into_body();
    // On one thread, the listener runs again only after all of these.
    for _ in 0..10 {
        value.set(b"x").await.expect("it is set");
    }
    let mut text = String::new();
    while !text.contains("event: missed\ndata: {\"missed\":9}\n\n") {
        let frame = body.frame().await.expect("more").expect("a frame");
        let data = frame.into_data().expect("data");
        text.push_str(std::str::from_utf8(&data).expect("text"));
    }
}

#[tokio::test]
async fn state_needs_a_token_where_the_node_asks_for_one() {
    let world = world(|config| config.require_token = true).await;
    for method in ["GET", "PUT", "DELETE"] {
        let refused = ask(&world, method, "/k", &[], "").await;
        assert_eq!(refused.code(), "unauthorized", "{method}");
    }
    assert_eq!(get(&world, "", &[]).await.code(), "unauthorized");
    let not_this = ask(&world, "POST", "/k", &[], "").await;
    assert_eq!(not_this.status, 401);
}
