// Response streaming for Node.js: the stream that a handler writes its response to, and what handlers make it with.
//
// AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html

import { Writable } from "node:stream";

import { answerTo, describe, inHeader, open, problem } from "./node_api.mjs";

const { stringify } = JSON;

export const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
export const WATER_MARK = Symbol.for("aws.lambda.runtime.handler.streaming.highWaterMark");

export class ResponseStream extends Writable {
  #id;
  #call;
  #prelude;
  #type = "application/octet-stream";
  answer;

  constructor(id, highWaterMark) {
    super({ highWaterMark, decodeStrings: true });
    this.#id = id;
  }

  get started() {
    return this.#call !== undefined;
  }

  setContentType(type) {
    if (this.started) {
      throw problem("Runtime.InvalidStreamingOperation", "Cannot set content-type, too late.");
    }
    this.#type = type;
  }

  begin(prelude) {
    this.#prelude = prelude;
  }

  write(piece, ...more) {
    const isBytes = typeof piece === "string" || piece instanceof Uint8Array;
    return super.write(isBytes ? piece : stringify(piece), ...more);
  }

  fail(error) {
    const described = describe(error);
    const call = this.#open();
    call.addTrailers({
      "Lambda-Runtime-Function-Error-Type": inHeader(described),
      "Lambda-Runtime-Function-Error-Body": Buffer.from(stringify(described)).toString("base64"),
    });
    call.end();
  }

  _write(piece, _, done) {
    this.#open().write(piece, done);
  }

  _final(done) {
    this.#open().end(done);
  }

  #open() {
    if (!this.started) {
      this.#call = open("POST", `invocation/${this.#id}/response`, {
        "Content-Type": this.#type,
        "Lambda-Runtime-Function-Response-Mode": "streaming",
        "Transfer-Encoding": "chunked",
        Trailer: "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
      });
      this.answer = answerTo(this.#call);
      this.answer.catch(() => {}); // whoever waits for it hears of it
      if (this.#prelude !== undefined) this.#call.write(this.#prelude);
    }
    return this.#call;
  }
}

globalThis.awslambda = {
  streamifyResponse(handler, options) {
    handler[STREAMING] = "response";
    if (typeof options?.highWaterMark === "number") handler[WATER_MARK] = options.highWaterMark;
    return handler;
  },
  HttpResponseStream: {
    from(stream, prelude) {
      stream.setContentType("application/vnd.awslambda.http-integration-response");
      stream.begin(Buffer.concat([Buffer.from(stringify(prelude)), Buffer.alloc(8)]));
      return stream;
    },
  },
};
