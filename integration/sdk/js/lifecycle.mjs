// Deploy a function, wait for it, call it, change it, list it and delete it; print what came as one JSON object.
// node lifecycle.mjs ENDPOINT NAME FIRST-PACKAGE SECOND-PACKAGE
import { readFileSync } from "node:fs";
import * as lambda from "@aws-sdk/client-lambda";

const [endpoint, FunctionName, first, second] = process.argv.slice(2);
const client = new lambda.LambdaClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "123456789012", secretAccessKey: "test" },
  maxAttempts: 1,
});
const waiting = { client, minDelay: 1, maxDelay: 1, maxWaitTime: 20 };

const send = (command, input = {}) => client.send(new lambda[command]({ FunctionName, ...input }));

const invoke = async (Qualifier) => {
  const output = await send("InvokeCommand", { Qualifier, Payload: JSON.stringify({ name: "é" }) });
  return JSON.parse(output.Payload.transformToString());
};

const names = async () => {
  const found = [];
  for await (const page of lambda.paginateListFunctions({ client, pageSize: 1 }, {})) {
    found.push(...page.Functions.map((each) => each.FunctionName));
  }
  return found;
};

const caught = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    const typed = error instanceof lambda.LambdaServiceException && error.constructor.name === error.name;
    return { name: error.name, typed, status: error.$metadata?.httpStatusCode, message: error.message };
  }
};

const created = await send("CreateFunctionCommand", {
  Runtime: "python3.12",
  Role: "arn:aws:iam::123456789012:role/any",
  Handler: "greet.handler",
  Code: { ZipFile: readFileSync(first) },
  Environment: { Variables: { GREETING: "Hello" } },
  Tags: { team: "a" },
});
const active = await lambda.waitUntilFunctionActiveV2(waiting, { FunctionName });
const greeted = await invoke();
const again = await caught(send("CreateFunctionCommand", {
  Runtime: "python3.12",
  Role: "arn:aws:iam::123456789012:role/any",
  Handler: "greet.handler",
  Code: { ZipFile: readFileSync(first) },
}));
const published = await send("PublishVersionCommand", { Description: "the first" });
await lambda.waitUntilPublishedVersionActive(waiting, { FunctionName, Qualifier: published.Version });
const alias = await send("CreateAliasCommand", { Name: "live", FunctionVersion: published.Version });

await send("UpdateFunctionCodeCommand", { ZipFile: readFileSync(second) });
await lambda.waitUntilFunctionUpdatedV2(waiting, { FunctionName });
await send("UpdateFunctionConfigurationCommand", { Environment: { Variables: { GREETING: "Bye" } }, MemorySize: 256 });
const updated = await lambda.waitUntilFunctionUpdatedV2(waiting, { FunctionName });

const changed = await invoke();
const kept = await invoke("live");
const read = await send("GetFunctionCommand");
const downloaded = Buffer.from(await (await fetch(read.Code.Location)).arrayBuffer());
const refused = await caught(send("UpdateFunctionConfigurationCommand", { MemorySize: 1 }));
const listed = await names();
const deleted = await send("DeleteFunctionCommand");
const gone = await caught(send("GetFunctionCommand"));

console.log(JSON.stringify({
  created: { arn: created.FunctionArn, state: created.State, status: created.$metadata.httpStatusCode },
  active: active.state,
  greeted,
  again,
  alias: alias.AliasArn,
  updated: updated.state,
  changed,
  kept,
  read: { memory: read.Configuration.MemorySize, tags: read.Tags },
  downloaded: downloaded.equals(readFileSync(second)),
  refused,
  listed,
  deleted: deleted.$metadata.httpStatusCode,
  gone,
}));
