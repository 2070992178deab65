// A receiver in JavaScript: the standard's own library verifies what maskq posts.
//
//   npm ci && MASKQ_WEBHOOK_SECRET=whsec_… node receiver.mjs [PORT]
//
// Prints one line of JSON per event; a delivery that is not ours, altered or too old gets a 400.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

// While a secret changes, both are in the variable, separated by a space.
const receivers = process.env.MASKQ_WEBHOOK_SECRET.split(" ").map((secret) => new Webhook(secret));

function verified(body, headers) {
  for (const [number, receiver] of receivers.entries()) {
    try {
      return receiver.verify(body, headers);
    } catch (error) {
      if (number === receivers.length - 1) throw error;
    }
  }
}

async function text(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString("utf8");
}

const server = createServer(async (request, response) => {
  try {
    const body = await text(request);
    const event = verified(body, request.headers);
    console.log(JSON.stringify({ id: event.id, type: event.type, subject: event.subject }));
    response.writeHead(204).end();
  } catch (error) {
    console.error(`refused: ${error.message}`);
    response.writeHead(400).end(error.message);
  }
});

server.listen(Number(process.argv[2] ?? 8099), "127.0.0.1", () => {
  console.error(`listening on http://127.0.0.1:${server.address().port}/`);
});
