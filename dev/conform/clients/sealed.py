"""Fills a server, or looks whether everything is still there: `sealed.py URL fill|check|check-messages|absent`.

Every name and every byte that a user chooses holds the word MARKER, so that a search of the store's files tells whether
any of it can be read there. Ends with 0 if the server agreed with everything, else with 1 and the first disagreement.
"""

import asyncio
import sys

import nats
from nats.js import api
from nats.js.errors import NotFoundError

COUNT = 400


def expect(what, got, want):
    """A disagreement ends the run."""
    if got != want:
        raise AssertionError(f"{what}: expected {want!r}, got {got!r}")


def payload(number):
    """Long enough that segments are packed and have several blocks."""
    return f"MARKERpayload{number}:".encode() + bytes((number * 7 + at) % 251 for at in range(number % 900))


async def fill(js):
    """A stream, its consumer with some progress, a key-value bucket."""
    await js.add_stream(
        name="MARKERstream",
        subjects=["MARKERsubject.>"],
        description="MARKERdescription",
        metadata={"MARKERkind": "MARKERvalue"},
    )
    config = api.ConsumerConfig(durable_name="MARKERdurable", ack_policy=api.AckPolicy.EXPLICIT)
    await js.add_consumer("MARKERstream", config)
    for number in range(1, COUNT + 1):
        headers = {"Nats-Msg-Id": f"MARKERid{number}", "MARKERheader": "MARKERtext"}
        ack = await js.publish(f"MARKERsubject.{number % 7}", payload(number), headers=headers)
        expect("sequence", ack.seq, number)
    sub = await js.pull_subscribe_bind("MARKERdurable", "MARKERstream")
    for msg in await sub.fetch(10, timeout=5):
        await msg.ack_sync()
    kv = await js.create_key_value(bucket="MARKERbucket")
    await kv.put("MARKERkey", b"MARKERcontent")


async def check(js, with_consumer):
    """Everything that `fill` made."""
    info = await js.stream_info("MARKERstream")
    expect("messages", info.state.messages, COUNT)
    expect("description", info.config.description, "MARKERdescription")
    for number in range(1, COUNT + 1):
        msg = await js.get_msg("MARKERstream", number)
        expect(f"message {number}", (msg.subject, msg.data), (f"MARKERsubject.{number % 7}", payload(number)))
    # A message id from before is still known.
    ack = await js.publish("MARKERsubject.1", b"MARKER", headers={"Nats-Msg-Id": f"MARKERid{COUNT}"})
    expect("duplicate", (ack.seq, ack.duplicate), (COUNT, True))
    if with_consumer:
        info = await js.consumer_info("MARKERstream", "MARKERdurable")
        expect("ack floor", info.ack_floor.stream_seq, 10)
    kv = await js.key_value("MARKERbucket")
    expect("key", (await kv.get("MARKERkey")).value, b"MARKERcontent")


async def absent(js):
    """Nothing that `fill` made is served."""
    try:
        names = [stream.config.name for stream in await js.streams_info()]
    except NotFoundError:
        names = []
    expect("streams", names, [])


async def main(url, what):
    """One connection does it all."""
    nc = await nats.connect(url)
    js = nc.jetstream(timeout=10)
    if what == "fill":
        await fill(js)
    elif what == "absent":
        await absent(js)
    else:
        await check(js, what == "check")
    await nc.close()


asyncio.run(main(*sys.argv[1:]))
