"""Publishes to a stream and consumes it, without a single retry of a publish, until a line comes on standard input. Arguments: the
stream, its subject, and the servers' URLs. Every publish must be acknowledged at the first attempt, every message consumed."""

import asyncio
import json
import sys
import time

import nats
from nats.errors import Error
from nats.js.errors import APIError

PUBLISHERS = 3


async def quiet(_):
    """Lost connections are what this is about."""


async def publish(urls, who, subject, stop, ledger):
    client = await nats.connect(urls[who % len(urls) :] + urls[: who % len(urls)], error_cb=quiet)
    js = client.jetstream()
    number = 0
    while not stop.is_set():
        payload = f"{who}.{number}"
        begun = time.monotonic()
        try:
            ack = await js.publish(subject, payload.encode())
            ledger["acked"][payload] = ack.seq
        except Exception as error:  # whatever it is, the publisher was let down
            ledger["failed"].append(f"{payload}: {error!r} after {time.monotonic() - begun:.2f} s, at {time.strftime('%T')}")
        ledger["longest"] = max(ledger["longest"], time.monotonic() - begun)
        number += 1
    await client.close()


async def consume(urls, stream, stop, ledger, seen):
    client = await nats.connect(urls[1:] + urls[:1], error_cb=quiet)
    js = client.jetstream()
    sub = await js.pull_subscribe_bind("C", stream)
    deadline = None
    while True:
        if stop.is_set():
            deadline = deadline or time.monotonic() + 40
            if set(ledger["acked"]) <= seen or time.monotonic() > deadline:
                break
        try:
            for message in await sub.fetch(50, timeout=1):
                seen.add(message.data.decode())
                await message.ack()
        except asyncio.TimeoutError:
            pass
        except (APIError, Error) as error:
            ledger["consumer"].append(repr(error))
            await asyncio.sleep(0.05)
    await client.close()


async def main(stream, subject, urls):
    ledger = {"acked": {}, "failed": [], "longest": 0.0, "consumer": []}
    stop, done, seen = asyncio.Event(), asyncio.Event(), set()
    publishers = [asyncio.create_task(publish(urls, who, subject, stop, ledger)) for who in range(PUBLISHERS)]
    consumer = asyncio.create_task(consume(urls, stream, done, ledger, seen))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    stop.set()
    await asyncio.gather(*publishers)
    done.set()
    await consumer
    missed = sorted(set(ledger["acked"]) - seen)
    print(
        json.dumps(
            {
                "acked": len(ledger["acked"]),
                "failed": ledger["failed"],
                "longest": ledger["longest"],
                "missed": missed[:10],
                "consumer": ledger["consumer"][:10],
            }
        )
    )


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
