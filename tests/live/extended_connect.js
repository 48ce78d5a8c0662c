// A WebSocket over HTTP/2 in clear (RFC 8441), both ends in this process: `node extended_connect.js MESSAGES`.
// The server answers each message with "to " and the message. Prints "done MESSAGES" when all answers came.
'use strict';
const http2 = require('http2');

function frame(text, masked) {
  const data = Buffer.from(text);
  const head = data.length < 126
    ? Buffer.from([0x81, data.length | (masked ? 0x80 : 0)])
    : Buffer.from([0x81, 126 | (masked ? 0x80 : 0), data.length >> 8, data.length & 255]);
  if (!masked) return Buffer.concat([head, data]);
  const mask = Buffer.from([1, 2, 3, 4]);
  return Buffer.concat([head, mask, Buffer.from(data.map((byte, i) => byte ^ mask[i & 3]))]);
}

function reader(each) {
  let kept = Buffer.alloc(0);
  return (piece) => {
    kept = Buffer.concat([kept, piece]);
    while (kept.length >= 2) {
      const masked = kept[1] & 0x80;
      let length = kept[1] & 0x7f;
      let at = 2;
      if (length === 126) {
        if (kept.length < 4) return;
        length = kept.readUInt16BE(2);
        at = 4;
      }
      const end = at + (masked ? 4 : 0) + length;
      if (kept.length < end) return;
      const data = Buffer.from(kept.subarray(end - length, end));
      if (masked) for (let i = 0; i < length; i++) data[i] ^= kept[at + (i & 3)];
      kept = kept.subarray(end);
      each(data.toString());
    }
  };
}

const wanted = Number(process.argv[2]);
const server = http2.createServer({ settings: { enableConnectProtocol: true } });
server.on('stream', (stream, headers) => {
  if (headers[':protocol'] !== 'websocket') {
    stream.respond({ ':status': 200 });
    stream.end('plain');
    return;
  }
  stream.respond({ ':status': 200 });
  stream.on('data', reader((text) => stream.write(frame('to ' + text, false))));
  stream.on('end', () => stream.end());
});
server.listen(0, '127.0.0.1', () => {
  const client = http2.connect(`http://127.0.0.1:${server.address().port}`);
  client.on('remoteSettings', () => {
    const stream = client.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/over-h2' });
    let answered = 0;
    const say = () => stream.write(frame(`message ${answered} ` + 'x'.repeat(answered * 7 % 400), true));
    stream.on('response', say);
    stream.on('data', reader((text) => {
      if (!text.startsWith(`to message ${answered} `)) process.exit(1);
      answered += 1;
      if (answered < wanted) say();
      else stream.end();
    }));
    stream.on('end', () => {
      client.close();
      server.close();
      console.log(`done ${answered}`);
    });
  });
});
