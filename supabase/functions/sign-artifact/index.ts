// sign-artifact: see functions/sign-artifact/main.py.
import { forward } from "../_shared/forward.ts";

Deno.serve(forward("sign-artifact"));
