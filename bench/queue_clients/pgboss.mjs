// pg-boss: its client's own fetch and complete. Its worker sleeps at least half a second between two fetches of one job, so
// that a drain through it would measure the sleep.
import { createInterface } from "node:readline";
import { PgBoss } from "pg-boss";
import { inLanes } from "./lanes.mjs";

const QUEUE = "noop";
const boss = new PgBoss({ connectionString: process.env.BENCH_DATABASE, max: 26, supervise: false, schedule: false });
boss.on("error", (error) => console.error(error));
await boss.start();
await boss.createQueue(QUEUE);

const bulk = (jobs, lanes = 1) => inLanes(jobs, 500, lanes, (length) => boss.insert(QUEUE, Array.from({ length }, (_, n) => ({ data: { n } }))));

async function enqueue({ jobs, concurrency, bulk: together }) {
  const began = performance.now();
  await (together ? bulk(jobs, concurrency) : inLanes(jobs, 1, concurrency, (_, left) => boss.send(QUEUE, { n: left })));
  return (performance.now() - began) / 1000;
}

async function drain({ jobs, concurrency, batch }) {
  const began = performance.now();
  let done = 0;
  const one = async () => {
    while (done < jobs) {
      const taken = await boss.fetch(QUEUE, { batchSize: batch ? 500 : 1 });
      if (!taken.length) return;
      await boss.complete(QUEUE, taken.map((job) => job.id));
      done += taken.length;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, one));
  if (done !== jobs) throw new Error(`${done} of ${jobs} jobs were done`);
  return (performance.now() - began) / 1000;
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const does = { fill: ({ jobs }) => bulk(jobs).then(() => 0), enqueue, drain };
  console.log(JSON.stringify({ seconds: await does[command.do](command) }));
}
await boss.stop({ graceful: false });
