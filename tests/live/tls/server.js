// `server.js LOG` prints its port, then serves until killed.
const https = require("https");
const { Readable } = require("stream");
const { content, logger, numbers, read, sha256 } = require("./common.js");

const log = logger(process.argv[2]);
const options = {
  ca: read("ca.pem"), cert: read("server.pem"), key: read("server.key"),
  requestCert: true, rejectUnauthorized: true, ALPNProtocols: ["http/1.1"],
};

// One by one: what is written in one turn of the loop becomes one call of SSL_write.
async function* pieces(answer) {
  for (let at = 0; at < answer.length; at += 16000) yield answer.subarray(at, at + 16000);
}

const server = https.createServer(options, (request, response) => {
  const asked = [];
  request.on("data", (piece) => asked.push(piece));
  request.on("end", () => {
    const body = Buffer.concat(asked);
    const [number, size] = numbers(request.url);
    const { remoteAddress, remotePort } = request.socket;
    log({ number, method: request.method, bytes: body.length, sha256: sha256(body), peer: `${remoteAddress}:${remotePort}` });
    const answer = content(number, size);
    const chunked = number % 4 === 3;
    const fields = { "Content-Type": "text/plain" };
    if (!chunked) fields["Content-Length"] = size;
    response.writeHead(number % 7 ? 200 : 201, fields);
    if (chunked) Readable.from(pieces(answer)).pipe(response);
    else response.end(answer);
  });
});
server.keepAliveTimeout = 60000;
server.listen(0, "127.0.0.1", 512, () => console.log(server.address().port));
