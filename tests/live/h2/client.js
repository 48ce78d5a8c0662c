// `client.js PORT LOG` makes the connections that standard input names, four at a time, the exchanges of one side by side;
// inside TLS, or in clear if H2_CLEAR is set.
const http2 = require("http2");
const readline = require("readline");
const { content, logger, numbers, read, sha256 } = require("../tls/common.js");

const port = Number(process.argv[2]);
const log = logger(process.argv[3]);
const scheme = process.env.H2_CLEAR ? "http" : "https";
const options = { ca: read("ca.pem"), servername: "localhost" };

function exchange(session, word) {
  const [method, path, bytes] = word.split(",");
  const [number] = numbers(path);
  const body = content(number, Number(bytes), true);
  const fields = { ":method": method, ":path": path };
  if (body.length) fields["content-type"] = "text/plain";
  if (number % 5 === 1) fields["x-early"] = "1";
  return new Promise((done, failed) => {
    const stream = session.request(fields, { endStream: !body.length });
    const pieces = [];
    let status = 0;
    stream.on("response", (head) => (status = head[":status"]));
    stream.on("data", (piece) => pieces.push(piece));
    stream.on("error", failed);
    stream.on("close", () => {
      const whole = Buffer.concat(pieces);
      const { localAddress, localPort } = session.socket;
      log({ number, status, bytes: whole.length, sha256: sha256(whole), local: `${localAddress}:${localPort}` });
      done();
    });
    if (body.length) stream.end(body);
  });
}

async function connection(line) {
  const words = line.split(" ").slice(1);
  const session = http2.connect(`${scheme}://127.0.0.1:${port}`, options);
  await new Promise((done, failed) => session.once("connect", done).once("error", failed));
  await Promise.all(words.map((word) => exchange(session, word)));
  await new Promise((done) => session.close(done));
}

async function main() {
  const running = new Set();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const one = connection(line).finally(() => running.delete(one));
    running.add(one);
    one.catch((error) => { console.error(line.slice(0, 200), error); process.exit(1); });
    if (running.size >= 4) await Promise.race(running);
  }
  await Promise.all(running);
}
main();
