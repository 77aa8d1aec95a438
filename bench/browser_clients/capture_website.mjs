// capture-website has one way: a browser for each picture.
import { createInterface } from "node:readline";
import captureWebsite from "capture-website";

const { BENCH_URL: url, BENCH_BROWSER: executablePath } = process.env;
const launchOptions = { executablePath, headless: "shell", args: ["--no-sandbox"] };
const shoot = () => captureWebsite.buffer(url, { width: 1280, height: 720, scaleFactor: 1, launchOptions });

async function drive({ slots, seconds }) {
  const picture = await shoot();
  const began = performance.now();
  let shots = 0;
  const slot = async () => {
    while (performance.now() < began + seconds * 1000) {
      await shoot();
      shots += 1;
    }
  };
  await Promise.all(Array.from({ length: slots }, slot));
  return { shots, seconds: (performance.now() - began) / 1000, picture: Buffer.from(picture).toString("base64") };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await drive(JSON.parse(line)))}\n`);
}
