// A round trip with ioredis. Prints "ok" and its version.

const assert = require("node:assert");
const Redis = require("ioredis");

async function main() {
  const [host, port] = process.argv[2].split(":");
  const client = new Redis({ host, port: Number(port), connectionName: "ioredis-test", maxRetriesPerRequest: 2 });
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.client("GETNAME"), "ioredis-test");
  const bytes = Buffer.from([0, 255, 13, 10, 36]);
  assert.equal(await client.set("js:bytes", bytes), "OK");
  assert.deepEqual(await client.getBuffer("js:bytes"), bytes);
  assert.equal(await client.get("js:missing"), null);
  assert.equal(await client.set("js:bytes", "x", "NX"), null);
  assert.equal(await client.incrby("js:number", 7), 7);
  const replies = await client.pipeline().set("js:p", "1").incr("js:p").get("js:p").del("js:p").get("js:p").exec();
  assert.deepEqual(replies, [[null, "OK"], [null, 2], [null, "2"], [null, 1], [null, null]]);
  await client.mset({ "js:a": 1, "js:b": 2 });
  assert.deepEqual(await client.mget("js:a", "js:c", "js:b"), ["1", null, "2"]);
  assert.equal(await client.expire("js:a", 100), 1);
  const keys = new Set();
  for await (const page of client.scanStream({ match: "js:*", count: 3 })) page.forEach((key) => keys.add(key));
  assert.equal(keys.size, 4);
  await assert.rejects(client.lpush("js:list", 1), /unknown command/);
  await client.quit();
  console.log("ok", require("ioredis/package.json").version);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
