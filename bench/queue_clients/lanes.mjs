/** Asks for so many jobs, `size` at a time, in so many lanes. `ask` is told how many, and how many are left after them. */
export async function inLanes(jobs, size, lanes, ask) {
  let left = jobs;
  const lane = async () => {
    while (left > 0) {
      const count = Math.min(size, left);
      left -= count;
      await ask(count, left);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}
