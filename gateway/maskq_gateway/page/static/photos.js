// Images that were sent from this tab, by job: the API has no route for them.

const files = new Map();
const urls = new Map();

export function keep(id, file) {
  if (file) files.set(id, file);
}

export const fileOf = (id) => files.get(id) ?? null;

// A URL of the image as long as this tab is open; null: it was not sent from here.
export function urlOf(id) {
  const file = files.get(id);
  if (!file) return null;
  if (!urls.has(file)) urls.set(file, URL.createObjectURL(file));
  return urls.get(file);
}
