// The runtime client for Node.js 16 and newer, with nothing but Node's own modules: `node node_client.mjs HANDLER`.
//
// The process runtime starts it in the folder of the function's package, with AWS's variables, AWS_LAMBDA_RUNTIME_API
// among them. It loads the handler, then takes one invocation after the other. Handlers may be CommonJS or ES modules,
// async, with a callback, or streaming; AWS's own client is the model for what they see and for what becomes of errors.
// Left out: TypeScript files, which AWS loads from Node.js 24 on.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";
import { finished } from "node:stream/promises";
import { pathToFileURL } from "node:url";

import { problem, send, sendError, text } from "./node_api.mjs";
import { replaceConsole } from "./node_console.mjs";
import { lookThere } from "./node_paths.mjs";
import { ResponseStream, STREAMING, WATER_MARK } from "./node_stream.mjs";

// Taken before the function's code runs, which may put others in their places to trace its own calls.
const { parse, stringify } = JSON;
const afterwards = setImmediate;
const require = createRequire(import.meta.url);

const TRACE_FIELDS = ["traceparent", "tracestate", "baggage"];

// From Node.js 24 on there are no callbacks, and what a handler returns counts without a promise too.
const named = /nodejs(\d+)\.x$/.exec(process.env.AWS_EXECUTION_ENV ?? "");
const modern = Number(named ? named[1] : process.versions.node.split(".")[0]) >= 24;

// ------------------------------------------------------------------------------------------- errors that nobody caught

// Until what has been thrown or rejected by now, and was caught by nobody, has been reported.
function noticed() {
  return new Promise((resolve) => afterwards(resolve));
}

let current; // the id of the invocation that runs, or of the last one
let tenantId; // likewise
const log = replaceConsole(() => ({ requestId: current, tenantId }));
let ending = false;

async function end(what, error, status) {
  if (ending) return;
  ending = true;
  log(what, error);
  try {
    await sendError(current === undefined ? "init/error" : `invocation/${current}/error`, error);
  } finally {
    process.exit(status);
  }
}

process.on("uncaughtException", (error) => end("Uncaught Exception", error, 129));
process.on("unhandledRejection", (reason, promise) => {
  const error = problem("Runtime.UnhandledPromiseRejection", text(reason));
  end("Unhandled Promise Rejection", Object.assign(error, { reason, promise }), 128);
});

// ---------------------------------------------------------------------------------------------------- loading the code

function isInModulePackage(folder) {
  for (; !folder.endsWith("/node_modules"); folder = path.dirname(folder)) {
    const file = path.join(folder, "package.json");
    if (existsSync(file)) {
      try {
        return parse(readFileSync(file, "utf-8")).type === "module";
      } catch {
        return false;
      }
    }
    if (folder === path.dirname(folder)) return false;
  }
  return false;
}

async function loadModule(root, folder, name) {
  const file = path.resolve(root, folder, name);
  const js = isInModulePackage(path.dirname(file)) ? importFile : require;
  const ways = [["", require], [".js", js], [".mjs", importFile], [".cjs", require]];
  for (const [suffix, way] of ways) {
    if (existsSync(file + suffix)) return way(file + suffix);
  }
  return require(require.resolve(name, { paths: [root, path.resolve(root, folder)] }));
}

function importFile(file) {
  return import(pathToFileURL(file).href);
}

async function load(root, handler) {
  if (handler.includes("..")) {
    const hint = "Use absolute paths when specifying root directories in handler names.";
    throw problem("Runtime.MalformedHandlerName", `'${handler}' is not a valid handler name. ${hint}`);
  }
  const split = /^(.*\/)?([^/.]*)\.([^/]*)$/.exec(handler);
  if (split === null) throw problem("Runtime.MalformedHandlerName", "Bad handler");
  const [, folder = "", name, members] = split;
  let found;
  try {
    found = await loadModule(root, folder, name);
  } catch (error) {
    if (error instanceof SyntaxError) throw problem("Runtime.UserCodeSyntaxError", text(error), error.stack);
    if (error?.code === "MODULE_NOT_FOUND") throw problem("Runtime.ImportModuleError", text(error));
    throw error;
  }
  for (const member of members.split(".")) found = found && found[member];
  if (!found) throw problem("Runtime.HandlerNotFound", `${handler} is undefined or not exported`);
  if (typeof found !== "function") throw problem("Runtime.HandlerNotFound", `${handler} is not a function`);
  if (modern && found.length >= 3 && !found[STREAMING]) {
    const what = "AWS Lambda has removed support for callback-based function handlers starting with Node.js 24.";
    throw problem("Runtime.CallbackHandlerDeprecated", `ERROR: ${what} Make the handler async.`);
  }
  return found;
}

// --------------------------------------------------------------------------------------------------------- the context

function header(headers, name) {
  return headers[`lambda-runtime-${name}`];
}

function decoded(headers, name, label) {
  const sent = header(headers, name);
  if (!sent) return undefined;
  try {
    return parse(sent);
  } catch (error) {
    throw new Error(`Cannot parse ${label} as json: ${error}`);
  }
}

function contextOf(headers) {
  const deadline = Number(header(headers, "deadline-ms"));
  const clientContext = decoded(headers, "client-context", "ClientContext");
  const trace = clientContext?.w3c ?? {};
  const sent = TRACE_FIELDS.filter((field) => typeof trace[field] === "string");
  return {
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext,
    identity: decoded(headers, "cognito-identity", "CognitoIdentity"),
    invokedFunctionArn: header(headers, "invoked-function-arn"),
    awsRequestId: header(headers, "aws-request-id"),
    tenantId: header(headers, "aws-tenant-id"),
    xRayTraceId: header(headers, "trace-id"),
    getRemainingTimeInMillis: () => deadline - Date.now(),
    w3c: () => Object.freeze(Object.fromEntries(sent.map((field) => [field, trace[field]]))),
  };
}

// --------------------------------------------------------------------------------------------------- running a handler

let whenIdle; // what is to be done when nothing is left that could go on by itself
process.on("beforeExit", () => {
  const act = whenIdle;
  whenIdle = undefined;
  act?.();
});

function neverSettled() {
  return problem("Runtime.NodeJsExit", "The handler waits for a promise that nothing is left to settle.");
}

// Nothing is settled by a promise that nobody resolves, so this notices when the process would end.
function orIdle(promise) {
  return new Promise((resolve, reject) => {
    whenIdle = () => reject(neverSettled());
    promise.then(resolve, reject);
  });
}

function runClassic(handler, event, context) {
  return new Promise((resolve, reject) => {
    let settled = false;
    let waits = true;
    const settle = (error, result, idleFirst) => {
      if (settled) return;
      settled = true;
      whenIdle = undefined;
      if (error !== undefined && error !== null) reject(error);
      else if (idleFirst) whenIdle = () => resolve(result);
      else resolve(result);
    };
    Object.defineProperty(context, "callbackWaitsForEmptyEventLoop", {
      get: () => waits,
      set: (value) => (waits = Boolean(value)),
      enumerable: true,
      configurable: true,
    });
    context.done = (error, result) => settle(error, result, false);
    context.succeed = (result) => settle(null, result, false);
    context.fail = (error) => settle(error ?? "handled", null, false);
    const isAsync = handler.constructor?.name === "AsyncFunction";
    whenIdle = () => settle(isAsync ? neverSettled() : null, null, false);
    try {
      const returned = handler(event, context, (error, result) => settle(error, result, waits));
      if (typeof returned?.then === "function") returned.then(context.succeed, context.fail);
    } catch (error) {
      settle(error ?? "handled", null, false);
    }
  });
}

function serialised(result) {
  try {
    return stringify(result) ?? "null";
  } catch {
    throw problem(modern ? "Runtime.JSONStringifyError" : "Error", "Unable to stringify response body");
  }
}

async function runBuffered(handler, event, context) {
  const running = modern ? orIdle((async () => handler(event, context))()) : runClassic(handler, event, context);
  const body = serialised(await running);
  whenIdle = undefined;
  await noticed();
  if (ending) return; // what nobody caught is the answer
  await send("POST", `invocation/${context.awsRequestId}/response`, body, { "Content-Type": "application/json" });
}

async function runStreaming(handler, event, context) {
  const stream = new ResponseStream(context.awsRequestId, handler[WATER_MARK]);
  try {
    const returned = handler(event, stream, context);
    if (typeof returned?.then !== "function") throw new Error("Streaming does not support non-async handlers.");
    await orIdle(returned);
    if (!stream.writableEnded) throw new Error("Response stream is not finished.");
    await finished(stream);
    await stream.answer;
  } catch (error) {
    if (!stream.started || ending) throw error;
    log("Invoke Error", error);
    stream.fail(error);
    await stream.answer;
  }
  whenIdle = undefined;
}

// ------------------------------------------------------------------------------------------------------------ the loop

async function runOne(handler, { headers, body }) {
  current = header(headers, "aws-request-id");
  tenantId = header(headers, "aws-tenant-id");
  const traceId = header(headers, "trace-id");
  if (traceId) process.env._X_AMZN_TRACE_ID = traceId;
  else delete process.env._X_AMZN_TRACE_ID;
  try {
    const [event, context] = [parse(body), contextOf(headers)];
    await (handler[STREAMING] ? runStreaming : runBuffered)(handler, event, context);
  } catch (error) {
    whenIdle = undefined;
    if (ending) return;
    log("Invoke Error", error);
    await sendError(`invocation/${current}/error`, error);
  }
}

async function next() {
  const answer = await send("GET", "invocation/next");
  if (answer.status !== 200) throw new Error(`the Runtime API answered ${answer.status}`);
  return answer;
}

async function main() {
  let handler;
  lookThere();
  try {
    handler = await load(process.env.LAMBDA_TASK_ROOT || process.cwd(), process.argv[2] ?? "");
  } catch (error) {
    await end("Uncaught Exception", error, 129);
    return;
  }
  await noticed();
  while (!ending) await runOne(handler, await next());
}

main().catch((error) => {
  process.stderr.write(`the runtime client cannot go on: ${text(error)}\n`);
  process.exit(1);
});
