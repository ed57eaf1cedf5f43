//! `Invoke`, as clients of AWS Lambda's make it.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::{Answer, World, world};
use testkit::Guest;

const PATH: &str = "/2015-03-31/functions";

async fn invoke(world: &World, name: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let uri = world.data(&format!("{PATH}/{name}"));
    let mut request = Request::post(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    world.send(request.body(body).expect("a request")).await
}

fn refused(answer: &Answer, status: u16, name: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("x-amzn-errortype"), name);
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_function_of_any_kind_that_takes_bytes_is_invoked() {
    let world = world(|_| ()).await;
    let version = world.deploy("shop/echo", &Guest::Echo).await;
    world.deploy("shop/told", &Guest::Told).await;
    let arn = "arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Ashop_echo";
    for name in ["shop_echo", "shop_echo:live", "shop_echo%3Alive", arn] {
        let name = format!("{name}/invocations");
        let answer = invoke(&world, &name, &[], "{\"a\":1}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "{\"a\":1}"),
            "{name}"
        );
        let executed = answer.header("x-amz-executed-version");
        assert_eq!(format!("sha256:{executed}"), version);
        let id = answer.header("x-amzn-requestid");
        assert_eq!(id, answer.header("dunlin-invocation-id"));
        assert!(!answer.headers.contains_key("x-amz-function-error"));
        let again = format!("shop_echo/invocations?Qualifier={executed}");
        assert_eq!(invoke(&world, &again, &[], "1").await.status, 200);
    }
    let context = BASE64.encode("{ \"client\": \"a\" }");
    let headers = [("x-amz-client-context", context.as_str())];
    let told = invoke(&world, "shop_told/invocations", &headers, "{}").await;
    let variables = told.json();
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:shop_told";
    assert_eq!(variables["LAMBDA_INVOKED_FUNCTION_ARN"], arn);
    assert_eq!(variables["LAMBDA_CLIENT_CONTEXT"], "{\"client\":\"a\"}");
    assert_eq!(
        variables["DUNLIN_INVOCATION_ID"],
        told.header("x-amzn-requestid")
    );
    let by_path = world.post(world.data("/shop/told"), "{}").await;
    assert_eq!(by_path.header("content-type"), "application/json");
    assert_eq!(by_path.json()["LAMBDA_INVOKED_FUNCTION_ARN"], arn);
}

#[tokio::test]
async fn a_function_s_error_is_a_reply_with_a_header() {
    let world = world(|_| ()).await;
    world.deploy("shop/report", &Guest::Report).await;
    world.deploy("shop/trap", &Guest::Trap).await;
    let reported = invoke(
        &world,
        "shop_report/invocations",
        &[],
        "{\"errorMessage\":1}",
    )
    .await;
    assert_eq!(
        (reported.status.as_u16(), reported.text()),
        (200, "{\"errorMessage\":1}")
    );
    assert_eq!(reported.header("x-amz-function-error"), "Handled");
    let trapped = invoke(&world, "shop_trap/invocations", &[], "").await;
    assert_eq!(trapped.status, 200);
    assert_eq!(trapped.header("x-amz-function-error"), "Unhandled");
    assert_eq!(trapped.json()["errorType"], "Runtime.ExitError");
    let by_path = world.post(world.data("/shop/report"), "{}").await;
    assert_eq!(
        (by_path.status.as_u16(), by_path.code().as_str()),
        (500, "function-error")
    );
}

#[tokio::test]
async fn the_end_of_the_log_comes_if_it_is_asked_for() {
    let world = world(|_| ()).await;
    world.deploy("shop/print", &Guest::Print(64)).await;
    world.deploy("shop/flood", &Guest::Print(64 << 10)).await;
    let tail = [("x-amz-log-type", "Tail")];
    let log = |answer: &Answer| {
        let text = answer.header("x-amz-log-result");
        String::from_utf8(BASE64.decode(text).expect("base64")).expect("text")
    };
    let printed = invoke(&world, "shop_print/invocations", &tail, "").await;
    let text = log(&printed);
    let id = printed.header("x-amzn-requestid");
    assert!(
        text.starts_with(&format!("START RequestId: {id} ")),
        "{text}"
    );
    assert!(
        text.contains(&format!("\n{}\nEND RequestId: {id}\n", "x".repeat(64))),
        "{text}"
    );
    assert!(
        text.contains(&format!("\nREPORT RequestId: {id}\t")),
        "{text}"
    );
    let flooded = log(&invoke(&world, "shop_flood/invocations", &tail, "").await);
    assert!(
        flooded.len() <= 4096 && flooded.starts_with('x'),
        "{}",
        flooded.len()
    );
    let silent = invoke(&world, "shop_print/invocations", &[], "").await;
    assert!(!silent.headers.contains_key("x-amz-log-result"));
}

#[tokio::test]
async fn events_are_accepted_and_dry_runs_do_nothing() {
    let world = world(|_| ()).await;
    world.deploy("shop/told", &Guest::Told).await;
    let event = [("x-amz-invocation-type", "Event")];
    let accepted = invoke(&world, "shop_told/invocations", &event, "{}").await;
    assert_eq!((accepted.status.as_u16(), accepted.text()), (202, ""));
    let id = accepted.header("x-amzn-requestid");
    let path = format!("/v1/invocations/{id}");
    let found = world.send(
        Request::get(world.admin(&path))
            .body(Full::default())
            .expect("a request"),
    );
    let found = found.await.json();
    assert_eq!(found["app"], "shop");
    assert_eq!(found["state"], "waiting");
    let malformed = invoke(&world, "shop_told/invocations", &event, "{").await;
    refused(&malformed, 400, "InvalidRequestContentException");
    let dry = [("x-amz-invocation-type", "DryRun")];
    let dry = invoke(&world, "shop_told/invocations", &dry, "{}").await;
    assert_eq!((dry.status.as_u16(), dry.text()), (204, ""));
}

#[tokio::test]
async fn what_cannot_be_done_is_an_exception() {
    let world = world(|_| ()).await;
    world.deploy("shop/told", &Guest::Told).await;
    world.deploy("shop/web", &Guest::HttpEcho).await;
    let not_found = "ResourceNotFoundException";
    for name in ["shop_none", "none_told", "told", "shop_told:none"] {
        let answer = invoke(&world, &format!("{name}/invocations"), &[], "{}").await;
        refused(&answer, 404, not_found);
        assert_eq!(answer.json()["Type"], "User");
        assert!(answer.json()["Message"].is_string());
    }
    let invalid = "InvalidParameterValueException";
    let both = "shop_told:live/invocations?Qualifier=other";
    refused(&invoke(&world, both, &[], "{}").await, 400, invalid);
    refused(
        &invoke(&world, "shop_web/invocations", &[], "{}").await,
        400,
        invalid,
    );
    let sometimes = [("x-amz-invocation-type", "Sometimes")];
    refused(
        &invoke(&world, "shop_told/invocations", &sometimes, "{}").await,
        400,
        invalid,
    );
    let content = "InvalidRequestContentException";
    refused(
        &invoke(&world, "shop_told/invocations", &[], "{").await,
        400,
        content,
    );
    let context = [("x-amz-client-context", "?")];
    refused(
        &invoke(&world, "shop_told/invocations", &context, "{}").await,
        400,
        content,
    );
    let large = format!("\"{}\"", "x".repeat(7 << 20));
    let answer = invoke(&world, "shop_told/invocations", &[], &large).await;
    refused(&answer, 413, "RequestTooLargeException");
}

#[tokio::test]
async fn a_token_comes_as_the_session_token() {
    let world = world(|config| config.require_token = true).await;
    let (_, token) = world.tokens.create("laptop", 1).await.expect("a token");
    let signature = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/lambda/aws4_request, \
                     SignedHeaders=host, Signature=00";
    let bearer = format!("Bearer {token}");
    let check = async |headers: &[(&str, &str)], fine: bool| {
        let answer = invoke(&world, "shop_none/invocations", headers, "{}").await;
        match fine {
            true => refused(&answer, 404, "ResourceNotFoundException"),
            false => refused(&answer, 403, "UnrecognizedClientException"),
        }
    };
    check(&[], false).await;
    check(&[("authorization", signature)], false).await;
    check(
        &[
            ("authorization", signature),
            ("x-amz-security-token", "other"),
        ],
        false,
    )
    .await;
    check(
        &[
            ("authorization", signature),
            ("x-amz-security-token", &token),
        ],
        true,
    )
    .await;
    check(&[("authorization", &bearer)], true).await;
}
