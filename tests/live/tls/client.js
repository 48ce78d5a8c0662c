// `client.js PORT LOG` makes the connections that standard input names, eight at a time, an agent for each.
const https = require("https");
const readline = require("readline");
const { content, logger, numbers, read, sha256 } = require("./common.js");

const port = Number(process.argv[2]);
const log = logger(process.argv[3]);
const options = { ca: read("ca.pem"), cert: read("client.pem"), key: read("client.key"), keepAlive: true, maxSockets: 1 };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function exchange(agent, reading, word) {
  const [method, path, bytes] = word.split(",");
  const [number, size] = numbers(path);
  const body = content(number, Number(bytes), true);
  const headers = body.length ? { "Content-Type": "text/plain", "Content-Length": body.length } : {};
  const request = https.request({ host: "127.0.0.1", port, method, path, agent, headers });
  const answered = new Promise((done, failed) => request.once("response", done).once("error", failed));
  request.end(body);
  const response = await answered;
  const local = `${response.socket.localAddress}:${response.socket.localPort}`;
  const pieces = [];
  let have = 0;
  if (reading === "partial") {
    // by hand: what is not asked for stays in the stream's buffer, and then in the socket's
    for (let ended = false; !ended;) {
      await new Promise((done) => {
        response.once("readable", done);
        response.once("end", () => done(ended = true));
      });
      for (let piece; (piece = response.read(have < 2000 ? 7 : 90) ?? response.read()) !== null;) {
        pieces.push(piece);
        have += piece.length;
      }
    }
  } else {
    try {
      for await (const piece of response) {
        if (reading === "stalled" && !have && size > 1 << 20) await sleep(400);
        pieces.push(piece);
        have += piece.length;
        if (reading === "abandoned" && have > 100000) break; // which destroys the socket
      }
    } catch (error) {
      if (reading !== "abandoned") throw error;
    }
  }
  const whole = Buffer.concat(pieces);
  log({ number, status: response.statusCode, bytes: whole.length, sha256: sha256(whole), local });
}

async function connection(line) {
  const [reading, ...words] = line.split(" ");
  const agent = new https.Agent(options);
  for (let at = 0; at < words.length; at++) {
    const last = at === words.length - 1;
    await exchange(agent, reading === "abandoned" && !last ? "whole" : reading, words[at]);
  }
  agent.destroy();
}

async function main() {
  const running = new Set();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const one = connection(line).finally(() => running.delete(one));
    running.add(one);
    one.catch((error) => { console.error(line.slice(0, 200), error); process.exit(1); });
    if (running.size >= 8) await Promise.race(running);
  }
  await Promise.all(running);
}
main();
