// The console as functions on Lambda have it: each call is one line with its time, its invocation and its level, as JSON
// where the function's log is that, and nothing where its level is below the function's.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/nodejs-logging.html

import process from "node:process";
import { format } from "node:util";

import { describe, text } from "./node_api.mjs";

// Taken before the function's code runs, which may put others in their places to trace its own calls.
const { stringify } = JSON;

const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const METHODS = { trace: "TRACE", debug: "DEBUG", info: "INFO", log: "INFO", warn: "WARN", error: "ERROR", fatal: "FATAL" };

function described(error) {
  const { constructor, message, stack, cause } = error;
  const stackTrace = typeof stack === "string" ? stack.split("\n") : [];
  const shown = { errorType: constructor?.name ?? "UnknownError", errorMessage: message, stackTrace };
  return cause === undefined ? shown : { ...shown, cause };
}

function errorsDescribed(_, value) {
  return value instanceof Error ? { ...described(value), ...value } : value;
}

// A lone argument keeps its form, unless JSON cannot have it.
function inJson(said, args) {
  if (args.length === 1) {
    try {
      return stringify({ ...said, message: args[0] }, errorsDescribed);
    } catch {
      return stringify({ ...said, message: format(args[0]) });
    }
  }
  const error = args.slice(1).find((arg) => arg instanceof Error);
  const { errorType, errorMessage, stackTrace } = error === undefined ? {} : described(error);
  return stringify({ ...said, message: format(...args), errorType, errorMessage, stackTrace });
}

// As the line of an error that ended something: what it was given beside its message is often what explains it.
function members(error) {
  const { name, message, code, stack } = error;
  const shown = { errorType: name, errorMessage: message, code, ...error };
  return typeof stack === "string" ? { ...shown, stack: stack.split("\n") } : shown;
}

function inOneText(error) {
  try {
    return stringify(error, (_, value) => (value instanceof Error ? members(value) : value));
  } catch {
    const { errorType, errorMessage, trace } = describe(error);
    return stringify({ errorType, errorMessage, stack: trace });
  }
}

// One line: what follows a newline would be an event of its own where the log goes.
function inText({ timestamp, requestId, level }, args) {
  return `${timestamp}\t${requestId}\t${level}\t${format(...args)}`.replaceAll("\n", "\r");
}

// `current` gives the id of the invocation that runs, and its tenant. Gives what logs an error that ended something.
export function replaceConsole(current) {
  const json = process.env.AWS_LAMBDA_LOG_FORMAT === "JSON";
  const line = json ? inJson : inText;
  const least = json ? LEVELS.indexOf((process.env.AWS_LAMBDA_LOG_LEVEL ?? "").toUpperCase()) : -1;
  for (const [name, level] of Object.entries(METHODS)) {
    console[name] =
      LEVELS.indexOf(level) < least
        ? () => {}
        : (...args) => {
            const said = { timestamp: new Date().toISOString(), level, ...current() };
            process.stdout.write(`${line(said, args)}\n`);
          };
  }
  const say = console.error; // not what the function's code may put there
  return (what, error) => {
    const shown = error instanceof Error ? error : new Error(text(error));
    try {
      say(...(json ? [shown] : [what, `\t${inOneText(shown)}`]));
    } catch {
      say(what, text(describe(error).errorType)); // what the error has cannot even be looked at
    }
  };
}
