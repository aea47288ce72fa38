// The connection to the server: updates one way, what this page looks at the other.

const RETRY_MS = 1500;

/**
 * Receives updates for as long as the page is open, also after the server was away.
 * @param onUpdate called with each update, whose new pictures have their image in `frame`
 * @param onClose called with the server's reason, or an empty text
 * @returns a function that tells the server what to send: {camera: number} or {tiles: pixels of each one's width}
 */
export function openUpdates(onUpdate, onClose) {
  let socket = null;
  let looksAt = ""; // as the server was told; it starts with what it thinks best

  function connect() {
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/updates`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = async ({ data, target }) => {
      onUpdate(await decode(data));
      target.send("next"); // ready for another one
    };
    socket.onclose = ({ reason }) => {
      looksAt = "";
      onClose(reason);
      setTimeout(connect, RETRY_MS);
    };
  }
  connect();

  return (what) => {
    const text = JSON.stringify(what);
    if (socket.readyState !== WebSocket.OPEN || text === looksAt) return;
    looksAt = text;
    socket.send(text);
  };
}

/** The update in a message: a length, a JSON text, and the JPEGs of its pictures in their order. */
async function decode(data) {
  const length = new DataView(data).getUint32(0);
  const update = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const pictures = (update.tiles ?? [update]).map(({ picture }) => picture).filter(Boolean);
  let start = 4 + length;
  for (const picture of pictures) {
    const jpeg = new Blob([new Uint8Array(data, start, picture.bytes)], { type: "image/jpeg" });
    picture.frame = await createImageBitmap(jpeg);
    start += picture.bytes;
  }
  return update;
}
