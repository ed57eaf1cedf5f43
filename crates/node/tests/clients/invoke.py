"""Invokes functions by boto3 as its users do; argument: the node's data listener. Prints the id of an event."""

import base64
import io
import json
import sys

import boto3
from botocore.config import Config

functions = boto3.client(
    "lambda",
    endpoint_url=sys.argv[1],
    region_name="eu-west-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
    config=Config(retries={"total_max_attempts": 1}),
)


def invoke(name, event, **more):
    return functions.invoke(FunctionName=name, Payload=json.dumps(event), **more)


def replied(reply):
    assert reply["StatusCode"] == 200 and "FunctionError" not in reply, reply
    return json.load(reply["Payload"])


def failed(reply, kind):
    assert reply["StatusCode"] == 200 and reply["FunctionError"] == kind, reply
    return json.load(reply["Payload"])


def refused(exception, call):
    try:
        call()
    except exception as error:
        return error.response
    raise AssertionError(f"no {exception}")


def headers(reply):
    return reply["ResponseMetadata"]["HTTPHeaders"]


# A runtime of AWS's own.
order = {"country": "fi", "lines": [{"cents": 1250, "count": 2}]}
arn = "arn:aws:lambda:eu-west-1:123456789012:function:shop_invoice"
for name in ["shop_invoice", "shop_invoice:live", "123456789012:function:shop_invoice", arn]:
    reply = invoke(name, order)
    request = reply["ResponseMetadata"]["RequestId"]
    expected = {"net_cents": 2500, "tax_cents": 638, "total_cents": 3138, "request": request}
    assert replied(reply) == expected, name
version = reply["ExecutedVersion"]
assert replied(invoke("shop_invoice", order, Qualifier=version))["net_cents"] == 2500
assert replied(invoke("shop_invoice", order, Qualifier="$LATEST"))["net_cents"] == 2500
error = failed(invoke("shop_invoice", {"country": "xx", "lines": []}), "Unhandled")
assert error["errorMessage"] == "no rate is known for `xx`", error

# A runtime in C.
assert replied(functions.invoke(FunctionName="shop_plain")) == {}
context = base64.b64encode(json.dumps({"client": {"app_title": "é"}}).encode()).decode()
reply = invoke("shop_plain", "told", ClientContext=context, LogType="Tail")
log = base64.b64decode(reply["LogResult"]).decode()
told = replied(reply)
assert told["arn"] == "arn:aws:lambda:us-east-1:000000000000:function:shop_plain", told
assert (told["name"], told["calls"]) == ("shop_plain", 1), told
assert told["client"] == {"client": {"app_title": "é"}}, told
assert told["id"] == reply["ResponseMetadata"]["RequestId"], told
assert told["deadline_ms"] > 1_700_000_000_000 and told["trace"].startswith("Root=1-"), told
assert "\ncalled 1\nEND RequestId: " in log, log
error = failed(invoke("shop_plain", "fail"), "Handled")
assert error == {"errorType": "Test.Failed", "errorMessage": "as it was asked", "stackTrace": []}
assert failed(invoke("shop_plain", "exit"), "Unhandled")["errorType"] == "Runtime.ExitError"
assert failed(invoke("shop_plain", "crash"), "Unhandled")["errorType"] == "Runtime.ExitError"
assert failed(invoke("shop_plain", "hang"), "Unhandled")["errorType"] == "Sandbox.Timedout"
log = base64.b64decode(invoke("shop_plain", "print", LogType="Tail")["LogResult"]).decode()
assert len(log) <= 4096 and "\nline 299 of many\n" in log, log

# Another kind of function.
reply = functions.invoke(FunctionName="shop_echo", Payload=io.BytesIO(b"bytes"))
assert reply["Payload"].read() == b"bytes"

# What is refused.
known = functions.exceptions
response = refused(known.ResourceNotFoundException, lambda: invoke("shop_none", {}))
assert response["ResponseMetadata"]["HTTPStatusCode"] == 404, response
refused(known.ResourceNotFoundException, lambda: invoke("shop_plain", {}, Qualifier="none"))
refused(known.RequestTooLargeException, lambda: invoke("shop_plain", "x" * (7 << 20)))
broken = {"FunctionName": "shop_plain", "Payload": b"{"}
refused(known.InvalidRequestContentException, lambda: functions.invoke(**broken))

# Later, or never.
reply = invoke("shop_invoice", order, InvocationType="DryRun")
assert reply["StatusCode"] == 204, reply
reply = invoke("shop_invoice", order, InvocationType="Event")
assert reply["StatusCode"] == 202 and reply["Payload"].read() == b"", reply
print(reply["ResponseMetadata"]["RequestId"])
