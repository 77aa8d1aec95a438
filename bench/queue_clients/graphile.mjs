// graphile-worker: its own worker, with and without its local queue (the settings of its performance guide).
import { createInterface } from "node:readline";
import pg from "pg";
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { inLanes } from "./lanes.mjs";

const logger = new Logger(() => () => {});
const pgPool = new pg.Pool({ connectionString: process.env.BENCH_DATABASE, max: 26 });
const utils = await makeWorkerUtils({ pgPool, logger });
await utils.migrate();

const rows = (n) => Array.from({ length: n }, (_, i) => ({ identifier: "noop", payload: { n: i } }));

async function open() {
  const { rows: [{ n }] } = await pgPool.query("select count(*)::int as n from graphile_worker._private_jobs");
  return n;
}

const bulk = (jobs, lanes = 1) => inLanes(jobs, 500, lanes, (count) => utils.addJobs(rows(count)));

async function enqueue({ jobs, concurrency, bulk: together }) {
  const began = performance.now();
  await (together ? bulk(jobs, concurrency) : inLanes(jobs, 1, concurrency, (_, left) => utils.addJob("noop", { n: left })));
  return (performance.now() - began) / 1000;
}

async function drain({ jobs, concurrency, batch }) {
  let first = 0, seen = 0, settle;
  const all = new Promise((resolve) => (settle = resolve));
  const worker = {
    pgPool,
    concurrentJobs: concurrency,
    pollInterval: 50,
    ...(batch ? { localQueue: { size: 500, refetchDelay: { durationMs: 10 } }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } : {}),
  };
  const runner = await run({
    preset: { worker: { ...worker, logger } },
    pgPool, logger, noHandleSignals: true,
    taskList: {
      noop() {
        first ||= performance.now();
        if (++seen === jobs) settle();
      },
    },
  });
  await all;
  while (await open()) await new Promise((resolve) => setTimeout(resolve, 1));
  const seconds = (performance.now() - first) / 1000;
  await runner.stop();
  return seconds;
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const does = { fill: ({ jobs }) => bulk(jobs).then(() => 0), enqueue, drain };
  console.log(JSON.stringify({ seconds: await does[command.do](command) }));
}
await utils.release();
await pgPool.end();
