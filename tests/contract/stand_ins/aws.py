"""moto's Auto Scaling, and before it what moto does not do and AWS does: MinSize and MaxSize are kept, calls throttled,
actions denied, and launches fail.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import boto3
from aiohttp import web
from moto.server import ThreadedMotoServer

from tests.contract.stand_ins.listening import listening

REGION = "eu-west-1"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": REGION}


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Its url."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client(url: str, service: str) -> Any:
    return boto3.client(
        service, region_name=REGION, endpoint_url=url, aws_access_key_id="testing", aws_secret_access_key="testing"
    )


def make_group(url: str, name: str, *, least: int = 1, most: int = 10, desired: int = 2) -> None:
    """An Auto Scaling group of a launch template."""
    ec2, autoscaling = client(url, "ec2"), client(url, "autoscaling")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ec2.create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData={"ImageId": image, "InstanceType": "g6.xlarge"}
    )
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name, MinSize=least, MaxSize=most, DesiredCapacity=desired,
        LaunchTemplate={"LaunchTemplateName": name, "Version": "$Latest"}, AvailabilityZones=[f"{REGION}a"],
    )  # fmt: skip


class Front:
    """Stands before moto. `busy`: answers of Throttling to give; `denied`: actions; `failed`: ids of activities."""

    def __init__(self, moto_url: str) -> None:
        self._moto = moto_url
        self.busy = 0
        self.denied: set[str] = set()
        self.failed: list[str] = []
        self.asked: list[str] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Front]:
        async with aiohttp.ClientSession() as self._http, listening(self._answer) as self.url:
            yield self

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        said = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        action = said.get("Action", "")
        self.asked.append(action)
        if self.busy:
            self.busy -= 1
            return _error(400, "Throttling", "Rate exceeded")
        if action in self.denied:
            return _error(403, "AccessDenied", f"not authorized to perform: autoscaling:{action}")
        if action == "DescribeScalingActivities":
            return _activities(self.failed)
        if action == "SetDesiredCapacity" and (why := await self._outside(said)):
            return _error(400, "ValidationError", why)
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        async with self._http.post(self._moto, data=body, headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="text/xml")

    async def _outside(self, said: dict[str, str]) -> str:
        """What real AWS says to a capacity outside the group's bounds."""
        name, want = said["AutoScalingGroupName"], int(said["DesiredCapacity"])
        found = await asyncio.to_thread(
            client(self._moto, "autoscaling").describe_auto_scaling_groups, AutoScalingGroupNames=[name]
        )
        (group,) = found["AutoScalingGroups"]
        if want > group["MaxSize"]:
            return (
                f"New SetDesiredCapacity value {want} is above max value {group['MaxSize']} for the AutoScalingGroup."
            )
        if want < group["MinSize"]:
            return (
                f"New SetDesiredCapacity value {want} is below min value {group['MinSize']} for the AutoScalingGroup."
            )
        return ""


def _error(status: int, code: str, message: str) -> web.Response:
    text = (
        '<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
    return web.Response(status=status, text=text, content_type="text/xml")


def _activities(failed: list[str]) -> web.Response:
    members = "".join(
        f"<member><ActivityId>{one}</ActivityId><AutoScalingGroupName>g</AutoScalingGroupName><Cause>demand</Cause>"
        "<Description>Launching a new EC2 instance.  Status Reason: no Spot capacity.</Description>"
        "<StartTime>2026-01-01T00:00:00Z</StartTime><StatusCode>Failed</StatusCode></member>"
        for one in failed
    )
    text = (
        '<DescribeScalingActivitiesResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">'
        f"<DescribeScalingActivitiesResult><Activities>{members}</Activities></DescribeScalingActivitiesResult>"
        "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></DescribeScalingActivitiesResponse>"
    )
    return web.Response(text=text, content_type="text/xml")
