// @ts-check
/**
 * A Node.js program that is a device: reports the positions that it reads as lines of JSON, and prints what happens.
 *
 *   DEVICE='{"url": "mqtt://127.0.0.1:1883", "site": "ul", "kind": "person", "id": "…", "secret": "…"}' node program.mjs
 *
 * `http` in DEVICE is an address for HTTP, used instead of MQTT or where MQTT is blocked; `file` keeps fixes on disk;
 * `rules` are those of reports.
 * Each line of the output is a JSON object: `{"reason": …}` for a judged position, `{"status": …}` after a change.
 */
import { createInterface } from "node:readline";
import { Device, FallbackTransport, HttpTransport } from "@headcount/device";
import { MqttTransport } from "@headcount/device/mqtt";
import { FileStorage } from "@headcount/device/node";

const { url, http, file, rules, ...identity } = JSON.parse(process.env.DEVICE ?? "");
const mqtt = url && new MqttTransport({ ...identity, url });
const web = http && new HttpTransport({ ...identity, url: http });
const device = new Device({
  transport: mqtt && web ? new FallbackTransport(mqtt, web) : (mqtt ?? web),
  storage: file && new FileStorage(file),
  rules,
});

/** @param {object} line */
const print = (line) => console.log(JSON.stringify(line));

device.onChange((status) => print({ status }));
await device.start();
print({ node: process.version });
for await (const line of createInterface({ input: process.stdin })) {
  const reason = await device.report(JSON.parse(line));
  print({ reason: reason ?? null });
}
await device.stop();
