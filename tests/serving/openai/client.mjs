// What OpenAI's JavaScript client makes of the server's answers, as one line of JSON.
import OpenAI, { toFile } from "openai";
import { readFile } from "node:fs/promises";

const [address, file] = process.argv.slice(2);
const client = new OpenAI({ baseURL: address, apiKey: "-", maxRetries: 2 });
const found = {};

const made = await client.images.generate({ prompt: "a fox", n: 2, size: "96x64", seed: 5 });
found.images = made.data.map((one) => one.b64_json.slice(0, 8));
found.size = made.size;

const { response } = await client.images
  .generate({ prompt: "a fox", seed: "9007199254740993" })
  .withResponse();
found.seeds = response.headers.get("x-seeds");

found.events = [];
const stream = await client.images.generate({ prompt: "a fox", stream: true, partial_images: 2 });
for await (const event of stream) found.events.push(event.type);

const image = await toFile(await readFile(file), "image.png", { type: "image/png" });
const edited = await client.images.edit({ image, prompt: "a hat", stages: { 64: { steps: 3 } } });
found.edited = edited.size;
const several = await client.images.edit({ image: [image], prompt: "a hat", n: 2 });
found.several = several.data.length;

try {
  await client.images.generate({ prompt: "a fox", n: 11 });
} catch (error) {
  found.error = [error.status, error.param, error.type, error instanceof OpenAI.BadRequestError];
}
try {
  const failing = await client.images.generate({ prompt: "fail by memory", stream: true });
  for await (const event of failing) found.events.push(event.type);
} catch (error) {
  found.failed = error.message;
}

const aborting = await client.images.generate({ prompt: "wait", stream: true, partial_images: 1 });
for await (const event of aborting) {
  found.aborted = event.type;
  break;
}
found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);
console.log(JSON.stringify(found));
