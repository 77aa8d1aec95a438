// Every forwarder on one port, under /<name> as the platform sends it: deno run … serve.ts <port> <name>…
const [port, ...names] = Deno.args;
const serve = Deno.serve;
type Handler = (request: Request) => Promise<Response>;
const handlers = new Map<string, Handler>();
for (const name of names) {
  Deno.serve = ((handler: Handler) => handlers.set(name, handler)) as unknown as typeof serve;
  await import(`../../supabase/functions/${name}/index.ts`);
}
serve({ port: Number(port), hostname: "127.0.0.1", onListen: () => console.log("ready") }, (request) => {
  const url = new URL(request.url);
  url.pathname = url.pathname.replace(/^\/functions\/v1/, "");
  const handler = handlers.get(url.pathname.split("/")[1]);
  return handler ? handler(new Request(url, request)) : new Response("no such function", { status: 404 });
});
