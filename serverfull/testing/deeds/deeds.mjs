// The deeds for Node.js: `deeds.handler`. The package `serverfull.testing.deeds` says what each of them does.

import { spawn } from "node:child_process";
import { appendFileSync, existsSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

class Refused extends Error {
  name = "Refused";
}

class NotToday extends Error {
  name = "NotToday";
}

let calls = 0;

const { DEEDS_TEXT, DEEDS_STARTS, DEEDS_WAITS, DEEDS_NEEDS } = process.env;
if (DEEDS_TEXT !== undefined) process.stdout.write(`${DEEDS_TEXT}\n`);
if (DEEDS_STARTS !== undefined) appendFileSync(DEEDS_STARTS, "started\n");
while (DEEDS_WAITS !== undefined && !existsSync(DEEDS_WAITS)) await sleep(10);
if (DEEDS_NEEDS !== undefined && !existsSync(DEEDS_NEEDS)) throw new NotToday("not today");

const deeds = {
  echo: ({ value }) => value,
  count: () => ({ calls, pid: process.pid }),
  fail({ message }) {
    throw new Refused(message);
  },
  unwritable() {
    const circle = {};
    circle.circle = circle;
    return circle;
  },
  fill: ({ bytes }) => "x".repeat(bytes - 2),
  write({ text }) {
    process.stdout.write(`out ${text}\n`);
    process.stderr.write(`err ${text}`);
    return null;
  },
  context: (event, context) => ({
    request_id: context.awsRequestId,
    name: context.functionName,
    version: context.functionVersion,
    memory: context.memoryLimitInMB,
    log_group: context.logGroupName,
    log_stream: context.logStreamName,
    arn: context.invokedFunctionArn,
    left: context.getRemainingTimeInMillis(),
    custom: context.clientContext?.custom ?? null,
    env: context.clientContext?.env ?? null,
    installation: context.clientContext?.client?.installation_id ?? null,
    identity: context.identity?.cognitoIdentityId ?? null,
    identity_pool: context.identity?.cognitoIdentityPoolId ?? null,
    tenant: context.tenantId ?? null,
    trace: process.env._X_AMZN_TRACE_ID ?? null,
  }),
  variables: ({ names }) => names.map((name) => process.env[name] ?? null),
  set({ name }) {
    process.env[name] = "changed";
    return null;
  },
  stuck({ text }) {
    process.stdout.write(text);
    for (;;);
  },
  leave: ({ status }) => process.exit(status),
  async vanish({ text }) {
    process.stdout.write(text);
    process.kill(process.pid, "SIGKILL");
    await sleep(60000);
  },
  async grow() {
    for (const held = []; held.length < 256; held.push(Buffer.alloc(4 << 20, "x"))) await sleep(5);
    return null;
  },
  async spawn() {
    const child = spawn("sleep", ["1000"], { detached: true, stdio: "ignore" });
    child.unref();
    return child.pid;
  },
  async meet({ folder, name, count }) {
    process.stdout.write(`met ${name}\n`);
    writeFileSync(path.join(folder, name), "");
    while (readdirSync(folder).length < count) await sleep(10);
    return name;
  },
};

export async function handler(event, context) {
  calls += 1;
  return event?.do === undefined ? event : deeds[event.do](event, context);
}
