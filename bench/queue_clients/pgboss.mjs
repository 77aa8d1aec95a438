// pg-boss: its client's own fetch and complete. Its worker sleeps at least half a second between two fetches of one job, so
// that a drain through it would measure the sleep.
import { createInterface } from "node:readline";
import { PgBoss } from "pg-boss";

const QUEUE = "noop";
const boss = new PgBoss({ connectionString: process.env.BENCH_DATABASE, max: 26, supervise: false, schedule: false });
boss.on("error", (error) => console.error(error));
await boss.start();
await boss.createQueue(QUEUE);

async function bulk(jobs, concurrency = 1) {
  let left = jobs;
  const one = async () => {
    while (left > 0) {
      const length = Math.min(500, left);
      left -= length;
      await boss.insert(QUEUE, Array.from({ length }, (_, n) => ({ data: { n } })));
    }
  };
  await Promise.all(Array.from({ length: concurrency }, one));
}

async function enqueue({ jobs, concurrency, bulk: together }) {
  const began = performance.now();
  if (together) await bulk(jobs, concurrency);
  else {
    let left = jobs;
    const one = async () => {
      while (left-- > 0) await boss.send(QUEUE, { n: left });
    };
    await Promise.all(Array.from({ length: concurrency }, one));
  }
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
