// Elements for pictures of the viewer.

import { el } from "./dom.js";

// An image element. It removes itself if the browser cannot show the file.
export function still(url) {
  return el("img", {
    class: "still",
    decoding: "async",
    src: url,
    alt: "The image",
    on: { error: (event) => event.currentTarget.remove() },
  });
}

// The decoded image; null if the browser cannot decode it.
export async function loaded(url) {
  const image = new Image();
  image.className = "photo";
  image.decoding = "async"; // 24 megapixels are not decoded on the page's thread
  image.src = url;
  return image.decode().then(
    () => image,
    () => null,
  );
}
