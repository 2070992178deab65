// Class ids of a mask and values of a confidence picture, at full size.

let worker = null;
let numbered = 0;
const waiting = new Map();

function started() {
  if (worker) return worker;
  worker = new Worker(new URL("./png_worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data: { number, error, ...found } }) => {
    const { done, refused } = waiting.get(number);
    waiting.delete(number);
    if (error) refused(new Error(error));
    else done(found);
  };
  worker.onerror = (event) => {
    for (const { refused } of waiting.values()) refused(new Error(event.message || "it cannot be decoded"));
    waiting.clear();
    worker = null;
  };
  return worker;
}

// {width, height, ids, palette, counts, small} of a PNG; counts: pixels by id; small: {width, height,
// ids} with no side longer than `side`, by nearest neighbour. Raises Error.
export async function pixels(blob, side) {
  const bytes = await blob.arrayBuffer();
  const number = numbered++;
  return new Promise((done, refused) => {
    waiting.set(number, { done, refused });
    started().postMessage({ number, bytes, side }, [bytes]);
  });
}
