/** The device's loop without a network, and its file. */
import { once } from "node:events";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FAR, INSIDE, SITE, TestTransport } from "../test/test-transport.js";
import { Device } from "./device.js";
import { FallbackTransport } from "./fallback.js";
import { HttpTransport } from "./http.js";
import { FileStorage } from "./node.js";
import type { DevicePosition } from "./positions.js";
import { RetryLaterError } from "./transport.js";

const NOW_S = 1_795_532_400;
let folder = "";

beforeEach(() => {
  vi.useFakeTimers({ now: NOW_S * 1000, toFake: ["setTimeout", "clearTimeout", "Date"] });
  folder = mkdtempSync(join(tmpdir(), "headcount-device-"));
});

afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true });
});

function at({ latitude, longitude }: { latitude: number; longitude: number }, afterS = 0): DevicePosition {
  return { t: NOW_S + afterS, lat: latitude, lon: longitude, acc: 5 };
}

async function started(transport: TestTransport): Promise<Device> {
  const device = new Device({ transport, rules: { intervalS: 1, gapS: 1 } });
  await device.start();
  await vi.advanceTimersByTimeAsync(0);
  return device;
}

const command = (name: string, fields: object) =>
  JSON.stringify({ id: name, command: name, expires: NOW_S + 3_600, ...fields });

test("positions from before the site is known are judged again, and those off site are never sent", async () => {
  const transport = new TestTransport(null);
  const device = await started(transport);
  await device.report(at(FAR));
  await device.report(at(INSIDE, 300));
  expect(transport.sent).toEqual([]);
  expect(device.status.waiting).toBe(2);
  transport.events?.site("[]");
  expect(device.status.hasSite).toBe(false);
  transport.events?.site(JSON.stringify(SITE));
  await vi.advanceTimersByTimeAsync(0);
  expect(transport.sent).toEqual([`{"tst":${NOW_S + 300},"lat":52.675,"lon":-8.575,"acc":5}`]);
  await device.stop();
});

test("during a pause nothing is reported, and no waiting fix is sent", async () => {
  const transport = new TestTransport(null);
  const device = await started(transport);
  await device.report(at(INSIDE));
  transport.events?.command(command("pause", { until: NOW_S + 60 }));
  expect(transport.answers).toEqual(['{"id":"pause","ok":true}']);
  transport.events?.site(JSON.stringify(SITE));
  expect(await device.report(at(INSIDE, 30))).toBeUndefined();
  await vi.advanceTimersByTimeAsync(59_000);
  expect(transport.sent).toEqual([]);
  await vi.advanceTimersByTimeAsync(2_000);
  expect(transport.sent).toHaveLength(0); // the fix was judged again with the site, within the pause
  expect(await device.report(at(INSIDE, 61))).toBe("zones");
  await vi.advanceTimersByTimeAsync(0);
  expect(transport.sent).toHaveLength(1);
  await device.stop();
});

test("a repeated command is answered again, and not executed again", async () => {
  const transport = new TestTransport();
  const texts: string[] = [];
  const device = new Device({ transport, showMessage: (text) => texts.push(text) > 0 });
  await device.start();
  await vi.advanceTimersByTimeAsync(0);
  for (const _ of [1, 2]) transport.events?.command(command("message", { text: "hello" }));
  transport.events?.command(command("expired", { command: "message", expires: NOW_S - 1 }));
  transport.events?.command("{");
  transport.events?.command(command("fly", {}));
  transport.events?.command(command("interval", {}));
  expect(texts).toEqual(["hello"]);
  expect(transport.answers).toEqual([
    '{"id":"message","ok":true}',
    '{"id":"message","ok":true}',
    '{"id":"fly","ok":false,"text":"unknown command"}',
    '{"id":"interval","ok":false,"text":"a parameter is missing"}',
  ]);
  await device.stop();
});

test("the device waits for as long as the server asks", async () => {
  const transport = new TestTransport();
  transport.failures.push(new RetryLaterError("busy", 100));
  const device = await started(transport);
  expect(device.status).toMatchObject({ connection: "waiting", problem: "busy" });
  await vi.advanceTimersByTimeAsync(99_000);
  expect(transport.attempts).toBe(1);
  await vi.advanceTimersByTimeAsync(2_001);
  expect(device.status).toMatchObject({ connection: "connected", problem: "" });
  await device.stop();
});

test("a fix that headcount will never store is not sent again", async () => {
  const transport = new TestTransport();
  transport.refused = 1;
  const device = await started(transport);
  await device.report(at(INSIDE));
  await vi.advanceTimersByTimeAsync(0);
  expect(device.status).toMatchObject({ waiting: 0, acknowledged: 0, refused: 1 });
  await device.stop();
});

test("a listener that throws does not end the device", async () => {
  const thrown: unknown[] = [];
  vi.stubGlobal("queueMicrotask", (rethrow: () => void) => {
    try {
      rethrow();
    } catch (error) {
      thrown.push(error);
    }
  });
  const transport = new TestTransport();
  const device = await started(transport);
  device.onChange(() => {
    throw new Error("a defect");
  });
  await device.report(at(INSIDE));
  await vi.advanceTimersByTimeAsync(0);
  expect(transport.sent).toHaveLength(1);
  expect(thrown.length).toBeGreaterThan(0);
  await device.stop();
  vi.unstubAllGlobals();
});

test("the second transport is used until the first is tried again", async () => {
  const [first, second] = [new TestTransport(), new TestTransport()];
  first.failures.push(new Error("blocked"));
  const device = new Device({ transport: new FallbackTransport(first, second) });
  await device.start();
  await vi.advanceTimersByTimeAsync(0);
  await device.report(at(INSIDE));
  await vi.advanceTimersByTimeAsync(0);
  expect([first.sent.length, second.sent.length]).toEqual([0, 1]);
  await vi.advanceTimersByTimeAsync(602_000);
  await device.report(at(INSIDE, 600));
  await vi.advanceTimersByTimeAsync(0);
  expect([first.sent.length, second.sent.length]).toEqual([1, 1]);
  await device.stop();
});

test("a server that accepts connections and does not answer is given up after 15 s", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const options = { site: "campus", kind: "person", id: "x", secret: "y" } as const;
  const transport = new HttpTransport({ url: `http://127.0.0.1:${port}`, ...options });
  const opened = transport.open({ site: () => undefined, command: () => undefined, closed: () => undefined });
  const failed = expect(opened).rejects.toThrow("no answer");
  const [socket] = (await once(server, "connection")) as [Socket];
  await vi.advanceTimersByTimeAsync(15_000);
  await failed;
  socket.destroy();
  server.close();
});

test("a file keeps fixes, site and state, is private, and survives a line that a crash has cut", async () => {
  vi.useRealTimers();
  const path = join(folder, "fixes");
  const transport = new TestTransport();
  transport.send = async () => {
    throw new Error("no network");
  };
  const device = new Device({ transport, storage: new FileStorage(path), rules: { intervalS: 1, gapS: 1 } });
  await device.start();
  await vi.waitFor(() => expect(device.status.hasSite).toBe(true));
  await device.report(at(INSIDE));
  await device.report(at(INSIDE, 2));
  await device.stop(0);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  appendFileSync(path, '{"fix":{"number":9,');
  const offline = new TestTransport(null);
  const restarted = new Device({
    transport: offline,
    storage: new FileStorage(path),
    rules: { intervalS: 1, gapS: 1 },
  });
  await restarted.start();
  await vi.waitFor(() => expect(offline.sent).toHaveLength(2));
  expect(await restarted.report(at(INSIDE, 2))).toBeUndefined();
  expect(await restarted.report(at(FAR, 400))).toBe("left");
  await vi.waitFor(() => expect(restarted.status.waiting).toBe(0));
  await restarted.stop();
  expect(await new FileStorage(path).load()).toMatchObject({ fixes: [], saved: { site: JSON.stringify(SITE) } });
  expect(readFileSync(path, "utf8").split("\n")).toHaveLength(2);
});
