"""Three servers of one cluster with nats-py: `cluster.py URL URL URL PID`, where PID is the third server's.

Ends with 0 if the servers agreed with everything, else with 1 and the first disagreement.
"""

import asyncio
import os
import signal
import sys

import nats
from nats.errors import NoRespondersError

PATIENCE = 20


def expect(what, got, want):
    """A disagreement ends the run."""
    if got != want:
        raise AssertionError(f"{what}: expected {want!r}, got {got!r}")


async def until(what, condition):
    """Waits for something that takes its time."""
    for _ in range(PATIENCE * 50):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


async def heard(publisher, subject, sub):
    """Publishes until a subscription on another server hears it: real servers tell each other without waiting."""

    async def probe():
        await publisher.publish(subject, b"probe")
        try:
            await sub.next_msg(timeout=0.05)
            return True
        except asyncio.TimeoutError:
            return False

    await until(f"{subject} is heard", probe)
    while True:
        try:
            await sub.next_msg(timeout=0.2)
        except asyncio.TimeoutError:
            return


async def messages(a, b, c):
    """Each server's subscriber hears each server's publisher, in order, once."""
    for far in (b, c):
        sub = await far.subscribe("news.*")
        await far.flush()
        await heard(a, "news.x", sub)
        for number in range(200):
            await a.publish("news.x", b"%d" % number, headers={"Number": str(number)})
        for number in range(200):
            msg = await sub.next_msg(timeout=5)
            expect("message", (msg.data, msg.headers["Number"]), (b"%d" % number, str(number)))
        await sub.unsubscribe()


async def groups(a, b, c):
    """One member of a group gets each message, wherever it is."""
    counts = [0, 0]

    def member(at):
        async def take(_):
            counts[at] += 1

        return take

    await b.subscribe("work", queue="q", cb=member(0))
    await c.subscribe("work", queue="q", cb=member(1))
    await b.flush()
    await c.flush()

    async def both():
        await a.publish("work", b"")
        await a.flush()
        await asyncio.sleep(0.02)
        return all(counts)

    await until("both members are chosen", both)
    await asyncio.sleep(0.2)
    counts[:] = [0, 0]
    for _ in range(300):
        await a.publish("work", b"")
    await a.flush()

    async def all_came():
        return sum(counts) == 300

    await until("all messages came", all_came)
    await asyncio.sleep(0.2)
    expect("messages", sum(counts), 300)


async def requests(a, b, c):
    """Requests find their services, and nobody is said to be there who is not."""

    async def answer(msg):
        await msg.respond(b"re:" + msg.data)

    await c.subscribe("service", cb=answer)
    await c.flush()

    async def answered(client):
        try:
            reply = await client.request("service", b"x", timeout=1)
            return reply.data == b"re:x"
        except (NoRespondersError, asyncio.TimeoutError):
            return False

    for client in (a, b, c):
        # The real server tells the others of a subscription at its leisure, each for itself.
        await until("a request is answered", lambda: answered(client))
        reply = await client.request("service", b"me", timeout=5)
        expect("reply", reply.data, b"re:me")
        try:
            await client.request("nobody", b"", timeout=5)
            raise AssertionError("a request that nobody hears succeeded")
        except NoRespondersError:
            pass


async def elsewhere(urls, pid, a):
    """Who loses its server finds another one by what its server told of the others."""
    came = asyncio.Event()

    async def reconnected():
        came.set()

    lost = await nats.connect(urls[2], reconnected_cb=reconnected, reconnect_time_wait=0.1, max_reconnect_attempts=-1)

    async def told():
        return len(lost.discovered_servers) >= 2

    await until("the other servers are known", told)
    sub = await lost.subscribe("stay")
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(came.wait(), PATIENCE)
    await lost.flush()
    await heard(a, "stay", sub)
    await a.publish("stay", b"still here")
    msg = await sub.next_msg(timeout=5)
    expect("message", msg.data, b"still here")
    await lost.close()


async def main(urls, pid):
    """All of it, on three servers."""
    a, b, c = [await nats.connect(url) for url in urls]
    await messages(a, b, c)
    await messages(b, c, a)
    await groups(a, b, c)
    await requests(a, b, c)
    await c.close()
    await elsewhere(urls, pid, a)
    await a.close()
    await b.close()


asyncio.run(main(sys.argv[1:4], int(sys.argv[4])))
