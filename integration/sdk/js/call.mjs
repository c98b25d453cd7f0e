// Send one command with the JavaScript SDK and print what came as one JSON object.
// node call.mjs ENDPOINT COMMAND INPUT-AS-JSON
import * as lambda from "@aws-sdk/client-lambda";

const [endpoint, command, input] = process.argv.slice(2);
const client = new lambda.LambdaClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
});

const text = (value) => (value == null ? null : Buffer.from(value).toString("utf8"));

try {
  const output = await client.send(new lambda[command](JSON.parse(input)));
  console.log(JSON.stringify({ ...output, Payload: text(output.Payload) }));
} catch (error) {
  console.log(JSON.stringify({
    caught: error.name,
    typed: error instanceof lambda.LambdaServiceException && error.constructor.name === error.name,
    message: error.message,
    status: error.$metadata?.httpStatusCode ?? null,
  }));
}
