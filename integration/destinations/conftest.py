"""A server that stands for SQS, SNS, EventBridge and S3, moto's, and what tests read from it."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from functools import cache

import pytest
from boto3.session import Session

from integration.servers import INSTALL, Proxy, started

ACCOUNT = "123456789012"
REGION = "us-east-1"


def queue_arn(name):
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def topic_arn(name):
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"


def bus_arn(name):
    return f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{name}"


class Services:
    """AWS's services as tests see them; a topic and an event bus are seen by a queue behind them."""

    def __init__(self, url):
        self.url = url
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.client = cache(lambda name: Session(region_name=REGION, **keys).client(name, endpoint_url=url))

    def make_queue(self, name):
        return self.client("sqs").create_queue(QueueName=name)["QueueUrl"]

    def make_topic(self, name):
        topic = self.client("sns").create_topic(Name=name)["TopicArn"]
        self.make_queue(name)
        self.client("sns").subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=queue_arn(name), Attributes={"RawMessageDelivery": "true"}
        )

    def make_bus(self, name):
        events = self.client("events")
        events.create_event_bus(Name=name)
        self.make_queue(name)
        rule = {"Rule": name, "EventBusName": name}
        events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps({"source": ["lambda"]}))
        events.put_targets(**rule, Targets=[{"Id": "queue", "Arn": queue_arn(name)}])

    def make_bucket(self, name):
        self.client("s3").create_bucket(Bucket=name)

    def received(self, queue, count=1, seconds=30):
        """Wait for so many messages of a queue, and take them."""
        url = f"{self.url}/{ACCOUNT}/{queue}"
        found, deadline = [], time.monotonic() + seconds
        while len(found) < count:
            assert time.monotonic() < deadline, f"only these came: {found}"
            answer = self.client("sqs").receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
                WaitTimeSeconds=1,
            )
            for message in answer.get("Messages", ()):
                found.append(message)
                self.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def records(self, queue, count=1):
        return [json.loads(message["Body"]) for message in self.received(queue, count)]

    def objects(self, bucket):
        s3 = self.client("s3")
        keys = [listed["Key"] for listed in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@pytest.fixture(scope="session")
def services(require):
    program = shutil.which("moto_server")
    require("moto's server", program, INSTALL)
    with started([program, "-H", "127.0.0.1", "-p", "0"], r"Running on (http://\S+)") as url:
        yield Services(url)


@pytest.fixture
def proxy(services):
    """A proxy before the server, which can hold what goes through it."""
    with ExitStack() as stack:
        started = Proxy(int(services.url.rpartition(":")[2]))
        stack.callback(started.close)
        yield started
