// ES modules out of layers: Node.js looks into the folders of NODE_PATH for what is required, and not for what is imported.
// Lambda does so from Node.js 18 on, where a module is not found otherwise.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/nodejs-layers.html

import { existsSync } from "node:fs";
import module from "node:module";
import path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

const MISSING = "ERR_MODULE_NOT_FOUND";

// Only those that Node.js does not find from the code's own folder anyway.
function folders() {
  const root = process.env.LAMBDA_TASK_ROOT || process.cwd();
  const named = (process.env.NODE_PATH ?? "").split(path.delimiter);
  return named.filter(
    (folder) => path.basename(folder) === "node_modules" && path.dirname(folder) !== root && existsSync(folder),
  );
}

// What Node.js would look for from beside such a folder, it looks for in there.
const places = folders().map((folder) => pathToFileURL(path.join(path.dirname(folder), "_.mjs")).href);

function isElsewhere(specifier, error) {
  return error?.code === MISSING && !/^([./#]|[a-z]+:)/i.test(specifier);
}

export async function resolve(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (!isElsewhere(specifier, error)) throw error;
    for (const parentURL of places) {
      try {
        return await next(specifier, { ...context, parentURL });
      } catch (other) {
        if (other?.code !== MISSING) throw other;
      }
    }
    throw error;
  }
}

function resolveAtOnce(specifier, context, next) {
  try {
    return next(specifier, context);
  } catch (error) {
    if (!isElsewhere(specifier, error)) throw error;
    for (const parentURL of places) {
      try {
        return next(specifier, { ...context, parentURL });
      } catch (other) {
        if (other?.code !== MISSING) throw other;
      }
    }
    throw error;
  }
}

// Called before the function's code is loaded. Without layers for Node.js it costs nothing, and before Node.js 22.15 a
// thread, which is all that Node.js has there for it.
export function lookThere() {
  if (places.length === 0) return;
  if (module.registerHooks) module.registerHooks({ resolve: resolveAtOnce });
  else module.register?.(import.meta.url);
}
