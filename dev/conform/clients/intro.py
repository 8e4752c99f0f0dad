"""The flow of the JetStream introduction with nats-py, against the server whose URL is the only argument.

Ends with 0 if the server agreed with everything, else with 1 and the first disagreement.
"""

import asyncio
import json
import sys
from datetime import datetime, timezone

import nats
from nats.errors import NoRespondersError, TimeoutError as NatsTimeout
from nats.js import api
from nats.js.errors import BadRequestError, KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError


def expect(what, got, want):
    """A disagreement ends the run."""
    if got != want:
        raise AssertionError(f"{what}: expected {want!r}, got {got!r}")


async def core(nc):
    """Publish, subscribe, request, queue groups, no responders."""
    sub = await nc.subscribe("core.*")
    await nc.publish("core.a", b"one", headers={"Mine": "yes"})
    msg = await sub.next_msg(timeout=5)
    expect("core message", (msg.subject, msg.data, msg.headers), ("core.a", b"one", {"Mine": "yes"}))

    async def answer(msg):
        await msg.respond(b"re:" + msg.data)

    await nc.subscribe("help", queue="workers", cb=answer)
    await nc.subscribe("help", queue="workers", cb=answer)
    reply = await nc.request("help", b"me", timeout=5)
    expect("reply", reply.data, b"re:me")
    try:
        await nc.request("nobody.home", b"", timeout=5)
        raise AssertionError("a request that nobody hears succeeded")
    except NoRespondersError:
        pass


async def orders(js):
    """The introduction: a stream, ten orders, a consumer that acknowledges them."""
    info = await js.add_stream(name="shop_orders", subjects=["orders.>"])
    expect("stream name", info.config.name, "shop_orders")
    for i in range(10):
        ack = await js.publish(f"orders.new.{i}", json.dumps({"OrderId": i}).encode())
        expect("ack", (ack.stream, ack.seq, ack.duplicate), ("shop_orders", i + 1, None))
    info = await js.stream_info("shop_orders")
    expect("state", (info.state.messages, info.state.first_seq, info.state.last_seq), (10, 1, 10))
    names = [stream.config.name for stream in await js.streams_info()]
    expect("streams", names, ["shop_orders"])

    config = api.ConsumerConfig(durable_name="order_processor", ack_policy=api.AckPolicy.EXPLICIT)
    info = await js.add_consumer("shop_orders", config)
    expect("consumer", (info.name, info.num_pending, info.num_ack_pending), ("order_processor", 10, 0))
    sub = await js.pull_subscribe_bind("order_processor", "shop_orders")
    got = []
    while len(got) < 10:
        for msg in await sub.fetch(4, timeout=5):
            expect("payload", json.loads(msg.data), {"OrderId": len(got)})
            expect("sequence", msg.metadata.sequence.stream, len(got) + 1)
            expect("deliveries", msg.metadata.num_delivered, 1)
            got.append(msg.subject)
            await msg.ack_sync()
    expect("subjects", got, [f"orders.new.{i}" for i in range(10)])
    info = await js.consumer_info("shop_orders", "order_processor")
    expect("after acks", (info.num_pending, info.num_ack_pending, info.ack_floor.stream_seq), (0, 0, 10))
    try:
        await sub.fetch(1, timeout=0.3)
        raise AssertionError("an empty stream delivered")
    except NatsTimeout:
        pass


async def redelivery(js):
    """Refused, terminated and deduplicated messages."""
    await js.add_stream(name="jobs", subjects=["jobs.>"], retention=api.RetentionPolicy.WORK_QUEUE)
    first = await js.publish("jobs.a", b"a", headers={"Nats-Msg-Id": "a"})
    again = await js.publish("jobs.a", b"a", headers={"Nats-Msg-Id": "a"})
    expect("duplicate", (again.seq, again.duplicate), (first.seq, True))
    await js.publish("jobs.b", b"b")
    sub = await js.pull_subscribe("jobs.>", durable="worker", stream="jobs")
    msgs = await sub.fetch(2, timeout=5)
    expect("jobs", [msg.data for msg in msgs], [b"a", b"b"])
    await msgs[0].nak()
    await msgs[1].term()
    msg = (await sub.fetch(1, timeout=5))[0]
    expect("refused job", (msg.data, msg.metadata.num_delivered), (b"a", 2))
    await msg.in_progress()
    await msg.ack_sync()
    for _ in range(50):
        if (await js.stream_info("jobs")).state.messages == 0:
            break
        await asyncio.sleep(0.05)
    expect("jobs left", (await js.stream_info("jobs")).state.messages, 0)
    try:
        await js.add_stream(name="clash", subjects=["jobs.>"])
        raise AssertionError("overlapping subjects were accepted")
    except BadRequestError as error:
        expect("overlap", error.err_code, 10065)


async def push(js):
    """Push consumers: with acks, in order, and by queue group."""
    await js.add_stream(name="feed", subjects=["feed.*"])
    for i in range(200):
        await js.publish(f"feed.{i % 4}", str(i).encode())
    sub = await js.subscribe("feed.*", durable="pusher", stream="feed", manual_ack=True)
    for i in range(200):
        msg = await sub.next_msg(timeout=5)
        expect("pushed", (int(msg.data), msg.metadata.sequence.consumer), (i, i + 1))
        await msg.ack()
    await sub.unsubscribe()

    ordered = await js.subscribe("feed.*", stream="feed", ordered_consumer=True)
    for i in range(200):
        expect("in order", int((await ordered.next_msg(timeout=5)).data), i)
    await ordered.unsubscribe()

    seen = []

    async def member(msg):
        seen.append(int(msg.data))
        await msg.ack()

    for _ in range(2):
        await js.subscribe("feed.1", queue="team", stream="feed", cb=member)
    for _ in range(100):
        if len(seen) == 50:
            break
        await asyncio.sleep(0.05)
    expect("the team's messages", sorted(seen), list(range(1, 200, 4)))


async def key_value(js):
    """Buckets: put, get, compare-and-set, delete, history, watch."""
    kv = await js.create_key_value(bucket="config", history=5)
    expect("revision", await kv.put("color", b"red"), 1)
    expect("revision", await kv.put("color", b"blue"), 2)
    entry = await kv.get("color")
    expect("entry", (entry.value, entry.revision), (b"blue", 2))
    expect("old revision", (await kv.get("color", revision=1)).value, b"red")
    expect("update", await kv.update("color", b"green", last=2), 3)
    for write in (lambda: kv.update("color", b"x", last=2), lambda: kv.create("color", b"x")):
        try:
            await write()
            raise AssertionError("a wrong revision was accepted")
        except KeyWrongLastSequenceError as error:
            expect("wrong revision", error.description, "wrong last sequence: 3")
    await kv.create("size", b"9")
    expect("keys", sorted(await kv.keys()), ["color", "size"])
    history = [(entry.revision, entry.value) for entry in await kv.history("color")]
    expect("history", history, [(1, b"red"), (2, b"blue"), (3, b"green")])
    watcher = await kv.watchall()
    seen = {}
    async for entry in watcher:
        if entry is None:
            break
        seen[entry.key] = entry.value
    expect("watched", seen, {"color": b"green", "size": b"9"})
    await kv.put("shape", b"round")
    entry = await watcher.updates(timeout=5)
    expect("watched later", (entry.key, entry.value), ("shape", b"round"))
    await watcher.stop()
    await kv.delete("color")
    try:
        await kv.get("color")
        raise AssertionError("a deleted key was found")
    except KeyNotFoundError:
        pass
    await kv.purge("size")
    expect("keys", sorted(await kv.keys()), ["shape"])
    status = await kv.status()
    expect("status", (status.bucket, status.history), ("config", 5))
    await js.delete_key_value("config")


async def objects(js):
    """Objects: put, get, list, delete."""
    store = await js.create_object_store("files")
    data = bytes(range(256)) * 2000
    info = await store.put("big.bin", data)
    expect("object", (info.size, info.chunks), (len(data), 4))
    got = await store.get("big.bin")
    expect("bytes", (got.data == data, got.info.digest), (True, info.digest))
    await store.put("small", b"hello")
    expect("small", (await store.get("small")).data, b"hello")
    expect("list", sorted(entry.name for entry in await store.list()), ["big.bin", "small"])
    await store.delete("big.bin")
    left = [entry.name for entry in await store.list() if not entry.deleted]
    expect("list", left, ["small"])
    await js.delete_object_store("files")


async def management(js):
    """Messages by number, purge, update, deletion, account."""
    msg = await js.get_msg("shop_orders", 3)
    expect("message 3", (msg.subject, json.loads(msg.data)), ("orders.new.2", {"OrderId": 2}))
    await js.delete_msg("shop_orders", 3)
    try:
        await js.get_msg("shop_orders", 3)
        raise AssertionError("a deleted message was found")
    except NotFoundError as error:
        expect("deleted message", error.err_code, 10037)
    await js.purge_stream("shop_orders", subject="orders.new.5")
    expect("left", (await js.stream_info("shop_orders")).state.messages, 8)
    info = await js.update_stream(name="shop_orders", subjects=["orders.>"], max_msgs=5)
    expect("limit", info.config.max_msgs, 5)
    expect("left", (await js.stream_info("shop_orders")).state.messages, 5)
    account = await js.account_info()
    expect("account", (account.streams, account.limits.max_streams), (3, -1))
    expect("deleted", await js.delete_consumer("shop_orders", "order_processor"), True)
    for name in ("shop_orders", "jobs", "feed"):
        expect("deleted", await js.delete_stream(name), True)


async def drained(url):
    """Draining delivers what is under way and then closes."""
    nc = await nats.connect(url)
    got = []

    async def take(msg):
        got.append(msg.data)

    await nc.subscribe("drain", cb=take)
    for i in range(100):
        await nc.publish("drain", str(i).encode())
    await nc.drain()
    expect("drained", (len(got), nc.is_closed), (100, True))


async def main(url):
    """All of it, in an order that leaves an empty server."""
    started = datetime.now(timezone.utc)
    nc = await nats.connect(url, allow_reconnect=False)
    js = nc.jetstream(timeout=10)
    await core(nc)
    await orders(js)
    await redelivery(js)
    await push(js)
    await key_value(js)
    await objects(js)
    await management(js)
    await drained(url)
    await nc.close()
    print(f"agreed in {(datetime.now(timezone.utc) - started).total_seconds():.1f} s")


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(sys.argv[1]), 120))
