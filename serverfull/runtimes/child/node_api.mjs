// The Runtime API as the runtime client for Node.js calls it, and errors as AWS's client for Node.js describes them.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

import http from "node:http";
import process from "node:process";

// Taken before the function's code runs, which may put others in their places to trace its own calls.
const { Agent, request: openRequest } = http;
const { stringify } = JSON;

const LONGEST_TEXT = 262144;

// The port that the host gave this process.
const [host, port] = (process.env.AWS_LAMBDA_RUNTIME_API ?? "").split(":");
const agent = new Agent({ keepAlive: true });

export function open(method, place, headers) {
  return openRequest({ host, port, agent, method, path: `/2018-06-01/runtime/${place}`, headers });
}

export function answerTo(call) {
  return new Promise((resolve, reject) => {
    call.on("error", reject);
    call.on("response", (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("error", reject);
      answer.on("end", () =>
        resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(pieces).toString() }),
      );
    });
  });
}

export async function send(method, place, body = "", headers = {}) {
  for (;;) {
    const call = open(method, place, { ...headers, "Content-Length": Buffer.byteLength(body) });
    const answer = answerTo(call);
    call.end(body);
    try {
      return await answer;
    } catch (error) {
      // The connection was closed while nothing went over it: nobody has read this yet.
      if (!call.reusedSocket || !["ECONNRESET", "EPIPE"].includes(error.code)) throw error;
    }
  }
}

export function inHeader({ errorType }) {
  return errorType.slice(0, 1000).replace(/[^\x20-\x7e]/g, "?");
}

export function sendError(place, error) {
  const described = describe(error);
  const headers = { "Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": inHeader(described) };
  return send("POST", place, stringify(described), headers);
}

export function problem(name, message, stack) {
  const error = new Error(message);
  Object.defineProperty(error, "name", { value: name }); // of no interest to who lists what the error has
  error.stack = stack ?? `${name}: ${message}`;
  return error;
}

export function text(value) {
  try {
    return String(value);
  } catch {
    return typeof value;
  }
}

function looksLikeError(value) {
  return ["name", "message", "stack"].every((member) => typeof value?.[member] === "string");
}

export function describe(error) {
  try {
    if (looksLikeError(error)) {
      const [errorType, errorMessage, stack] = [error.name, error.message, error.stack];
      const trace = stack.slice(0, LONGEST_TEXT).split("\n");
      return { errorType, errorMessage: errorMessage.slice(0, LONGEST_TEXT), trace };
    }
    return { errorType: typeof error, errorMessage: error.toString().slice(0, LONGEST_TEXT), trace: [] };
  } catch {
    return { errorType: "handled", errorMessage: "name, message or stack of the error cannot be read", trace: [] };
  }
}
