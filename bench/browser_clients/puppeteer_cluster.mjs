// puppeteer-cluster as its README shows it: one browser, a context (or only a page) a job, page.screenshot.
import { createInterface } from "node:readline";
import { Cluster } from "puppeteer-cluster";

const { BENCH_URL: url, BENCH_BROWSER: executablePath, BENCH_MODE: mode } = process.env;
const puppeteerOptions = {
  executablePath,
  headless: "shell",
  args: ["--no-sandbox"],
  defaultViewport: { width: 1280, height: 720 },
};

async function shoot({ page, data }) {
  await page.goto(data);
  return page.screenshot();
}

async function drive({ slots, seconds }) {
  const cluster = await Cluster.launch({ concurrency: Cluster[mode], maxConcurrency: slots, puppeteerOptions });
  try {
    const picture = await cluster.execute(url, shoot);
    const began = performance.now();
    let shots = 0;
    const slot = async () => {
      while (performance.now() < began + seconds * 1000) {
        await cluster.execute(url, shoot);
        shots += 1;
      }
    };
    await Promise.all(Array.from({ length: slots }, slot));
    return { shots, seconds: (performance.now() - began) / 1000, picture: Buffer.from(picture).toString("base64") };
  } finally {
    await cluster.close();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await drive(JSON.parse(line)))}\n`);
}
