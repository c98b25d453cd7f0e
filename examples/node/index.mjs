// A function for Node.js: what it returns is its result, and what it throws a function error.

export const handler = async (event, context) => {
  console.log("greeting", event.name);
  if (!event.name) throw new TypeError("who is to be greeted?");
  return { greeting: `Hello ${event.name}!`, from: context.functionName };
};
