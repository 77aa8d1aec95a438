// task-result: see functions/task-result/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("task-result"));
