// Batches, schedules, consumers and stores with nats.js, against the server whose URL is the only argument. NATS_JS names
// the folder that has its packages. Ends with 0 if the server agreed with everything, else with 1 and the disagreement.

const assert = require("node:assert/strict");
const { createRequire } = require("node:module");
const path = require("node:path");

const packages = createRequire(path.join(process.env.NATS_JS, "x.js"));
const { connect, headers } = packages("@nats-io/transport-node");
const { jetstream, jetstreamManager, AckPolicy } = packages("@nats-io/jetstream");
const { startFastIngest } = packages("@nats-io/jetstream/internal");
const { Kvm } = packages("@nats-io/kv");
const { Objm } = packages("@nats-io/obj");

// All of a batch is stored with its last message, or nothing.
async function atomic(js, jsm) {
  await jsm.streams.add({ name: "A", subjects: ["a.>"], allow_atomic: true });
  const batch = await js.startBatch("a.1", "one");
  batch.add("a.2", "two");
  await batch.add("a.3", "three", { ack: true });
  assert.equal((await jsm.streams.info("A")).state.messages, 0);
  const ack = await batch.commit("a.4", "four");
  assert.deepEqual([ack.stream, ack.seq, ack.count, ack.batch], ["A", 4, 4, batch.id]);
  assert.equal((await jsm.streams.info("A")).state.messages, 4);

  await assert.rejects(async () => {
    const wrong = await js.startBatch("a.5", "five", { expect: { lastSequence: 77 } });
    await wrong.commit("a.6", "six");
  });
  assert.equal((await jsm.streams.info("A")).state.messages, 4);
}

// Many messages, paced by the server's acknowledgements of the flow.
async function fast(nc, jsm) {
  await jsm.streams.add({ name: "F", subjects: ["f.>"], allow_batched: true });
  const ingest = await startFastIngest(nc, "f.0", "0", { allowGaps: false, ackInterval: 10 });
  for (let at = 1; at < 500; at++) await ingest.add(`f.${at % 7}`, `${at}`);
  const ping = await ingest.ping(5000);
  assert.equal(ping.ackSeq <= 500, true, JSON.stringify(ping));
  const ack = await ingest.last("f.end", "end");
  assert.deepEqual([ack.stream, ack.seq, ack.count, ack.batch], ["F", 501, 501, ingest.batch]);
  const info = await jsm.streams.info("F");
  assert.deepEqual([info.state.messages, info.state.last_seq], [501, 501]);

  const empty = await startFastIngest(nc, "f.0", "again", { allowGaps: true });
  const end = await empty.end();
  assert.deepEqual([end.seq, end.count], [502, 1]);
}

// A message that produces others when its time comes.
async function schedules(js, jsm) {
  await jsm.streams.add({ name: "T", subjects: ["t.>"], allow_msg_schedules: true });
  const at = new Date(Date.now() + 300);
  await js.publish("t.plan.once", "hello", { schedule: { specification: at, target: "t.once" } });
  await js.publish("t.plan.often", "tick", { schedule: { specification: { every: "1s" }, target: "t.often" } });
  const consumer = await js.consumers.get("T", { filter_subjects: ["t.once", "t.often"] });
  const seen = {};
  for await (const message of await consumer.consume()) {
    seen[message.subject] = message.string();
    assert.equal(message.headers.get("Nats-Scheduler"), message.subject.replace("t.", "t.plan."));
    if (Object.keys(seen).length === 2) break;
  }
  assert.deepEqual(seen, { "t.once": "hello", "t.often": "tick" });
  await js.publish("t.note", "no more", { cancelSchedule: { scheduleSubject: "t.plan.often" } });
  assert.equal(await jsm.streams.getMessage("T", { last_by_subj: "t.plan.often" }), null);
}

async function consumers(js, jsm) {
  await jsm.streams.add({ name: "C", subjects: ["c.>"] });
  const head = headers();
  head.set("Mine", "yes");
  for (let at = 1; at <= 20; at++) {
    const ack = await js.publish(`c.${at}`, `${at}`, { msgID: `id-${at}`, headers: head });
    assert.deepEqual([ack.stream, ack.seq, ack.duplicate], ["C", at, false]);
  }
  assert.equal((await js.publish("c.1", "1", { msgID: "id-1" })).duplicate, true);
  await jsm.consumers.add("C", { durable_name: "w", ack_policy: AckPolicy.Explicit, max_deliver: 3 });
  const worker = await js.consumers.get("C", "w");
  let count = 0;
  for await (const message of await worker.fetch({ max_messages: 20, expires: 5000 })) {
    count += 1;
    if (message.seq === 7 && !message.redelivered) message.nak();
    else assert.equal(await message.ackAck(), true);
  }
  assert.equal(count, 20);
  const again = await worker.next({ expires: 5000 });
  assert.deepEqual([again.seq, again.redelivered, again.headers.get("Mine")], [7, true, "yes"]);
  assert.equal(await again.ackAck(), true);
  const info = await worker.info();
  assert.deepEqual([info.num_pending, info.num_ack_pending, info.ack_floor.stream_seq], [0, 0, 20]);
}

async function stores(nc) {
  const kv = await new Kvm(nc).create("B", { history: 3 });
  assert.equal(await kv.create("k", "1"), 1);
  await assert.rejects(() => kv.create("k", "2"));
  assert.equal(await kv.update("k", "2", 1), 2);
  assert.equal((await kv.get("k")).string(), "2");
  await kv.delete("k");
  assert.equal((await kv.get("k")).operation, "DEL");
  const store = await new Objm(nc).create("O");
  const bytes = new Uint8Array(300_000).map((_, at) => at % 251);
  await store.putBlob({ name: "blob" }, bytes);
  assert.deepEqual(await store.getBlob("blob"), bytes);
}

async function main() {
  const nc = await connect({ servers: process.argv[2] });
  const [js, jsm] = [jetstream(nc), await jetstreamManager(nc)];
  await atomic(js, jsm);
  await fast(nc, jsm);
  await consumers(js, jsm);
  await stores(nc);
  await schedules(js, jsm);
  await nc.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
