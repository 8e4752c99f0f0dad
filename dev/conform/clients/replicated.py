"""A replicated stream and its consumers through every server of a cluster. Arguments: the servers' URLs."""

import asyncio
import sys

import nats


async def main(urls):
    clients = [await nats.connect(url) for url in urls]
    streams = [client.jetstream() for client in clients]
    for at, js in enumerate(streams):
        info = await js.add_stream(name=f"P{at}", subjects=[f"p{at}.>"], num_replicas=3)
        assert info.cluster.leader and len(info.cluster.replicas) == 2, info
    for at in range(3):
        for js in streams:
            for number in range(5):
                await js.publish(f"p{at}.{number}", b"payload")
    for at, js in enumerate(streams):
        asked = streams[(at + 1) % 3]
        info = await asked.stream_info(f"P{at}")
        assert info.state.messages == 15, info
        sub = await js.pull_subscribe(f"p{at}.>", durable="D", stream=f"P{at}")
        got = await sub.fetch(15, timeout=5)
        for message in got:
            await message.ack_sync()
        assert len(got) == 15, got
        consumer = await asked.consumer_info(f"P{at}", "D")
        assert consumer.num_pending == 0 and consumer.num_ack_pending == 0, consumer
        names = sorted(info.config.name for info in await js.streams_info())
        assert names == ["P0", "P1", "P2"], names
        account = await js.account_info()
        assert account.streams == 3, account
    bucket = await streams[0].create_key_value(bucket="B", replicas=3)
    await bucket.put("key", b"value")
    for js in streams:
        entry = await (await js.key_value("B")).get("key")
        assert entry.value == b"value", entry
    await streams[1].delete_stream("P0")
    for client in clients:
        await client.close()


asyncio.run(main(sys.argv[1:]))
