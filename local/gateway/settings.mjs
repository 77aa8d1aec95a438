// Everything the gateway is told, once, by the supervisor.
const told = JSON.parse(process.env.SIDEJOB_GATEWAY);

export const settings = Object.freeze({
  port: told.port,
  demoPort: told.demoPort,
  demoFolder: told.demoFolder,
  realtimePort: told.realtimePort,
  url: told.url, // as clients write it; also the issuer of tokens
  databaseUrl: told.databaseUrl,
  objectsUrl: told.objectsUrl,
  systemSchemas: told.systemSchemas, // SQL to run once lite made auth and storage
  functions: told.functions, // name → port
  publishableKey: told.publishableKey,
  secretKey: told.secretKey,
  jwtSecret: told.jwtSecret,
  jsonBytes: 10 * 1024 ** 2, // largest body to REST and Auth
  functionBytes: 32 * 1024 ** 2, // largest body to a function, Cloud Run's own
  objectBytes: 256 * 1024 ** 2, // largest stored object
});
