"""Reads every message of stream S through every server, in order and one by one, and compares what came with what was
published. Arguments: how many there are, then the servers' URLs."""

import asyncio
import sys

import nats


def payload(seq):
    return f"{seq}:".encode() + bytes(at * (seq + 3) % 251 for at in range(900))


async def read(url, count):
    client = await nats.connect(url)
    js = client.jetstream()
    sub = await js.subscribe("s.>", stream="S", ordered_consumer=True)
    for seq in range(1, count + 1):
        message = await sub.next_msg(timeout=10)
        assert message.metadata.sequence.stream == seq, (url, seq, message.metadata)
        assert message.data == payload(seq), (url, seq)
    await sub.unsubscribe()
    for seq in range(1, count + 1, 7):
        message = await js.get_msg("S", seq)
        assert message.data == payload(seq), (url, seq)
    await client.close()


async def main(count, urls):
    for url in urls:
        await read(url, count)


asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
